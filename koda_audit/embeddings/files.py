"""Embeddings on disk: shards of float32 .npy read by memory map, and a JSON manifest with a checksum a file.

A shard ``00003`` is three files: ``00003-image.npy``, ``00003-text.npy`` (captions only) and ``00003.json`` (ids,
captions, labels, sha256 of the other two), which is written last: a shard without it does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koda_audit._files import atomic_write, digest, file_sha256, strict, write_json
from koda_audit.embeddings.rows import Floats, StoredArray, Vectors, stamp_of
from koda_audit.errors import InputError, StoreError

FORMAT = "koda_audit embeddings 1"
MANIFEST = "manifest.json"
CLASSES = "classes.npy"
ALONE = "saved alone"  # the key of embeddings that lie in no store


@dataclass(frozen=True)
class Shard:
    """Consecutive samples: ``image`` (n, d_i), ``text`` (m, d_t) or None, ``text_image`` (m,) rows within the shard."""

    ids: tuple[str, ...]
    image: Vectors
    text: Vectors | None = None
    text_image: tuple[int, ...] | None = None
    captions: tuple[str, ...] | None = None
    labels: tuple[Any, ...] | None = None


def write_shard(folder: Path, index: int, shard: Shard, key: str) -> None:
    """Write one shard of the entry ``key``; whatever lay there under the same index is replaced."""
    files = {f"{index:05d}-image.npy": shard.image}
    if shard.text is not None:
        files[f"{index:05d}-text.npy"] = shard.text
    for name, array in files.items():
        _write_array(folder / name, array)
    write_json(
        folder / f"{index:05d}.json",
        {
            "key": key,
            "ids": shard.ids,
            "text_image": shard.text_image,
            "captions": shard.captions,
            "labels": shard.labels,
            "files": {
                name: {"sha256": file_sha256(folder / name), "shape": array.shape} for name, array in files.items()
            },
        },
    )


def read_shard(folder: Path, index: int, key: str) -> Shard | None:
    """Read one shard of the entry ``key`` and verify it; None where it was never finished.

    Raises:
        StoreError: a file is missing or differs from its checksum, shape or dtype, or belongs to another entry; the
            message names it.
    """
    path = folder / f"{index:05d}.json"
    if not path.is_file():
        return None
    with _readable(path):
        record = json.loads(path.read_text("utf-8"))
        if record["key"] != key:
            raise StoreError(f"{path} belongs to other embeddings")
        names, files = (f"{index:05d}-image.npy", f"{index:05d}-text.npy"), record["files"]
        image, text = (_read_array(folder / name, **files[name]) if name in files else None for name in names)
        ids = tuple(record["ids"])
        if image is None or len(ids) != len(image):
            raise StoreError(f"{path} lists {len(ids)} ids for {0 if image is None else len(image)} rows")
        if any(not 0 <= row < len(ids) for row in record["text_image"] or ()):
            raise StoreError(f"{path} gives a text to an image that is not in this shard")
        lists = [None if record[name] is None else tuple(record[name]) for name in ("text_image", "captions", "labels")]
    return Shard(ids, image, text, *lists)


def write_manifest(folder: Path, meta: Mapping[str, Any], shards: int, classes: Floats | None, key: str) -> None:
    """Close a folder of shards: from here on it counts as complete."""
    record: dict[str, Any] = {"format": FORMAT, "key": key, "shards": shards, "meta": strict(meta), "classes": None}
    record["sha256"] = {f"{index:05d}.json": file_sha256(folder / f"{index:05d}.json") for index in range(shards)}
    if classes is not None:
        _write_array(folder / CLASSES, classes)
        record["classes"] = {"sha256": file_sha256(folder / CLASSES), "shape": list(classes.shape)}
    write_json(folder / MANIFEST, {**record, "checksum": digest(record)})


def read_manifest(folder: Path, key: str) -> dict[str, Any]:
    """The manifest of the complete entry ``key``.

    Raises:
        StoreError: there is none, it is damaged, or it belongs to another entry.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise StoreError(f"no embeddings in {folder}: {MANIFEST} is missing")
    with _readable(path):
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if record["format"] != FORMAT:
            raise StoreError(f"{path} has format '{record['format']}', this version reads '{FORMAT}': embed again")
        if record.pop("checksum") != digest(record):
            raise StoreError(f"{path} differs from its checksum")
        if record["key"] != key:
            raise StoreError(f"{path} belongs to other embeddings")
    return record


def write_all(folder: Path, shard: Shard, meta: Mapping[str, Any], classes: Floats | None) -> None:
    """Write one shard and close the folder; embeddings that lay there are replaced.

    Raises:
        InputError: ``meta`` holds more than plain types, or the folder holds a manifest of something else.
        StoreError: the folder cannot be written.
    """
    try:
        digest(meta)
    except TypeError as error:
        raise InputError(f"meta must hold plain JSON types: {error}") from error
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose a folder")
    if (folder / MANIFEST).is_dir():
        raise InputError(f"{folder / MANIFEST} is a folder: choose another place")
    if (folder / MANIFEST).exists() and FORMAT not in (folder / MANIFEST).read_text("utf-8", "replace"):
        raise InputError(f"{folder} holds a {MANIFEST} that is not of embeddings: choose another folder")
    # what is to be written may lie in files that are gone, or in this very folder: read it before anything is removed
    text = None if shard.text is None else _in_float32(shard.text, "text")
    shard = replace(shard, image=_in_float32(shard.image, "image"), text=text)
    # the old manifest goes before the rest: with it gone, nothing half-written can pass for complete
    (folder / MANIFEST).unlink(missing_ok=True)
    write_shard(folder, 0, shard, ALONE)
    write_manifest(folder, meta, 1, classes, ALONE)


def read_all(folder: Path, key: str = ALONE) -> tuple[list[Shard], dict[str, Any], Floats | None]:
    """The shards, meta and class vectors of the complete entry ``key``, every checksum verified.

    Raises:
        StoreError: missing or damaged; the message names the file.
    """
    record = read_manifest(folder, key)
    shards = []
    if not record["shards"]:
        raise StoreError(f"{folder / MANIFEST} lists no shards: embed again")
    for index in range(int(record["shards"])):
        path = folder / f"{index:05d}.json"
        if not path.is_file() or file_sha256(path) != record["sha256"].get(path.name):
            raise StoreError(f"{path} is missing or differs from its checksum")
        shard = read_shard(folder, index, key)
        assert shard is not None
        shards.append(shard)
    classes = record["classes"]
    vectors = None if classes is None else _read_array(folder / CLASSES, **classes)[:]
    return shards, dict(record["meta"]), vectors


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever is wrong with the content of ``path`` is a StoreError that names it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {type(error).__name__} {error}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def _in_float32(array: Vectors, name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.asarray(array).astype(np.float32)
    lengths = np.abs(narrow).max(axis=1, initial=0)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(f"{name} vectors do not fit into float32, in which they are kept: scale them")
    return narrow


def _write_array(path: Path, array: Vectors) -> None:
    with atomic_write(path) as stream:
        np.save(stream, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)


def _read_array(path: Path, sha256: str, shape: Sequence[int]) -> StoredArray:
    if not path.is_file():
        raise StoreError(f"{path} is missing")
    if file_sha256(path) != sha256:
        raise StoreError(f"{path} differs from its checksum")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.float32 or array.ndim != 2 or array.shape != tuple(shape):
        raise StoreError(f"{path} holds {array.dtype} {array.shape}, its record says float32 {tuple(shape)}")
    return StoredArray(path, array.shape, stamp_of(path))
