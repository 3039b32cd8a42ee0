"""The symmetric accumulation of F'F, as shipped, against the plain product F'F.

symmetric  ``Moments.of`` over chunks of 4,096 rows: about half of the products, then the mirror image
plain      one product F'F: all of them

Both count the n D^2 flops that a symmetric result needs, over the rate of a large product that needs all of its
2 n m k; that product is measured in the same process, right before and after. The floor is n D^2 over that rate: a
share of 1 reaches it, and the plain product cannot exceed .5.
"""

from __future__ import annotations

import argparse

import torch
from common import Figures, measured, product_rate, run_side, show

from koda_audit._moments.moments import Moments

CHUNK = 4096


def side(name: str, samples: int, width: int, repeats: int) -> Figures:
    rows = torch.randn(samples, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rate = product_rate()
    runs = []
    for _ in range(repeats):
        with measured() as figures:
            _ = Moments.of(torch.split(rows, CHUNK)).cross if name == "symmetric" else rows.T @ rows
        del _
        runs.append(figures)
    fastest: Figures = min(runs, key=lambda run: run["seconds"])
    return {**fastest, "floor": samples * width**2 / max(rate, product_rate())}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, default=16_000, help="rows of random numbers (default %(default)s)")
    parser.add_argument("--widths", type=int, nargs="+", default=[2000, 4000, 12_000], help="columns D")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest counts (default %(default)s)")


def run(options: argparse.Namespace) -> None:
    rows = []
    for width in options.widths:
        for name in ("symmetric", "plain"):
            figures = run_side("gram", name=name, samples=options.samples, width=width, repeats=options.repeats)
            rows.append(
                {
                    "D": width,
                    "product": name,
                    "seconds": figures["seconds"],
                    "floor s": figures["floor"],
                    "share of rate": figures["floor"] / figures["seconds"],
                    "peak GiB": figures["peak"],
                }
            )
    show(
        f"n = {options.samples}, fastest of {options.repeats}",
        rows,
        "share of rate: useful flops n D^2 a second over those of a large plain product; the peak counts F itself.",
    )
