"""Loading any model the host can load, or a user's own, and saying exactly which function it computes.

A model is `NAME[,PRETRAINED]`: an open_clip name and tag or checkpoint path, `hf-hub:ORG/REPO`, `local-dir:FOLDER`,
or the user's own `py:module:function` (or `py:path/to/file.py:function`), called as function(pretrained, device) and
returning (model, preprocess, tokenizer).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from koda_audit.errors import InputError, KodaAuditWarning, ModelError, unknown
from koda_audit.identity import foreign_code, identify
from koda_audit.model_config import check_config, never_asking
from koda_audit.user_code import (
    ALIGNED_MODELS,
    PYTHON,
    PYTHON_MODELS,
    SOURCE,
    check_permission,
    load_python,
    user_function,
    user_module,
)

LOCAL = "local-dir:"
HUB = "hf-hub:"
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pth")


@dataclass(frozen=True)
class ModelSpec:
    """Which model: ``name`` as in the host's --model, ``pretrained`` as in its --pretrained.

    ``allow_code``: whether code of its own, a ``py:`` loader or what its configuration names, may run.
    """

    name: str
    pretrained: str = ""
    model_type: str = "open_clip"
    allow_code: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str, model_type: str = "open_clip", allow_code: bool = False) -> ModelSpec:
        """`NAME[,PRETRAINED]`, as in the host's --pretrained_model.

        Raises:
            InputError: empty, or more than one comma.
        """
        name, *rest = text.split(",")
        if not name or len(rest) > 1:
            raise InputError(f"model '{text}': expected NAME,PRETRAINED with one comma at most (a path may hold none)")
        return cls(name, rest[0] if rest else "", model_type, allow_code)

    @property
    def ignores_pretrained(self) -> bool:
        """open_clip takes everything from the folder or repository."""
        return self.name.startswith((LOCAL, HUB))

    @property
    def label(self) -> str:
        """A short name for tables: the last folder of a path, else name and tag."""
        if self.name.startswith(LOCAL):
            return Path(self.name[len(LOCAL) :]).name
        if self.name.startswith(HUB):
            return self.name[len(HUB) :]
        if self.name.startswith(PYTHON):
            function = self.name.rsplit(":", 1)[-1]
            return Path(self.pretrained).stem if Path(self.pretrained).is_file() else f"{function} {self.pretrained}"
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


def check_model(spec: ModelSpec) -> None:
    """Find what is wrong with a name before anything is loaded.

    Raises:
        InputError: an unknown name or tag (near matches shown), a missing file, code without permission.
        ModelError: the module or function of `py:` does not exist, or the module fails.
    """
    check_permission(spec.allow_code, spec.name, spec.pretrained, spec.model_type)
    if spec.name.startswith(PYTHON) or spec.model_type == PYTHON_MODELS:
        if not spec.name.startswith(PYTHON):
            raise InputError(f"model '{spec.name}' of type {PYTHON_MODELS}: expected py:module:function")
        if spec.name.count(":") < 2:
            raise InputError(f"model '{spec.name}': expected py:module:function")
        with foreign_code(spec.name):
            user_function(spec.name)
    elif spec.name.startswith(LOCAL):
        _check_folder(Path(spec.name[len(LOCAL) :]), spec.allow_code)
    elif spec.model_type != "open_clip":
        from clip_benchmark.models import MODEL_TYPES

        if spec.model_type not in (*MODEL_TYPES, ALIGNED_MODELS):
            raise InputError(unknown("model_type", spec.model_type, MODEL_TYPES))
    elif spec.name.startswith(HUB):
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


def _check_folder(folder: Path, allow_code: bool) -> None:
    config = folder / "open_clip_config.json"
    try:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}")
        if not config.is_file():
            raise InputError(f"{folder} holds no open_clip_config.json")
        if not any(file.is_file() for pattern in WEIGHT_FILES for file in folder.glob(pattern)):
            # open_clip would go on with random weights
            raise InputError(f"{folder} holds no weights (.safetensors, .bin or .pth)")
        content = json.loads(config.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{config}:{error.lineno}: no JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{config} is not UTF-8") from error
    model = content.get("model_cfg") if isinstance(content, dict) else None
    parts = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    model = model if isinstance(model, dict) else {}
    wrong = [name for name, kind in parts.items() if not isinstance(model.get(name), kind)]
    if wrong:
        raise InputError(f"{config}: 'model_cfg' must hold {', '.join(wrong)}, as open_clip writes it")
    if not allow_code:
        check_config(model, config)


def load_model(spec: ModelSpec, device: str = "cpu", cache_dir: str | None = None, language: str = "en") -> LoadedModel:
    """Load through the host's own loader.

    Raises:
        InputError: it runs code without permission.
        ModelError: missing, truncated or foreign weights, a pickle that holds more than tensors, a loader that returns
            something else than (model, preprocess, tokenizer).
    """
    check_permission(spec.allow_code, spec.name, spec.pretrained, spec.model_type)
    with foreign_code(f"{spec.name},{spec.pretrained}"), nullcontext() if spec.allow_code else never_asking():
        if spec.ignores_pretrained and not spec.allow_code:
            _check_loaded_configs(spec.name, cache_dir)
        return _loaded(spec, device, cache_dir, language)


def _loaded(spec: ModelSpec, device: str, cache_dir: str | None, language: str) -> LoadedModel:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if spec.name.startswith(PYTHON):
            triple = load_python(spec.name, spec.pretrained, cache_dir, device)
        else:
            from clip_benchmark.models import load_clip

            triple = load_clip(
                model_type=spec.model_type,
                model_name=spec.name,
                pretrained=None if spec.ignores_pretrained else spec.pretrained,  # it warns of what it ignores
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
        **identify(spec.name, model, preprocess, tokenizer, spec.pretrained),
    }
    if quick_gelu:
        identity["quick_gelu_mismatch"] = True
    return LoadedModel(spec, model, preprocess, tokenizer, device, identity)


def _check_loaded_configs(name: str, cache_dir: str | None) -> None:
    """The configuration of a folder, or of a repository: open_clip reads its tokenizer's from the default cache."""
    import open_clip

    if name.startswith(LOCAL) or cache_dir is None:
        check_config(open_clip.get_model_config(name), name)
        return
    for place in (cache_dir, None):
        path = open_clip.download_pretrained_from_hf(name[len(HUB) :], "open_clip_config.json", cache_dir=place)
        check_config(json.loads(Path(path).read_text("utf-8"))["model_cfg"], name)


def _architecture(spec: ModelSpec) -> Any:
    """What the weights do not tell: the configuration, or a user's source. No paths: a copy is the same model."""
    if spec.name.startswith(PYTHON):
        module, _, function = spec.name.removeprefix(PYTHON).rpartition(":")
        tag = None if Path(spec.pretrained).is_file() else spec.pretrained
        return {"function": function, "source": getattr(user_module(module), SOURCE), "pretrained": tag}
    if spec.model_type != "open_clip":
        return {"name": spec.name, "type": spec.model_type}
    import open_clip

    return open_clip.get_model_config(spec.name)
