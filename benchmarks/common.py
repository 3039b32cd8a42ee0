"""What all tables share: planted data, a process for each side, peak memory, and the rates that floors are made of."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from koda_audit import Embeddings
from koda_audit._arrays import chosen
from koda_audit._kernels.bandwidth import fit_bandwidth
from koda_audit.discrepancy.pool import drawn

Figures = dict[str, Any]  # what a side measured, in plain JSON types
GROUPS, LOST = 40, 8
COLUMNS = {"image": 64, "text": 48}
SPREAD, VIEW = 0.6, 0.3  # noise around a group's centre, and of the reference around the target; centres have 1
CENTRES = 60  # densest samples of real features, of which centres of lost groups are drawn
CLIP_GROUPS, CLIP_SIZE = 3, 15  # groups that the reference loses of real features, and the samples in each


@dataclass(frozen=True)
class Planted:
    """Vectors of two models, modality -> (n, d), and the rows of each group that only the target holds together."""

    target: Mapping[str, Tensor]
    reference: Mapping[str, Tensor]
    lost: list[NDArray[np.int64]]

    @property
    def n(self) -> int:
        return len(self.target["image"])

    @property
    def columns(self) -> int:
        return sum(values.shape[1] for values in self.target.values())

    def models(self) -> tuple[Embeddings, Embeddings]:
        sides = (self.target, self.reference)
        target, reference = (Embeddings(side["image"], side["text"]) for side in sides)
        return target, reference

    def rows(self, rows: NDArray[np.int64]) -> Planted:
        """Of some samples; the groups are numbered anew."""
        chosen = torch.from_numpy(rows)
        sides = (self.target, self.reference)
        target, reference = ({name: values[chosen] for name, values in side.items()} for side in sides)
        return Planted(target, reference, [np.flatnonzero(np.isin(rows, group)) for group in self.lost])


def planted(n: int, seed: int) -> Planted:
    """40 groups with 1 to 10 % of the samples each; every fifth, from large to small, is noise in the reference."""
    random = np.random.default_rng(seed)
    tail = np.arange(1, GROUPS + 1) ** -0.75
    label = random.choice(GROUPS, n, p=(0.01 + (1 - 0.01 * GROUPS) * tail / tail.sum()))
    lost = [np.flatnonzero(label == group) for group in range(0, GROUPS, GROUPS // LOST)]
    scrambled = np.concatenate(lost)
    target, reference = {}, {}
    for name, columns in COLUMNS.items():
        held = random.normal(size=(GROUPS, columns))[label] + SPREAD * random.normal(size=(n, columns))
        other = held + VIEW * random.normal(size=(n, columns))
        other[scrambled] = other.std() * random.normal(size=(len(scrambled), columns))
        target[name], reference[name] = torch.from_numpy(held), torch.from_numpy(other)
    return Planted(target, reference, lost)


def planted_in_clip(folder: Path, seed: int) -> Planted:
    """Real features, features_clip.npy (image and text, n, d); three dense groups are noise in the reference."""
    features = np.load(folder / "features_clip.npy").astype(np.float64)
    centred = features - features.mean(axis=1, keepdims=True)
    both = np.concatenate(list(centred), axis=1)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    cosine = both @ both.T
    density = np.sort(cosine, axis=1)[:, -CLIP_SIZE:].mean(axis=1)
    random = np.random.default_rng(seed)
    free, groups = np.ones(len(cosine), dtype=bool), []
    for _ in range(CLIP_GROUPS):
        centre = random.choice(np.argsort(-np.where(free, density, -2))[:CENTRES])
        groups.append(np.argsort(-np.where(free, cosine[centre], -2))[:CLIP_SIZE])
        free &= cosine[centre] < 0.15  # the next group must be unlike this one
        free[groups[-1]] = False
    lost = features.copy()
    for group in groups:
        noise = random.standard_normal((2, CLIP_SIZE, features.shape[2]))
        lost[:, group] = noise / np.linalg.norm(noise, axis=2, keepdims=True)
    target, reference = (dict(zip(COLUMNS, map(torch.from_numpy, side), strict=True)) for side in (features, lost))
    return Planted(target, reference, groups)


def widths(side: Mapping[str, Tensor]) -> dict[str, float]:
    """Those that find_discrepancies sets."""
    rows = torch.from_numpy(drawn(Embeddings(side["image"]).ids))
    return fit_bandwidth(chosen(side, rows)).sigmas


def data_options(parser: argparse.ArgumentParser, samples: int | None) -> None:
    """``samples`` is the default of --samples; None where the table has an option of its own for it."""
    if samples:
        parser.add_argument("--samples", type=int, default=samples, help="of synthetic data (default %(default)s)")
    parser.add_argument("--fixtures", type=Path, help="folder with features_clip.npy: real features instead")
    parser.add_argument("--seed", type=int, default=0, help="of the data (default %(default)s)")


def data(samples: int, fixtures: str | Path | None, seed: int) -> Planted:
    return planted_in_clip(Path(fixtures), seed) if fixtures else planted(samples, seed)


def run_side(table: str, **settings: Any) -> Figures:
    """What ``side(**settings)`` of a table returns, run in a process of its own."""
    progress(f"{table} {' '.join(str(value) for value in settings.values() if not isinstance(value, dict))}")
    command = [sys.executable, str(Path(__file__).parent), table, "--side", json.dumps(settings, default=str)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


@contextmanager
def measured() -> Iterator[Figures]:
    """Seconds and the absolute peak of the block, inputs and libraries included, under "seconds" and "peak"."""
    figures: Figures = {}
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from what is held now
    start = time.perf_counter()
    yield figures
    figures["seconds"] = time.perf_counter() - start
    figures["peak"] = peak()


def peak() -> float | None:
    """GiB at the high-water mark; None where the system keeps none."""
    if sys.platform != "linux":
        return None
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM:"))


def product_rate(width: int = 4096) -> float:
    """Flops a second of one large plain float64 product; the best of three, as other work only slows it down."""
    a = torch.randn(width, width, dtype=torch.float64)
    return 2 * width**3 / _best(lambda: a @ a)


def memory_rate(count: int = 2**26) -> float:
    """Bytes a second, read plus written, of a float64 copy that fits into no cache."""
    a, b = torch.ones(count, dtype=torch.float64), torch.empty(count, dtype=torch.float64)
    return 2 * 8 * count / _best(lambda: b.copy_(a))


def _best(work: Any, times: int = 3) -> float:
    work()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def show(title: str, rows: list[dict[str, Any]], reading: str) -> None:
    print(f"{title}; float64, {torch.get_num_threads()} threads\n")
    print(tabulate(rows, headers="keys", floatfmt=".3g"))
    print(f"\n{reading}\n", flush=True)
