"""Embeddings on disk: shards of float32 .npy read by memory map, and a JSON manifest with a checksum a file.

A shard ``00003`` is three files: ``00003-image.npy``, ``00003-text.npy`` (captions only) and ``00003.json`` (ids,
captions, labels, sha256 of the other two), which is written last: a shard without it does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koda_audit._files import atomic_write, file_sha256, write_json
from koda_audit.errors import StoreError

Floats = NDArray[np.floating[Any]]
FORMAT = "koda_audit embeddings 1"
MANIFEST = "manifest.json"
CLASSES = "classes.npy"


@dataclass(frozen=True)
class Shard:
    """Consecutive samples: ``image`` (n, d_i), ``text`` (m, d_t) or None, ``text_image`` (m,) rows within the shard."""

    ids: tuple[str, ...]
    image: Floats
    text: Floats | None = None
    text_image: tuple[int, ...] | None = None
    captions: tuple[str, ...] | None = None
    labels: tuple[Any, ...] | None = None


def write_shard(folder: Path, index: int, shard: Shard) -> None:
    """Write one shard; whatever lay there under the same index is replaced."""
    files = {f"{index:05d}-image.npy": shard.image}
    if shard.text is not None:
        files[f"{index:05d}-text.npy"] = shard.text
    for name, array in files.items():
        _write_array(folder / name, array)
    write_json(
        folder / f"{index:05d}.json",
        {
            "ids": shard.ids,
            "text_image": shard.text_image,
            "captions": shard.captions,
            "labels": shard.labels,
            "files": {
                name: {"sha256": file_sha256(folder / name), "shape": array.shape} for name, array in files.items()
            },
        },
    )


def read_shard(folder: Path, index: int) -> Shard | None:
    """Read one shard and verify it; None where it was never finished.

    Raises:
        StoreError: a file is missing or differs from its checksum, shape or dtype; the message names it.
    """
    path = folder / f"{index:05d}.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text("utf-8"))
        ids, files = tuple(record["ids"]), record["files"]
        arrays = {name: _read_array(folder / name, entry["sha256"], entry["shape"]) for name, entry in files.items()}
        image = arrays[f"{index:05d}-image.npy"]
        text = arrays.get(f"{index:05d}-text.npy")
        if len(ids) != len(image):
            raise StoreError(f"{path} lists {len(ids)} ids for {len(image)} rows")
        as_tuple = [None if record[key] is None else tuple(record[key]) for key in ("text_image", "captions", "labels")]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return Shard(ids, image, text, *as_tuple)


def write_manifest(folder: Path, meta: Mapping[str, Any], shards: int, classes: Floats | None) -> None:
    """Close a folder of shards: from here on it counts as complete."""
    record: dict[str, Any] = {"format": FORMAT, "shards": shards, "meta": dict(meta), "classes": None}
    record["sha256"] = {f"{index:05d}.json": file_sha256(folder / f"{index:05d}.json") for index in range(shards)}
    if classes is not None:
        _write_array(folder / CLASSES, classes)
        record["classes"] = {"sha256": file_sha256(folder / CLASSES), "shape": classes.shape}
    write_json(folder / MANIFEST, record)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if record["format"] != FORMAT:
            raise StoreError(f"{path} has format '{record['format']}', this version reads '{FORMAT}': embed again")
    except FileNotFoundError as error:
        raise StoreError(f"no embeddings in {folder}: {MANIFEST} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return record


def write_all(folder: Path, shard: Shard, meta: Mapping[str, Any], classes: Floats | None) -> None:
    """Write one shard and close the folder; what lay there is replaced."""
    # the old manifest goes first: with it gone, nothing half-written can pass for complete
    (folder / MANIFEST).unlink(missing_ok=True)
    write_shard(folder, 0, shard)
    write_manifest(folder, meta, 1, classes)


def read_all(folder: Path) -> tuple[list[Shard], dict[str, Any], Floats | None]:
    """The shards, meta and class vectors of a complete folder, every checksum verified.

    Raises:
        StoreError: missing or damaged; the message names the file.
    """
    record = read_manifest(folder)
    shards = []
    for index in range(int(record["shards"])):
        path = folder / f"{index:05d}.json"
        if not path.is_file() or file_sha256(path) != record["sha256"].get(path.name):
            raise StoreError(f"{path} is missing or differs from its checksum")
        shard = read_shard(folder, index)
        assert shard is not None
        shards.append(shard)
    classes = record["classes"]
    vectors = None if classes is None else _read_array(folder / CLASSES, classes["sha256"], classes["shape"])
    return shards, dict(record["meta"]), vectors


def _write_array(path: Path, array: Floats) -> None:
    with atomic_write(path) as stream:
        np.save(stream, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)


def _read_array(path: Path, sha256: str, shape: Sequence[int]) -> NDArray[np.float32]:
    if not path.is_file():
        raise StoreError(f"{path} is missing")
    if file_sha256(path) != sha256:
        raise StoreError(f"{path} differs from its checksum")
    array: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.float32 or array.shape != tuple(shape):
        raise StoreError(f"{path} holds {array.dtype} {array.shape}, its record says float32 {tuple(shape)}")
    return array
