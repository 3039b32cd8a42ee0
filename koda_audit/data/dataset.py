"""Datasets as indexed samples with stable ids: webdatasets, folders of images by class, or whatever the host builds.

The host's own pipelines drop ``__key__`` and interleave workers, so an index there is not an identity. Here every
sample can be read alone by its row, in a fixed order, and has an id: its key, its path, or a hash of its image.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image, UnidentifiedImageError

from koda_audit.errors import DataError, KodaAuditError, ModelError

Target = Any  # tuple of captions, class index, or list of zeros and ones
Kind = Literal["captions", "classes"]
# the host's order of preference
IMAGE_ENDINGS = ("webp", "png", "jpg", "jpeg")
# the readers that belong to them; Pillow has others that start programs (Ghostscript, for an EPS under any name)
_FORMATS = ("WEBP", "PNG", "JPEG")


class Samples(Protocol):
    """Rows of a dataset."""

    @property
    def in_order(self) -> bool:
        """Whether rows should be read in order, and by one process: a stream can be wound back to its start only."""

    def __len__(self) -> int: ...
    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        """(id, decoded image, captions or label) of one row."""


@dataclass(frozen=True)
class Dataset:
    """A dataset, ready to be read. ``fingerprint`` is a digest of its files."""

    name: str
    split: str
    language: str
    kind: Kind
    samples: Samples
    fingerprint: str
    class_names: tuple[str, ...] | None = None
    templates: Any = None  # list of templates, or one list of prompts a class name

    def images(self, wanted: Sequence[str], ids: Sequence[str]) -> dict[str, Image.Image]:
        """The decoded images of some samples; ``ids`` are those of all rows, in order."""
        row_of = {sample: row for row, sample in enumerate(ids)}
        in_order = sorted(set(wanted), key=row_of.__getitem__)
        return {sample: self.samples.read(row_of[sample])[1].convert("RGB") for sample in in_order}


def batches(
    dataset: Dataset, groups: Sequence[Sequence[int]], preprocess: Callable[[Image.Image], torch.Tensor], workers: int
) -> Iterator[tuple[list[str], torch.Tensor, list[Target]]]:
    """Read groups of rows in order, a batch a group: (ids, images (b, 3, h, w), targets)."""
    loader: Any = torch.utils.data.DataLoader(
        _Rows(dataset.samples, preprocess),
        batch_sampler=list(map(list, groups)),
        num_workers=0 if dataset.samples.in_order else _useful_workers(workers, len(groups), preprocess),
        collate_fn=_as_lists,
    )
    try:
        for batch in loader:
            if isinstance(batch, KodaAuditError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that reads the images died, most often for want of memory: use --num_workers 0, or fewer workers"
        ) from error


def decode(raw: bytes, where: str) -> Image.Image:
    """The image as RGB.

    Raises:
        DataError: it cannot be decoded, or RGB would not hold it.
    """
    try:
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
        image.load()
    except Exception as error:  # Pillow raises whatever a broken file leads it to
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error or type(error).__name__}"
        raise DataError(f"{where} is no readable image (webp, png, jpg){reason}") from error
    check_depth(image, where)
    return image.convert("RGB")


def check_depth(image: Image.Image, where: str) -> None:
    """Refuse greyscales of 16 or 32 bits: Pillow's conversion to RGB clips them, mostly to white."""
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{where} is a greyscale of more than 8 bits: convert it to 8 bits a channel")


def some_captions(lines: Iterable[str], where: str) -> tuple[str, ...]:
    """The captions of an image, without blank ones; none at all is a DataError."""
    captions = tuple(line for line in lines if line.strip())
    if not captions:
        raise DataError(f"{where} has no caption, or only blank ones: add one, or remove the sample")
    return captions


def check_name(name: str, where: object) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the name {name!r} in {where} is not UTF-8: rename it") from error


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Turn what the operating system refuses into a DataError about ``what``."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is no UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror or error}") from error


def digest_of(file: Path, hash_file: Callable[[Path], str]) -> str:
    with reading(file):
        return hash_file(file)


def sentence(error: BaseException) -> str:
    """Foreign code's error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


Item = tuple[str, torch.Tensor, Target]


class _Rows(torch.utils.data.Dataset[Item | KodaAuditError]):
    """What the workers see: the samples, preprocessed. At module level, so that it pickles under spawn."""

    def __init__(self, samples: Samples, preprocess: Callable[[Image.Image], torch.Tensor]) -> None:
        self.samples, self.preprocess = samples, preprocess

    def __getitem__(self, row: int) -> Item | KodaAuditError:
        # errors travel as values: what a worker raises arrives with its traceback as the message
        try:
            sample, image, target = self.samples.read(row)
        except KodaAuditError as error:
            return error
        try:
            return sample, self.preprocess(image), target
        except Exception as error:  # the model's own code
            return ModelError(f"the model's preprocessing fails on sample '{sample}': {sentence(error)}")


def _as_lists(items: list[Item | KodaAuditError]) -> tuple[list[str], torch.Tensor, list[Target]] | KodaAuditError:
    good: list[Item] = []
    for item in items:
        if isinstance(item, KodaAuditError):
            return item
        good.append(item)
    ids, images, targets = zip(*good, strict=True)
    return list(ids), torch.stack(images), list(targets)


def _useful_workers(asked: int, groups: int, preprocess: Callable[[Image.Image], torch.Tensor]) -> int:
    """A worker costs more to start than a few batches; a user's own function cannot be sent to a spawned one."""
    unsendable = (
        multiprocessing.get_start_method() != "fork" and type(preprocess).__module__.split(".")[0] != "torchvision"
    )
    return 0 if unsendable else min(asked, groups // 8)
