"""Alignments on disk: ``alignment.safetensors`` for the numbers, ``alignment.json`` for all else.

The numbers are written under another name first and take their own once the record, which tells them by their hash, is
there: a save that fails or is killed leaves the alignment before, or the new one.
"""

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

from koda_audit._files import atomic_write, checked_folder, digest, reason, strict, write_json
from koda_audit.alignment.maps import Map, Residual, Step, check_map
from koda_audit.errors import InputError, StoreError

FORMAT = "koda_audit alignment 1"
TENSORS, RECORD, NEXT = "alignment.safetensors", "alignment.json", "alignment.next.safetensors"
SIDES = ({"image", "text"}, {"image", "class_text"})
# what ``Alignment.apply`` relies on
RECORDED = {"name": str, "params": dict}
INFO = {
    **dict.fromkeys(("definition", "frame", "scoring", "rows"), str),
    **dict.fromkeys(("paired", "gallery_bound", "transductive", "renormalised"), bool),
    **dict.fromkeys(("samples", "texts"), int),
    **dict.fromkeys(("widths", "figures"), dict),
}


def write(place: str | Path, record: Mapping[str, Any], maps: Mapping[str, Map], seen: NDArray[np.int64]) -> None:
    """Write an alignment; one that lies there is replaced.

    Raises:
        InputError: a parameter or figure that is no plain JSON type, or ``place`` can be no folder.
        StoreError: the folder cannot be written; the alignment that lies there stays.
    """
    folder = checked_folder(place)
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
        json.dumps(strict(whole), ensure_ascii=False).encode()
    except (TypeError, UnicodeEncodeError) as error:
        raise InputError(f"parameters, figures and provenance must be plain JSON types: {error}") from error
    content = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})  # no two may share memory
    whole["sha256"] = sha256(content).hexdigest()
    _settle(folder)
    try:
        with atomic_write(folder / NEXT) as stream:
            stream.write(content)
        write_json(folder / RECORD, {**whole, "checksum": digest(whole)})
    except StoreError:
        (folder / NEXT).unlink(missing_ok=True)
        raise
    _settle(folder)


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
            or not isinstance(info.get("ingredients"), (dict, type(None)))
        ):
            raise ValueError("it does not describe an alignment")
    path = folder / TENSORS
    with _readable(path):
        content = _tensors(folder, record["sha256"])
        tensors = load(content)
        seen = tensors.pop("seen")
        if seen.ndim != 1 or seen.dtype != torch.int64:
            raise ValueError(f"seen is {tuple(seen.shape)} of {seen.dtype}")
        maps = {side: _map(tensors, side, flags) for side, flags in layout.items()}
        for side, how in maps.items():
            check_map(how, info["samples" if side == "image" else "texts"], info["widths"][side])
    return record, maps, seen.numpy()


def _tensors(folder: Path, wanted: str) -> bytes:
    """The numbers of the record, which a save that was killed at its end has left under their first name."""
    for name in (NEXT, TENSORS):
        if name == TENSORS or (folder / name).exists():
            content = (folder / name).read_bytes()
            if sha256(content).hexdigest() == wanted:
                return content
    raise StoreError(f"{folder / TENSORS} differs from the checksum in {RECORD}")


def _settle(folder: Path) -> None:
    """Give the numbers of the record their name where they still have their first one."""
    following = folder / NEXT
    try:
        if following.exists():
            record = json.loads((folder / RECORD).read_text("utf-8"))
            if sha256(following.read_bytes()).hexdigest() == record["sha256"]:
                following.replace(folder / TENSORS)
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # a record that is missing or damaged owns no numbers
        return
    except OSError as error:
        raise StoreError(f"cannot replace {folder / TENSORS}: {reason(error)}") from error


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
