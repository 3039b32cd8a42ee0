"""Which function a model computes, as hashes: no paths and no names, so a copy is the same model and an edit is not."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from koda_audit._files import digest, file_sha256
from koda_audit.errors import KodaAuditError, ModelError


def identify(name: str, model: Any, preprocess: Any, tokenizer: Any, checkpoint: str) -> dict[str, Any]:
    """Hashes of weights, preprocessing and tokenizer, in plain types; part of the store's key.

    Args:
        name: of the model, for messages.
        checkpoint: the file whose hash stands for the weights of a model that has no state_dict.

    Raises:
        ModelError: no identity can be had, or preprocessing or tokenizer do not do what is asked of them.
    """
    return {
        "weights": _weights(name, model, checkpoint),
        "preprocess": _preprocessing(name, preprocess),
        "preprocess_text": _plain_repr(preprocess),
        "tokenizer": _tokens(name, tokenizer),
    }


@contextmanager
def foreign_code(name: str) -> Iterator[None]:
    """Whatever a model's own code raises becomes one sentence that names the model; the original stays as the cause."""
    try:
        yield
    except (KodaAuditError, KeyboardInterrupt):
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"model '{name}': its checkpoint is damaged, or a pickle that holds more than tensors and so could run "
            "code; convert it to safetensors where you trust it"
        ) from error
    except BaseException as error:  # SystemExit, and whatever its authors thought of
        raise ModelError(f"model '{name}' fails: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # foreign too
        text = ""
    # torch puts the number of keys in the first line and the first key in the second
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *([" ".join(lines[:2])[:300]] if lines else [])])


def _weights(name: str, model: Any, checkpoint: str) -> str:
    """sha256 over names, dtypes, shapes and bytes of all tensors, whatever file they came from."""
    if not hasattr(model, "state_dict"):
        path = Path(checkpoint)
        if not path.is_file():
            raise ModelError(
                f"model '{name}' has no state_dict, and its checkpoint is no file: its weights have no identity"
            )
        return file_sha256(path)
    state = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().cpu().contiguous()
            state.update(f"{key} {plain.dtype} {tuple(plain.shape)}".encode())
            state.update(plain.view(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return state.hexdigest()


def _preprocessing(name: str, preprocess: Callable[[Image.Image], torch.Tensor]) -> str:
    """What the preprocessing does to two fixed pictures: catches any change, also inside a function without a repr."""
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    probes = [Image.fromarray(noise), Image.fromarray(noise[:, :61, 0].copy())]
    state = hashlib.sha256()
    for probe in probes:
        with foreign_code(f"{name}, its preprocessing"):
            first, second = preprocess(probe.copy()), preprocess(probe.copy())
        if not isinstance(first, torch.Tensor):
            raise ModelError(f"model '{name}': its preprocessing returns {type(first).__name__}, expected a tensor")
        if not torch.equal(first, second):
            raise ModelError(f"model '{name}': its preprocessing is random; give the one for evaluation")
        plain = first.detach().contiguous()
        state.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        state.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _tokens(name: str, tokenizer: Callable[[list[str]], torch.Tensor]) -> str:
    texts = ["a photo of a cat", "Hello, WORLD! It's 3 o'clock; <b>naïve</b> — “quotes”", "", "one two three " * 60]
    with foreign_code(f"{name}, its tokenizer"):
        tokens = tokenizer(texts)
    if not isinstance(tokens, torch.Tensor):
        raise ModelError(f"model '{name}': its tokenizer returns {type(tokens).__name__}, expected a tensor")
    return digest([str(tokens.dtype), tokens.tolist()])


def _plain_repr(preprocess: object) -> str:
    made = preprocess.func if isinstance(preprocess, partial) else preprocess
    text = getattr(made, "__qualname__", None) or repr(made)
    return re.sub(r" at 0x[0-9a-f]+", "", text)
