"""Scanned handwritten digits in colour, exported as stock CLIP-benchmark webdatasets.

The scans ship with scikit-learn (``load_digits``: 1797 scans of 8x8 pixels), so nothing is downloaded. Each is enlarged
smoothly and used as the opacity of an ink over a ground; its caption names the digit and both colours. Train and test
draw different scans, so test images are new handwriting in known colours.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (24, 24, 28),
    "white": (246, 246, 242),
    "red": (214, 40, 40),
    "yellow": (250, 204, 21),
    "green": (26, 148, 66),
    "blue": (40, 104, 245),
    "purple": (116, 34, 150),
    "pink": (255, 140, 190),
}
CAPTION = "a photo of a {ink} {digit} on a {ground} background"
CLASS_TEMPLATES = ("a photo of a {c}", "a photo of the number {c}")

IMAGE_SIZE = 64  # pixels, of the square drawing
CELL = 6  # pixels a scan's pixel is enlarged to
MAX_SHIFT = 4  # pixels off the centre, either way; the margin is wide enough for it
TEST_SCANS = 397  # the last ones; few enough for every test caption to be distinct (56 colour pairs per digit)

SHARDS = 4  # of each split: the host's own tasks start four workers by default, and each needs a shard

METADATA = {  # of each export: what its folder holds besides the shards
    "digits_captions": {"dataset_type.txt": "retrieval\n"},
    "digits": {
        "classnames.txt": "\n".join(DIGITS) + "\n",
        "zeroshot_classification_templates.txt": "\n".join(CLASS_TEMPLATES) + "\n",
    },
}


@dataclass(frozen=True)
class Sample:
    """One drawing; ``ink`` and ``ground`` are names in COLOURS, and the caption says all there is to see."""

    key: str
    image: Image.Image
    caption: str
    digit: int
    ink: str
    ground: str


def scans(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The split's scans, (n, 8, 8) with 0 as paper and 1 as full ink, and their digits, (n,)."""
    from sklearn.datasets import load_digits  # takes a second, and a demo that was run before has its scans

    digits = load_digits()
    part = slice(-TEST_SCANS, None) if split == "test" else slice(None, -TEST_SCANS)
    return digits.images[part].astype(np.float32) / 16, digits.target[part].astype(np.int64)


def opacity(scan: NDArray[np.float32]) -> NDArray[np.float32]:
    """An 8x8 scan as the opacity of the ink over a whole drawing, (64, 64) in 0..1, centred."""
    paper = np.pad(scan, 1)  # a scan fills its frame: without paper around it strokes would end in flat cuts
    size = CELL * len(paper)
    enlarged = np.asarray(Image.fromarray(paper).resize((size, size), Image.Resampling.BICUBIC))
    crisp = np.clip((enlarged - 0.25) / 0.45, 0, 1)  # enlarging blurs the edges; the steeper ramp restores them
    return np.pad(crisp, (IMAGE_SIZE - size) // 2)


def draw(split: Split, seed: int = 0) -> list[Sample]:
    """Each scan of the split drawn once, in colours that are balanced over inks, grounds and digits.

    The test captions are all distinct. The train captions cannot be: its 1400 scans share 560 of them.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    pairs = [_colour_pairs(rng) for _ in DIGITS]
    samples = []
    for index, (scan, digit) in enumerate(zip(*scans(split), strict=True)):
        ink, ground = next(pairs[digit])
        down, right = rng.integers(-MAX_SHIFT, MAX_SHIFT, size=2, endpoint=True)
        alpha = np.roll(opacity(scan), (down, right), axis=(0, 1))[:, :, None]
        pixels = alpha * np.array(COLOURS[ink]) + (1 - alpha) * np.array(COLOURS[ground])
        samples.append(
            Sample(
                key=f"{split}-{index:04d}",
                image=Image.fromarray(pixels.round().astype(np.uint8)),
                caption=CAPTION.format(ink=ink, digit=DIGITS[digit], ground=ground),
                digit=int(digit),
                ink=ink,
                ground=ground,
            )
        )
    return samples


def write_webdatasets(folder: Path) -> dict[str, Path]:
    """Export both splits as ``folder/digits_captions`` (retrieval) and ``folder/digits`` (classification).

    A complete export is reused. A new one is byte-identical to any other, and appears under its name only when whole.
    """
    exports = {name: folder / name for name in METADATA}
    missing = [name for name, path in exports.items() if not _is_complete(path)]
    drawings = {split: draw(split) for split in SPLITS} if missing else {}
    for name in missing:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as temporary:
            whole = Path(temporary) / name
            _write_webdataset(whole, drawings)
            shutil.rmtree(exports[name], ignore_errors=True)
            try:
                os.replace(whole, exports[name])
            except OSError:
                if not _is_complete(exports[name]):  # else another run put the same there first
                    raise
    return exports


def _colour_pairs(rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """(ink, ground) pairs without end: each 56 are all of them, each 8 have every ink and every ground once."""
    names = list(COLOURS)
    while True:
        for step in rng.permutation(np.arange(1, len(names))):
            for ink in rng.permutation(len(names)):
                yield names[ink], names[(ink + step) % len(names)]


def _is_complete(path: Path) -> bool:
    names = [*(f"{number}.tar" for number in range(SHARDS)), "nshards.txt"]
    shards = [f"{split}/{name}" for split in SPLITS for name in names]
    return all((path / name).is_file() for name in (*shards, *METADATA[path.name]))


def _write_webdataset(path: Path, drawings: dict[Split, list[Sample]]) -> None:
    for split, samples in drawings.items():
        (path / split).mkdir(parents=True)
        (path / split / "nshards.txt").write_text(f"{SHARDS}\n", "utf-8")
        size = -(-len(samples) // SHARDS)
        for number in range(SHARDS):
            with tarfile.open(path / split / f"{number}.tar", "w") as shard:
                for sample in samples[number * size : (number + 1) * size]:
                    png = io.BytesIO()
                    sample.image.save(png, "PNG")
                    _add(shard, f"{sample.key}.png", png.getvalue())
                    if path.name == "digits":
                        _add(shard, f"{sample.key}.cls", str(sample.digit).encode())
                    else:
                        _add(shard, f"{sample.key}.txt", sample.caption.encode())
    for name, text in METADATA[path.name].items():
        (path / name).write_text(text, "utf-8")


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its defaults (mtime 0, no owner) make the shard the same wherever it is written
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))
