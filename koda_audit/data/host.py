"""Datasets that the host builds from other sources than webdatasets: indexed ones, and streams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import EpsImagePlugin, Image

from koda_audit.data.dataset import Kind, Target, check_depth, sentence, some_captions
from koda_audit.errors import DataError

EpsImagePlugin.gs_binary = False  # Pillow would start Ghostscript on a file that is named .jpg and is PostScript


class HostSamples:
    """Any indexed dataset of the host; equal images get the suffixes -2, -3, … in their order."""

    in_order = False

    def __init__(self, dataset: Any, kind: Kind, name: str) -> None:
        self.dataset, self.kind, self.name = dataset, kind, name

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        where = f"row {row} of dataset '{self.name}'"
        try:
            item, target = self._item(row)
        except DataError:
            raise
        except Exception as error:  # the host's readers raise whatever they like
            raise DataError(f"{where} cannot be read: {sentence(error)}") from error
        if not isinstance(item, tuple) or not isinstance(item[1], Image.Image):
            raise DataError(f"{where} is a {type(item).__name__}, expected one image")
        sample, image = item
        check_depth(image, where)
        if self.kind == "captions":
            return sample, image, some_captions(map(str, target), where)
        if isinstance(target, torch.Tensor) and target.ndim == 1:
            return sample, image, [int(flag) for flag in target]
        return sample, image, int(target)

    def _item(self, row: int) -> Any:
        return self.dataset[row]


class HostStream(HostSamples):
    """A dataset of the host that can only be read from its start (`vtab/`, `tfds/`), in this process.

    Rows are cheap in order; one before the last one read starts the stream again.
    """

    in_order = True

    def __init__(self, dataset: Any, kind: Kind, name: str) -> None:
        super().__init__(dataset, kind, name)
        self.rows: Iterator[Any] = iter(())
        self.next_row = len(dataset)

    def _item(self, row: int) -> Any:
        if row < self.next_row:
            self.rows, self.next_row = iter(self.dataset), 0
        while True:
            item = next(self.rows, None)
            if item is None:
                raise DataError(f"dataset '{self.name}' ends after {self.next_row} of {len(self)} samples")
            self.next_row += 1
            if self.next_row > row:
                return item


def indexed(built: Any, kind: Kind, name: str) -> HostSamples:
    """The samples of what the host built.

    Raises:
        DataError: it does not say how many there are.
    """
    try:
        len(built)
    except (TypeError, NotImplementedError) as error:
        raise DataError(
            f"dataset '{name}' has no length: export it with clip_benchmark_export_wds, use wds/"
        ) from error
    return (HostStream if isinstance(built, torch.utils.data.IterableDataset) else HostSamples)(built, kind, name)


def identify(image: Image.Image) -> tuple[str, Image.Image]:
    """Stands in for the preprocessing in a dataset of the host: the hash of the decoded image, and the image."""
    state = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes())
    return state.hexdigest()[:20], image


def host_content(samples: HostSamples, root: Path, annotation_file: str) -> Any:
    """Names, sizes and times of all files below the root (hashing them could take hours), and 16 samples."""
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
    if annotation_file and Path(annotation_file).is_file():
        files.append(Path(annotation_file))
    listing = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    step = 1 if samples.in_order else max(1, len(samples) // 16)
    probes = [[sample, target] for sample, _, target in map(samples.read, range(0, min(len(samples), 16 * step), step))]
    return [len(samples), listing, probes]
