"""A user's own loader, `py:module:function` or `py:path/to/file.py:function`. Only called where code was allowed."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from koda_audit.errors import ModelError, unknown

PYTHON = "py:"


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
    """The module of that name, or of that file.

    Raises:
        ModelError: there is none.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ModelError(f"there is no file {path}")
        module_name = f"koda_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
        if module_name in sys.modules:
            return sys.modules[module_name]
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # pickling and dataclasses look it up there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]  # half of a module must not be found by the next call
            raise
        return module
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script does not have the working folder on its path
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.split(".")[0] == error.name.split(".")[0]:
            raise ModelError(
                f"there is no module '{name}' here: give py:path/to/file.py:function, or set PYTHONPATH"
            ) from error
        raise
