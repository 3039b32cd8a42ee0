"""Loading any model the host can load, or a user's own, and saying exactly which function it computes.

A model is `NAME[,PRETRAINED]`: an open_clip name and tag or checkpoint path, `hf-hub:ORG/REPO`, `local-dir:FOLDER`,
or the user's own `py:module:function` (or `py:path/to/file.py:function`), called as function(pretrained, device) and
returning (model, preprocess, tokenizer).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from koda_audit._files import digest, file_sha256
from koda_audit.errors import InputError, KodaAuditError, KodaAuditWarning, ModelError, unknown

PYTHON = "py:"
LOCAL = "local-dir:"
HUB = "hf-hub:"
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pth")


@dataclass(frozen=True)
class ModelSpec:
    """Which model: ``name`` as in the host's --model, ``pretrained`` as in its --pretrained."""

    name: str
    pretrained: str = ""
    model_type: str = "open_clip"

    @classmethod
    def parse(cls, text: str, model_type: str = "open_clip") -> ModelSpec:
        """`NAME[,PRETRAINED]`, as in the host's --pretrained_model.

        Raises:
            InputError: empty, or more than one comma.
        """
        name, *rest = text.split(",")
        if not name or len(rest) > 1:
            raise InputError(f"model '{text}': expected NAME,PRETRAINED with one comma at most (a path may hold none)")
        return cls(name, rest[0] if rest else "", model_type)

    @property
    def label(self) -> str:
        """A short name for tables: the last folder of a path, else name and tag."""
        if self.name.startswith(LOCAL):
            return Path(self.name[len(LOCAL) :]).name
        if self.name.startswith(HUB):
            return self.name[len(HUB) :]
        if self.name.startswith(PYTHON):
            return Path(self.pretrained).stem or self.name.rsplit(":", 1)[-1]
        return f"{self.name} {Path(self.pretrained).stem if '/' in self.pretrained else self.pretrained}".strip()


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to embed. ``identity`` says what was loaded, in plain types; it is part of the store's key."""

    spec: ModelSpec
    encoder: Any  # encode_image, encode_text
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    device: str
    identity: dict[str, Any]


def check_model(spec: ModelSpec, allow_code: bool) -> None:
    """Find what is wrong with a name before anything is loaded.

    Raises:
        InputError: an unknown name or tag (near matches shown), a missing file, `py:` without permission.
    """
    if spec.name.startswith(PYTHON):
        if not allow_code:
            raise InputError(f"model '{spec.name}' runs code of yours: add --koda_allow_code if you trust it")
        if spec.name.count(":") < 2:
            raise InputError(f"model '{spec.name}': expected py:module:function")
    elif spec.name.startswith(LOCAL):
        folder = Path(spec.name[len(LOCAL) :])
        if not folder.is_dir():
            raise InputError(f"model '{spec.name}': there is no folder {folder}")
        if not (folder / "open_clip_config.json").is_file():
            raise InputError(f"model '{spec.name}': {folder} holds no open_clip_config.json")
        if not any(file for pattern in WEIGHT_FILES for file in folder.glob(pattern)):
            # open_clip would go on with random weights
            raise InputError(f"model '{spec.name}': {folder} holds no weights (.safetensors, .bin or .pth)")
    elif spec.name.startswith(HUB) or spec.model_type != "open_clip":
        return
    else:
        import open_clip

        if spec.name not in open_clip.list_models():
            raise InputError(
                unknown("model", spec.name, open_clip.list_models()) + " (or use local-dir:, hf-hub:, py:)"
            )
        tags = open_clip.list_pretrained_tags_by_model(spec.name)
        if not spec.pretrained:
            raise InputError(
                f"model '{spec.name}' without a pretrained tag would have random weights: write {spec.name},TAG"
            )
        if spec.pretrained not in tags:
            if not Path(spec.pretrained).is_file():
                hint = unknown(f"pretrained tag or file for {spec.name}", spec.pretrained, tags)
                raise InputError(
                    hint if tags else f"{spec.pretrained} is no file, and {spec.name} has no pretrained tags"
                )
            warnings.warn(
                f"{spec.pretrained}: a bare checkpoint takes architecture and preprocessing from '{spec.name}'; "
                f"a {LOCAL} folder with its own open_clip_config.json is safer",
                KodaAuditWarning,
                stacklevel=2,
            )


def load_model(spec: ModelSpec, device: str = "cpu", cache_dir: str | None = None, language: str = "en") -> LoadedModel:
    """Load through the host's own loader.

    Raises:
        ModelError: missing, truncated or foreign weights, a pickle that holds more than tensors, a loader that returns
            something else than (model, preprocess, tokenizer).
    """
    quick_gelu: list[str] = []
    with _readable_errors(spec), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if spec.name.startswith(PYTHON):
            triple = load_python(spec.name, spec.pretrained, cache_dir, device)
        else:
            from clip_benchmark.models import load_clip

            triple = load_clip(
                model_type=spec.model_type,
                model_name=spec.name,
                pretrained=spec.pretrained,
                cache_dir=cache_dir,
                device=device,
            )
        quick_gelu = [str(warning.message) for warning in caught if "QuickGELU" in str(warning.message)]
    for message in quick_gelu:
        better = f"{message} Use '{spec.name}-quickgelu': this is another function."
        warnings.warn(f"{spec.name}: {better}", KodaAuditWarning, stacklevel=2)
    if not isinstance(triple, tuple) or len(triple) != 3:
        raise ModelError(f"model '{spec.name}': its loader must return (model, preprocess, tokenizer)")
    model, preprocess, tokenizer = triple
    for method in ("encode_image", "encode_text"):
        if not callable(getattr(model, method, None)):
            raise ModelError(f"model '{spec.name}' has no {method}")
    if isinstance(model, torch.nn.Module):
        model.eval()
    if "nllb-clip" in spec.name:
        from clip_benchmark.models.nllb_clip import set_language

        set_language(tokenizer, language)
    identity = {
        "architecture": _architecture(spec),
        "weights": _weights_hash(model, spec),
        "preprocess": _preprocess_hash(spec, preprocess),
        "preprocess_text": _plain_repr(preprocess),
        "tokenizer": _tokenizer_hash(spec, tokenizer),
    }
    if quick_gelu:
        identity["quick_gelu_mismatch"] = True
    return LoadedModel(spec, model, preprocess, tokenizer, device, identity)


def load_python(model_name: str, pretrained: str, cache_dir: str | None, device: str) -> Any:
    """The host's loader signature for a user's own `py:module:function`.

    Raises:
        ModelError: the module or function does not exist.
    """
    module_name, _, function_name = model_name.removeprefix(PYTHON).rpartition(":")
    module = _user_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise ModelError(unknown(f"function in {module_name}", function_name, names or ["(none)"]))
    return function(pretrained, device)


def _user_module(name: str) -> ModuleType:
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
        spec.loader.exec_module(module)
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


@contextmanager
def _readable_errors(spec: ModelSpec) -> Any:
    """Whatever a loader raises becomes one sentence that names the model; the original stays as the cause."""
    try:
        yield
    except KodaAuditError:
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"model '{spec.name}': its checkpoint is damaged, or a pickle that holds more than tensors and so could "
            f"run code; convert it to safetensors ({_first_line(error)})"
        ) from error
    except Exception as error:
        raise ModelError(f"model '{spec.name},{spec.pretrained}' cannot be loaded: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # torch puts the number of keys in the first line and the first key in the second
    return f"{type(error).__name__}: " + " ".join(lines[:2])[:300]


def _weights_hash(model: Any, spec: ModelSpec) -> str:
    """sha256 over names, dtypes, shapes and bytes of all tensors, whatever file they came from."""
    if not hasattr(model, "state_dict"):
        path = Path(spec.pretrained)
        if not path.is_file():
            raise ModelError(
                f"model '{spec.name}' has no state_dict, and its checkpoint is no file: its weights have no identity"
            )
        return file_sha256(path)
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().cpu().contiguous()
            state.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            state.update(plain.view(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return state.hexdigest()


def _architecture(spec: ModelSpec) -> Any:
    """What the weights do not tell: the configuration, or a user's source. No paths: a copy is the same model."""
    if spec.name.startswith(PYTHON):
        module, _, function = spec.name.removeprefix(PYTHON).rpartition(":")
        file = _user_module(module).__file__
        tag = None if Path(spec.pretrained).is_file() else spec.pretrained
        return {"function": function, "source": file_sha256(Path(file)) if file else module, "pretrained": tag}
    if spec.model_type != "open_clip":
        return {"name": spec.name, "type": spec.model_type}
    import open_clip

    return open_clip.get_model_config(spec.name)


def _preprocess_hash(spec: ModelSpec, preprocess: Callable[[Image.Image], torch.Tensor]) -> str:
    """What the preprocessing does to two fixed pictures: catches any change, also inside a function without a repr."""
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    probes = [Image.fromarray(noise), Image.fromarray(noise[:, :61, 0].copy())]
    state = hashlib.sha256()
    for probe in probes:
        with _readable_errors(spec):
            first, second = preprocess(probe.copy()), preprocess(probe.copy())
        if not isinstance(first, torch.Tensor):
            raise ModelError(
                f"model '{spec.name}': its preprocessing returns {type(first).__name__}, expected a tensor"
            )
        if not torch.equal(first, second):
            raise ModelError(f"model '{spec.name}': its preprocessing is random; give the one for evaluation")
        state.update(f"{first.dtype} {tuple(first.shape)}".encode() + first.contiguous().numpy().tobytes())
    return state.hexdigest()


def _tokenizer_hash(spec: ModelSpec, tokenizer: Callable[[list[str]], torch.Tensor]) -> str:
    texts = ["a photo of a cat", "Hello, WORLD! It's 3 o'clock; <b>naïve</b> — “quotes”", "", "one two three " * 60]
    with _readable_errors(spec):
        tokens = tokenizer(texts)
    return digest([str(tokens.dtype), tokens.tolist()])


def _plain_repr(preprocess: object) -> str:
    text = preprocess.func.__qualname__ if isinstance(preprocess, partial) else repr(preprocess)
    return re.sub(r" at 0x[0-9a-f]+", "", text)
