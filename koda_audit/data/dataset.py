"""Datasets as indexed samples with stable ids: webdatasets, folders of images by class, or whatever the host builds.

The host's own pipelines drop ``__key__`` and interleave workers, so an index there is not an identity. Here every
sample can be read alone by its row, in a fixed order, and has an id: its key, its path, or a hash of its image.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from PIL import Image

from koda_audit.errors import DataError, KodaAuditError

Target = Any  # tuple of captions, class index, or list of zeros and ones
Kind = Literal["captions", "classes"]
# the host's order of preference
IMAGE_ENDINGS = ("webp", "png", "jpg", "jpeg")


class Samples(Protocol):
    """Rows of a dataset."""

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
        return {sample: self.samples.read(row_of[sample])[1].convert("RGB") for sample in dict.fromkeys(wanted)}


def batches(
    dataset: Dataset, groups: Sequence[Sequence[int]], preprocess: Callable[[Image.Image], torch.Tensor], workers: int
) -> Iterator[tuple[list[str], torch.Tensor, list[Target]]]:
    """Read groups of rows in order, a batch a group: (ids, images (b, 3, h, w), targets)."""
    loader: Any = torch.utils.data.DataLoader(
        _Rows(dataset.samples, preprocess),
        batch_sampler=list(map(list, groups)),
        num_workers=_useful_workers(workers, len(groups), preprocess),
        collate_fn=_as_lists,
    )
    try:
        yield from loader
    except KodaAuditError as error:
        # a worker's error comes wrapped in its traceback; the sentence is what follows the name of its class
        raise type(error)(str(error).rsplit(f"{type(error).__name__}: ", 1)[-1].strip()) from error


def decode(raw: bytes, where: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(raw)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is no readable image: {error}") from error


class _Rows(torch.utils.data.Dataset[tuple[str, torch.Tensor, Target]]):
    """What the workers see: the samples, preprocessed. At module level, so that it pickles under spawn."""

    def __init__(self, samples: Samples, preprocess: Callable[[Image.Image], torch.Tensor]) -> None:
        self.samples, self.preprocess = samples, preprocess

    def __getitem__(self, row: int) -> tuple[str, torch.Tensor, Target]:
        sample, image, target = self.samples.read(row)
        return sample, self.preprocess(image), target


def _as_lists(items: list[tuple[str, torch.Tensor, Target]]) -> tuple[list[str], torch.Tensor, list[Target]]:
    ids, images, targets = zip(*items, strict=True)
    return list(ids), torch.stack(images), list(targets)


def _useful_workers(asked: int, groups: int, preprocess: Callable[[Image.Image], torch.Tensor]) -> int:
    """A worker costs more to start than a few batches; a user's own function cannot be sent to a spawned one."""
    unsendable = (
        multiprocessing.get_start_method() != "fork" and type(preprocess).__module__.split(".")[0] != "torchvision"
    )
    return 0 if unsendable else min(asked, groups // 8)
