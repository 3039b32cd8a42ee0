"""The modality gap with intervals and nulls: seconds and peak memory, without and with the pairwise metrics.

moments   metrics of the first and second order, with bootstrap and jackknife intervals and split-half nulls; the
          pairwise ones run too, on 4 rows a side
pairwise  all metrics, the pairwise ones exact up to the number of rows asked for

The peak counts the two float32 matrices, which are listed beside it, and the libraries.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import Figures, measured, run_side, show

from koda_audit._gap.measured import PAIRWISE_ROWS
from koda_audit._gap.metrics import modality_gap


def side(name: str, samples: int, width: int, rows: int) -> Figures:
    random = np.random.default_rng(0)
    image, text = (random.standard_normal((samples, width), dtype=np.float32) for _ in range(2))
    text += image
    image[:, 0] += 10
    modality_gap(image[:100], text[:100], interval=True)  # libraries are loaded where they are first used
    with measured() as idle:
        pass
    with measured() as figures:
        gap = modality_gap(image, text, interval=True, pairwise_rows=4 if name == "moments" else rows)
    return {**figures, "idle": idle["peak"], "rows": gap["pairwise_rows"].value}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, nargs="+", default=[20_000, 100_000], help="pairs (default %(default)s)")
    parser.add_argument("--width", type=int, default=512, help="columns d (default %(default)s)")
    parser.add_argument("--rows", type=int, default=PAIRWISE_ROWS, help="of pairwise metrics (default %(default)s)")


def run(options: argparse.Namespace) -> None:
    found = []
    for samples in options.samples:
        for name in ("moments", "pairwise"):
            figures = run_side("gap", name=name, samples=samples, width=options.width, rows=options.rows)
            peak, idle = figures["peak"], figures["idle"]
            found.append(
                {
                    "n": samples,
                    "metrics": name,
                    "pairwise rows": figures["rows"],
                    "seconds": figures["seconds"],
                    "peak GiB": peak,
                    "above data GiB": None if peak is None else peak - idle,
                }
            )
    show(
        f"d = {options.width}",
        found,
        "above data: what modality_gap takes beside the two float32 matrices and the libraries.",
    )
