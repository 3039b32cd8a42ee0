"""Webdatasets: shards in the host's layout, local or remote."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from koda_audit._files import atomic_write, cache_folder, digest
from koda_audit.data.dataset import IMAGE_ENDINGS, Target, decode
from koda_audit.errors import DataError

if TYPE_CHECKING:
    import requests


@dataclass
class TarSamples:
    """The members of a webdataset's shards, indexed by header: any row is read alone, without a pass over the shard."""

    shards: Sequence[Path]
    target: str  # "txt", "cls" or "npy"
    rows: list[tuple[int, str, tuple[int, int], tuple[int, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, shard in enumerate(self.shards):
            self.rows.extend(self._index(number, shard))
        keys = [key for _, key, _, _ in self.rows]
        self.unique = len(set(keys)) == len(keys)
        if not self.rows:
            raise DataError(f"{self.shards[0]} holds no samples with an image ({', '.join(IMAGE_ENDINGS)})")

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        number, key, image_at, target_at = self.rows[row]
        sample = key if self.unique else f"{self.shards[number].stem}/{key}"
        raw = []
        with self.shards[number].open("rb") as stream:
            for start, size in (image_at, target_at):
                stream.seek(start)
                raw.append(stream.read(size))
        return (
            sample,
            decode(raw[0], f"sample '{sample}' of {self.shards[number]}"),
            self._decode_target(raw[1], sample),
        )

    def _index(self, number: int, shard: Path) -> Iterator[tuple[int, str, tuple[int, int], tuple[int, int]]]:
        members: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        folder, _, file = member.name.rpartition("/")
                        stem, _, ending = file.partition(".")
                        key = f"{folder}/{stem}" if folder else stem
                        members.setdefault(key, {})[ending.lower()] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{shard} cannot be read as a webdataset shard: {error}") from error
        for key, parts in members.items():
            image = next((parts[ending] for ending in IMAGE_ENDINGS if ending in parts), None)
            if image is None:
                continue
            if self.target not in parts:
                raise DataError(f"sample '{key}' of {shard} has no .{self.target}; it holds {', '.join(sorted(parts))}")
            yield number, key, image, parts[self.target]

    def _decode_target(self, raw: bytes, sample: str) -> Target:
        if self.target == "txt":
            captions = tuple(raw.decode("utf-8", "replace").splitlines())
            if not captions:
                raise DataError(f"sample '{sample}' has an empty caption")
            return captions
        if self.target == "cls":
            try:
                return int(raw)
            except ValueError as error:
                raise DataError(f"sample '{sample}' has the class '{raw[:20]!r}', expected a number") from error
        return [int(flag) for flag in np.load(io.BytesIO(raw), allow_pickle=False)]


def local_shards(root: str, split: str, cache_dir: str | None) -> list[Path]:
    """The shards of a webdataset as local files; remote ones are downloaded once.

    Raises:
        DataError: a shard is missing.
    """
    try:
        count = int(read_text(root, f"{split}/nshards.txt") or 0)
    except ValueError as error:
        raise DataError(f"{root}/{split}/nshards.txt holds no number") from error
    if count < 1:
        raise DataError(f"{root}/{split}/nshards.txt is missing, or names no shards")
    if "://" not in root:
        shards = [Path(root) / split / f"{number}.tar" for number in range(count)]
        for shard in shards:
            if not shard.is_file():
                raise DataError(f"{shard} is missing: {split}/nshards.txt says that there are {count} shards")
        return shards
    from tqdm import tqdm

    folder = Path(cache_dir or cache_folder() / "webdatasets") / digest(root)[:16] / split
    shards = [folder / f"{number}.tar" for number in range(count)]
    for shard in tqdm(shards, desc="download shards", disable=None):
        if not shard.is_file():
            with _get(f"{_hub_root(root, 'resolve')}/{split}/{shard.name}") as answer, atomic_write(shard) as stream:
                for block in answer.iter_content(1 << 20):
                    stream.write(block)
    return shards


def read_text(root: str, name: str) -> str | None:
    """A small text file of a webdataset, or None where it does not exist."""
    if "://" not in root:
        path = Path(root) / name
        return path.read_text("utf-8") if path.is_file() else None
    with _get(f"{_hub_root(root, 'raw')}/{name}", missing_ok=True) as answer:
        return None if answer.status_code == 404 else answer.text


@contextmanager
def _get(url: str, missing_ok: bool = False) -> Iterator[requests.Response]:
    import requests

    try:
        with requests.get(url, stream=True, timeout=60) as answer:
            if not (missing_ok and answer.status_code == 404):
                answer.raise_for_status()
            yield answer
    except requests.RequestException as error:
        raise DataError(f"{url} cannot be read: {error}") from error


def _hub_root(root: str, kind: str) -> str:
    """On the Hugging Face hub small files lie under "raw" and shards under "resolve"; elsewhere there is one root."""
    return re.sub(r"(://huggingface\.co/datasets/[^/]+/[^/]+/)[^/]+/", rf"\1{kind}/", root)
