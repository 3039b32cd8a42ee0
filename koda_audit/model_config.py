"""What the configuration of a model folder or repository may hold: it comes with the weights, from anybody.

open_clip passes ``tokenizer_kwargs`` on to transformers, where ``trust_remote_code`` runs Python files that lie beside
the configuration. So only keys that are known to be data pass without permission.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from koda_audit.errors import InputError
from koda_audit.user_code import ALLOW

TOKENIZER = (
    "clean",
    "strip_sep_token",
    "language",
    "reduction_mask",
)  # of open_clip's own tokenizers
SECTIONS = ("vision_cfg", "text_cfg", "multimodal_cfg")


def check_config(config: Mapping[str, Any], where: object) -> None:
    """Refuse what is not known to be data in the ``model_cfg`` of an ``open_clip_config.json``.

    Args:
        where: the file or repository, for the message.

    Raises:
        InputError: a key that open_clip does not have, or one of its tokenizer's that could name code.
    """
    for place, key in _unknown(config):
        raise InputError(
            f"{where}: '{place}' holds '{key}', which is not known to be mere data and may run code that comes with "
            f"the model: remove it, or {ALLOW}"
        )


def _unknown(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from open_clip import CLIP, CoCa, CustomTextCLIP
    from open_clip.coca_model import MultimodalCfg
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    built = (inspect.signature(model.__init__).parameters for model in (CLIP, CustomTextCLIP, CoCa))
    yield from _others("model_cfg", config, {"custom_text", *(name for names in built for name in names)})
    for section, known in zip(SECTIONS, (CLIPVisionCfg, CLIPTextCfg, MultimodalCfg), strict=True):
        part = config.get(section)
        if not isinstance(part, dict):
            continue
        yield from _others(section, part, [field.name for field in fields(known)])
        given = part.get("tokenizer_kwargs")
        if isinstance(given, dict):
            yield from _others(f"{section}.tokenizer_kwargs", given, TOKENIZER)


def _others(place: str, found: Mapping[str, Any], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    names = set(known)
    yield from ((place, str(key)) for key in found if key not in names)


@contextmanager
def never_asking() -> Iterator[None]:
    """Transformers asks on the terminal whether to run a repository's code; permission has one place: here it refuses.

    It reads the seconds that it waits for an answer at each call; 0 is no question.
    """
    import transformers.dynamic_module_utils as remote

    before = remote.TIME_OUT_REMOTE_CODE
    remote.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        remote.TIME_OUT_REMOTE_CODE = before
