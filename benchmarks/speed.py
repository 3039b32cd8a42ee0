"""Whole calls of find_discrepancies, on one thread, against one unconstrained kernel-difference decomposition.

ours  find_discrepancies as a user calls it: widths, kernels (random features above 10,000 samples), directions for all
      numbers of them, groups, random halves, exact measures of each group
SPEC  the same kernels, and the full eigendecomposition of their difference (lambda = 1, no constraint, no groups). For
      random features Cholesky Z of their Gram matrix and that of Z diag(I, -I) Z', the form that SPEC's authors use

Each runs in a process of its own. SPEC is the floor: no method that compares two kernels by eigenvectors does without
one decomposition, and ours needs some at several prices, and one a half of at most 2,000 samples. Parts of ours,
from calls that leave them out: the directions (one number of them, no halves), and the halves and the turns.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from common import Figures, Planted, data, data_options, measured, run_side, show, widths

from koda_audit import find_discrepancies
from koda_audit._features.fourier import FourierFeatures
from koda_audit._kernels.table import kernel_blocks
from koda_audit._moments.moments import Moments

CHUNK = 4096
JITTER = 1e-7  # on the diagonal, as SPEC's authors add
EXACT_UP_TO = 10_000  # samples, as find_discrepancies


def ours(models: Planted, frequencies: int, **asked: Any) -> Figures:
    found = find_discrepancies(*models.models(), n_features=frequencies, device="cpu", **asked)
    gap = found.subspace["duality_gap"] / found.subspace["used_target"]
    return {"gap": gap, "directions": found.subspace["n_directions"], "findings": int(found.groups["finding"].sum())}


def spec(models: Planted, frequencies: int) -> Figures:
    sides = (models.target, models.reference)
    sigmas = [widths(side) for side in sides]
    if models.n <= EXACT_UP_TO:
        a, b = (kernel_blocks("rbf", side, width).matrix() for side, width in zip(sides, sigmas, strict=True))
        torch.linalg.eigh(a.sub_(b))
        return {}
    columns = {name: values.shape[1] for name, values in models.target.items()}
    draws = [FourierFeatures.draw(columns, width, frequencies, seed) for seed, width in enumerate(sigmas)]

    def part(rows: slice) -> torch.Tensor:
        both = zip(draws, sides, strict=True)
        return torch.cat([draw({name: values[rows] for name, values in side.items()}) for draw, side in both], dim=1)

    gram = Moments.of(part(slice(start, start + CHUNK)) for start in range(0, models.n, CHUNK)).cross / models.n
    gram.diagonal().add_(JITTER)
    z = torch.linalg.cholesky(gram).T
    signs = torch.ones(4 * frequencies, dtype=torch.float64)
    signs[2 * frequencies :] = -1
    torch.linalg.eigh((z * signs) @ z.T)
    return {}


def side(name: str, frequencies: int, source: dict[str, Any]) -> Figures:
    torch.set_num_threads(1)
    models = data(**source)
    with measured() as figures:
        if name == "SPEC":
            reached = spec(models, frequencies)
        else:
            alone = {} if name == "ours" else {"n_directions": 8, "halves": 0}
            reached = ours(models, frequencies, **alone)
    return {**figures, **reached, "n": models.n}


def add_options(parser: argparse.ArgumentParser) -> None:
    data_options(parser, samples=None)
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 2000], help="16000 takes some minutes")
    parser.add_argument("--frequencies", type=int, default=1000, help="r a model above 10,000 (default %(default)s)")


def run(options: argparse.Namespace) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    torch.set_num_threads(1)  # as the title says
    rows = []
    for samples in options.samples:
        source = {"samples": samples, "fixtures": options.fixtures, "seed": options.seed}
        sides = {
            name: run_side("speed", name=name, frequencies=options.frequencies, source=source)
            for name in ("ours", "directions", "SPEC")
        }
        whole, alone, floor = sides.values()
        rows.append(
            {
                "n": whole["n"],
                "seconds": whole["seconds"],
                "directions s": alone["seconds"],
                "halves s": whole["seconds"] - alone["seconds"],
                "floor s": floor["seconds"],
                "ours / floor": whole["seconds"] / floor["seconds"],
                "peak GiB": whole["peak"],
                "floor GiB": floor["peak"],
                "directions": whole["directions"],
                "findings": whole["findings"],
                "gap / value": whole["gap"],
            }
        )
    show(
        "Whole calls",
        rows,
        "directions s: the same call with 8 directions and no halves; halves s: the rest, all numbers of directions on "
        "25 halves and more;\nfloor: one decomposition of the difference of the kernels; gap / value: how far the "
        "directions are, at most, from their optimum.",
    )
