"""Peak memory of the reduced path over embeddings that lie in shards on disk, for growing numbers of samples.

Each n runs in a process of its own, from opening the two models' shards to the verdict on every group. At the largest n
as much lies on disk as the peak is, and nothing of the peak but ids, groups and directions (n T numbers) grows with it.
The floor counts the flops of the Gram matrix, n D^2, over the rate of a large product, and one reading of the
shards over the bandwidth of memory; widths, directions, groups and exact coherences come on top.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import Figures, measured, memory_rate, product_rate, progress, run_side, show
from numpy.typing import NDArray

from koda_audit import Embeddings, find_discrepancies
from koda_audit.embeddings.files import ALONE, Shard, write_manifest, write_shard

ROWS = 1024  # a shard, as the store has them
GROUPS, LOST, COLUMNS = 40, 8, 256  # columns of the image and of the text


def side(folder: str, n_features: int) -> Figures:
    with measured() as figures:
        target, reference = (Embeddings.load(Path(folder) / role) for role in ("target", "reference"))
        found = find_discrepancies(target, reference, path="reduced", n_features=n_features, device="cpu")
    flops, size = len(target) * (4 * n_features) ** 2, sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))
    figures["floor"] = flops / product_rate() + size / memory_rate()
    figures["disk"] = size / 2**30
    figures["findings"] = int(found.groups["finding"].sum())
    figures["gap"] = found.subspace["duality_gap"] / found.subspace["used_target"]
    return figures


def write_models(folder: Path, n: int, seed: int) -> None:
    """Shards of two models that share 32 of 40 groups; one shard is in memory at a time."""
    centres = np.random.default_rng(seed).standard_normal((2, GROUPS, COLUMNS))
    for role in ("target", "reference"):
        shards = 0
        for start in range(0, n, ROWS):
            ids = tuple(f"sample {row}" for row in range(start, min(start + ROWS, n)))
            image, text = _vectors(role, centres, len(ids), [seed, start])
            write_shard(folder / role, shards, Shard(ids, image, text, tuple(range(len(ids)))), ALONE)
            shards += 1
        write_manifest(folder / role, {"model": role}, shards, None, ALONE)


def _vectors(role: str, centres: NDArray[np.float64], n: int, seed: list[int]) -> Iterator[NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    label = random.integers(0, GROUPS, n)
    for held in centres[:, label] + 0.6 * random.standard_normal((2, n, COLUMNS)):
        other = held + 0.3 * random.standard_normal(held.shape)
        other[label < LOST] = 1.2 * random.standard_normal(((label < LOST).sum(), COLUMNS))
        yield held if role == "target" else other


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, nargs="+", default=[16_000, 64_000, 256_000])
    parser.add_argument(
        "--frequencies", type=int, default=1000, help="random frequencies a model (default %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the shards are written; default: the system's")
    parser.add_argument("--seed", type=int, default=0, help="of the data (default %(default)s)")


def run(options: argparse.Namespace) -> None:
    rows = []
    for n in options.samples:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            progress(f"writing shards of {n} samples")
            write_models(Path(folder), n, options.seed)
            figures = run_side("memory", folder=folder, n_features=options.frequencies)
        first = rows[0]["peak GiB"] if rows else figures["peak"]
        rows.append(
            {
                "n": n,
                "on disk GiB": figures["disk"],
                "peak GiB": figures["peak"],
                "of the first": None if first is None else figures["peak"] / first,
                "seconds": figures["seconds"],
                "floor s": figures["floor"],
                "findings": figures["findings"],
                "gap / value": figures["gap"],
            }
        )
    show(
        f"{4 * options.frequencies} columns, whole calls",
        rows,
        "of the first: peak over that of the first row; memory that does not grow with n stays near 1.",
    )
