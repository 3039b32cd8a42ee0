"""Alignments on disk: ``alignment.safetensors`` for the numbers, ``alignment.json`` for all else, written last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from koda_audit._files import atomic_write, digest, write_json
from koda_audit.alignment.maps import Map, Residual, Step, check_map
from koda_audit.errors import InputError, StoreError

FORMAT = "koda_audit alignment 1"
TENSORS, RECORD = "alignment.safetensors", "alignment.json"
SIDES = ({"image", "text"}, {"image", "class_text"})
# what ``Alignment.apply`` relies on
RECORDED = {"name": str, "params": dict}
INFO = {"gallery_bound": bool, "transductive": bool, "samples": int, "texts": int, "widths": dict, "rows": str}


def write(folder: Path, record: Mapping[str, Any], maps: Mapping[str, Map], seen: NDArray[np.int64]) -> None:
    """Write an alignment; one that lies there is replaced.

    Raises:
        InputError: a parameter or figure that is no plain JSON type, or ``folder`` is a file.
        StoreError: the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose a folder")
    tensors = {"seen": torch.from_numpy(seen)}
    layout: dict[str, list[bool] | None] = {}
    for side, how in maps.items():
        if isinstance(how, Tensor):
            tensors[f"{side}.rows"], layout[side] = how, None
            continue
        layout[side] = [isinstance(step, Step) and step.renormalise for step in how]
        for number, step in enumerate(how):
            parts = {f"{side}.{number}.{name}": part for name, part in vars(step).items()}
            tensors.update({name: part for name, part in parts.items() if isinstance(part, Tensor)})
    whole = {"format": FORMAT, **record, "renormalise": layout}
    try:
        digest(whole)
    except TypeError as error:
        raise InputError(f"parameters and figures must be plain JSON types: {error}") from error
    # without its record, an alignment does not exist: nothing half-written can pass for complete
    try:
        (folder / RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot replace {folder / RECORD}: {error.strerror or error}") from error
    content = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})  # no two may share memory
    with atomic_write(folder / TENSORS) as stream:
        stream.write(content)
    whole["sha256"] = sha256(content).hexdigest()
    write_json(folder / RECORD, {**whole, "checksum": digest(whole)})


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Map], NDArray[np.int64]]:
    """Record, maps and hashes of the samples, as ``write`` took them; all of it is checked.

    Raises:
        StoreError: missing or damaged; the message names the file.
    """
    path = folder / RECORD
    with _readable(path):
        record = json.loads(path.read_text("utf-8"))
        if record["format"] != FORMAT:
            raise StoreError(f"{path} has format '{record['format']}', this version reads '{FORMAT}': fit again")
        if record.pop("checksum") != digest(record):
            raise StoreError(f"{path} differs from its checksum")
        info, layout = record["info"], record["renormalise"]
        if (
            not {"model", "model_hash"} <= {*info}
            or {*layout} not in SIDES
            or {*info["widths"]} != {*layout}
            or not all(type(record[key]) is kind for key, kind in RECORDED.items())
            or not all(type(info[key]) is kind for key, kind in INFO.items())
        ):
            raise ValueError("it does not describe an alignment")
    path = folder / TENSORS
    with _readable(path):
        content = path.read_bytes()
        if sha256(content).hexdigest() != record["sha256"]:
            raise StoreError(f"{path} differs from the checksum in {RECORD}")
        tensors = load(content)
        seen = tensors.pop("seen")
        if seen.ndim != 1 or seen.dtype != torch.int64:
            raise ValueError(f"seen is {tuple(seen.shape)} of {seen.dtype}")
        maps = {side: _map(tensors, side, flags) for side, flags in layout.items()}
        for side, how in maps.items():
            check_map(how, info["samples" if side == "image" else "texts"], info["widths"][side])
    return record, maps, seen.numpy()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever is wrong with the content of ``path`` is a StoreError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"no alignment in {path.parent}: {path.name} is missing") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise StoreError(f"{path} is damaged: {type(error).__name__} {error}") from error


def _map(tensors: Mapping[str, Tensor], side: str, flags: Sequence[bool] | None) -> Map:
    if flags is None:
        return tensors[f"{side}.rows"]
    return tuple(_step(tensors, f"{side}.{number}.", bool(flag)) for number, flag in enumerate(flags))


def _step(tensors: Mapping[str, Tensor], prefix: str, renormalise: bool) -> Step | Residual:
    parts = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
    return Residual(**parts) if "inner" in parts else Step(**parts, renormalise=renormalise)
