"""Webdatasets: shards in the host's layout, local or remote."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from koda_audit._files import atomic_write, cache_folder, digest
from koda_audit.data.address import check_address, is_remote
from koda_audit.data.dataset import IMAGE_ENDINGS, Target, check_name, decode, reading, some_captions
from koda_audit.errors import DataError, InputError

if TYPE_CHECKING:
    import requests

Span = tuple[int, int]  # where the content of a member starts, and its length
_KEY_RULE = "(the key of a sample is what stands before the first dot of its file names)"


@dataclass
class TarSamples:
    """The members of a webdataset's shards, indexed by header: any row is read alone, without a pass over the shard."""

    in_order = False  # no annotation: not a field

    shards: Sequence[Path]
    target: str  # "txt", "cls" or "npy"
    rows: list[tuple[int, str, Span, Span]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, shard in enumerate(self.shards):
            self.rows.extend(self._index(number, shard))
        keys = [key for _, key, _, _ in self.rows]
        self.unique = len(set(keys)) == len(keys)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        number, key, image_at, target_at = self.rows[row]
        sample = key if self.unique else f"{self.shards[number].stem}/{key}"
        shard, raw = self.shards[number], []
        with reading(shard), shard.open("rb") as stream:
            for start, size in (image_at, target_at):
                stream.seek(start)
                raw.append(stream.read(size))
        where = f"sample '{sample}' of {shard}"
        return sample, decode(raw[0], where), self._decode_target(raw[1], where)

    def _index(self, number: int, shard: Path) -> Iterator[tuple[int, str, Span, Span]]:
        samples: dict[str, dict[str, Span]] = {}
        for name, span in _members(shard):
            folder, _, file = name.rpartition("/")
            stem, dot, ending = file.partition(".")
            if not stem or not dot or re.match("__[^/]*__/", name):
                continue  # hidden files, files without ending and metadata are no samples to the host either
            key = f"{folder}/{stem}" if folder else stem
            parts = samples.setdefault(key, {})
            if ending.lower() in parts:
                raise DataError(
                    f"{shard} holds '{key}.{ending.lower()}' twice: give every sample its own key {_KEY_RULE}"
                )
            parts[ending.lower()] = span
        if not samples:
            raise DataError(f"{shard} holds no samples {_KEY_RULE}")
        for key, parts in samples.items():
            image = next((parts[ending] for ending in IMAGE_ENDINGS if ending in parts), None)
            if image is None or self.target not in parts:
                wanted = f"image (.{', .'.join(IMAGE_ENDINGS)})" if image is None else f".{self.target}"
                held = ", ".join(f".{ending}" for ending in sorted(parts))
                raise DataError(f"sample '{key}' of {shard} has no {wanted}; it holds {held} {_KEY_RULE}")
            yield number, key, image, parts[self.target]

    def _decode_target(self, raw: bytes, where: str) -> Target:
        if self.target == "txt":
            with reading(f"the caption of {where}"):
                return some_captions(raw.decode("utf-8").splitlines(), where)
        if self.target == "cls":
            if not re.fullmatch(rb"\s*\d{1,9}\s*", raw):
                raise DataError(f"{where} has the class {raw[:20]!r}, expected a number from 0")
            return int(raw)
        try:
            flags = np.load(io.BytesIO(raw), allow_pickle=False)
            fits = flags.ndim == 1 and flags.size > 0 and bool(np.isin(flags, (0, 1)).all())
        except Exception:  # numpy raises whatever a broken file leads it to, and would advise to unpickle
            fits = False
        if not fits:
            raise DataError(f"the .npy of {where} is no row of zeros and ones, one a class (saved without pickle)")
        return [int(flag) for flag in flags]


def _members(shard: Path) -> Iterable[tuple[str, Span]]:
    """Names and places of the files in a shard, once it is known to be whole."""
    try:
        with shard.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as archive:
            members = archive.getmembers()
            # tarfile takes the end of the file, and a header that it cannot read, for the end of the archive
            stream.seek(archive.offset)
            end = stream.read(tarfile.BLOCKSIZE + tarfile.RECORDSIZE)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{shard} cannot be read as a webdataset shard: {error}") from error
    if len(end) < tarfile.BLOCKSIZE:
        raise DataError(f"{shard} is cut off: it lacks the end-of-archive mark; delete it and copy it anew")
    if any(end[: tarfile.BLOCKSIZE]):
        raise DataError(f"{shard} is damaged at byte {archive.offset}: delete it and copy it anew")
    if b"ustar" in end:
        raise DataError(f"{shard} holds a second archive behind its end: join archives with tar --concatenate")
    for member in members:
        if member.isfile():
            check_name(member.name, shard)
            yield member.name, (member.offset_data, member.size)


def shard_count(root: str, split: str) -> int:
    """How many shards a split has, by its nshards.txt.

    Raises:
        InputError: there is no such split.
        DataError: nshards.txt is missing, or holds no number.
    """
    if not is_remote(root):
        with reading(root):
            if not (Path(root) / split).is_dir():
                found = ", ".join(sorted(file.parent.name for file in Path(root).glob("*/nshards.txt")))
                raise InputError(f"{root} has no split '{split}' (--split); it has {found or 'none'}")
    text = read_text(root, f"{split}/nshards.txt")
    if text is None:
        raise DataError(f"{root}/{split}/nshards.txt is missing: write the number of shards into it")
    if not re.fullmatch(r"\s*\d{1,9}\s*", text) or int(text) < 1:
        raise DataError(f"{root}/{split}/nshards.txt holds {text[:20]!r}, expected the number of shards")
    return int(text)


def local_shards(root: str, split: str, cache_dir: str | None) -> list[Path]:
    """The shards of a webdataset as local files; remote ones are downloaded once.

    Raises:
        InputError: there is no such split.
        DataError: a shard is missing.
    """
    count, shards = shard_count(root, split), []
    if not is_remote(root):
        for number in range(count):
            shards.append(Path(root) / split / f"{number}.tar")
            with reading(shards[-1]):
                if not shards[-1].is_file():
                    raise DataError(f"{shards[-1]} is missing: {split}/nshards.txt says that there are {count} shards")
        return shards
    from tqdm import tqdm

    folder = Path(cache_dir or cache_folder() / "webdatasets") / digest(root)[:16] / split
    for number in tqdm(range(count), desc="download shards", disable=None):
        shard = folder / f"{number}.tar"
        shards.append(shard)
        if not shard.is_file():
            with _get(f"{_hub_root(root, 'resolve')}/{split}/{shard.name}") as answer, atomic_write(shard) as stream:
                for block in answer.iter_content(1 << 20):
                    stream.write(block)
    return shards


def read_text(root: str, name: str) -> str | None:
    """A small text file of a webdataset, or None where it does not exist."""
    if not is_remote(root):
        path = Path(root) / name
        with reading(path):
            return path.read_text("utf-8") if path.is_file() else None
    with _get(f"{_hub_root(root, 'raw')}/{name}", missing_ok=True) as answer:
        return None if answer.status_code == 404 else answer.text


@contextmanager
def _get(url: str, missing_ok: bool = False) -> Iterator[requests.Response]:
    import requests

    check_address(url)
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
