"""A user's own loader, `py:module:function` or `py:path/to/file.py:function`, and the permission to run it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from koda_audit.errors import InputError, ModelError, unknown

PYTHON = "py:"
PYTHON_MODELS, ALIGNED_MODELS = "koda_python", "koda_aligned"  # the host's --model_type
ALLOW = "add --allow-code (--koda_allow_code in clip_benchmark eval) if you trust it"
SOURCE = "__koda_source__"  # attribute of a module: sha256 of the code that it runs


# The host calls a loader without our options: what its command line was allowed.
_allowed_in_host: ContextVar[bool] = ContextVar("allowed_in_host", default=False)


def names_code(name: str, pretrained: str = "", model_type: str = "open_clip") -> str | None:
    """What in the name of a model is Python to be run, directly or as the base of an aligned model; else None.

    >>> names_code("py:mine.py:load"), names_code("alignments/a", "py:mine.py:load", "koda_aligned")
    ('py:mine.py:load', 'py:mine.py:load')
    >>> names_code("ViT-B-32", "openai")
    """
    if model_type == ALIGNED_MODELS:
        return pretrained.partition(",")[0] if pretrained.startswith(PYTHON) else None
    return name if name.startswith(PYTHON) or model_type == PYTHON_MODELS else None


def check_permission(allow_code: bool, name: str, pretrained: str = "", model_type: str = "open_clip") -> None:
    """The one place where it is asked whether code may run.

    Raises:
        InputError: the name reaches Python, and that was not allowed.
    """
    code = names_code(name, pretrained, model_type)
    if code is not None and not allow_code:
        raise InputError(f"model '{code}' runs code of yours: {ALLOW}")


@contextmanager
def allowed_in_host(allow_code: bool) -> Iterator[None]:
    """Permission for the loaders that the host calls meanwhile."""
    token = _allowed_in_host.set(allow_code)
    try:
        yield
    finally:
        _allowed_in_host.reset(token)


def is_allowed_in_host() -> bool:
    """Whether the host's command line gave permission."""
    return _allowed_in_host.get()


def load_python(model_name: str, pretrained: str, cache_dir: str | None, device: str) -> Any:
    """The host's loader signature for a user's own `py:module:function`.

    Raises:
        ModelError: the module or function does not exist.
    """
    return user_function(model_name)(pretrained, device)


def user_function(model_name: str) -> Callable[..., Any]:
    """The function that `py:module:function` names.

    Raises:
        ModelError: the module or function does not exist.
    """
    module_name, _, function_name = model_name.removeprefix(PYTHON).rpartition(":")
    module = user_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise ModelError(unknown(f"function in {module_name}", function_name, names or ["(none)"]))
    return cast("Callable[..., Any]", function)


def user_module(name: str) -> ModuleType:
    """The module of that name, or of that file; its ``SOURCE`` says which code it runs.

    A file is read, hashed and compiled at once: Python's own import would take compiled code for current that has the
    file's size and second of change.

    Raises:
        ModelError: there is none, or an imported one was changed since.
    """
    if name.endswith(".py"):
        return _of_file(Path(name))
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script does not have the working folder on its path
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):  # else a module lacks what it imports itself
            raise ModelError(
                f"there is no module '{name}' here: give py:path/to/file.py:function, or set PYTHONPATH"
            ) from error
        raise
    source = hashlib.sha256(Path(module.__file__).read_bytes() if module.__file__ else name.encode()).hexdigest()
    if vars(module).setdefault(SOURCE, source) != source:
        raise ModelError(f"'{name}' was changed after it was imported: start anew")
    return module


def _of_file(path: Path) -> ModuleType:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"there is no file {path}, or it cannot be read: {error.strerror}") from error
    source, place = (hashlib.sha256(each).hexdigest() for each in (content, bytes(path.resolve())))
    name = f"koda_user_{path.stem}_{place[:8]}_{source[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, SOURCE, source)
    sys.modules[name] = module  # pickling and dataclasses look it up there
    try:
        exec(compile(content, str(path), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]  # half of a module must not be found by the next call
        raise
    return module
