"""Ten constrained directions against one unconstrained kernel-difference decomposition, on the same random features.

Both sides get the same (n, D) float64 matrix [Fa Fb], run in a process of their own, and include the Gram matrix:

ours  the Gram matrix without its mirror half (``Moments``), then ten directions with their multipliers (``GramPair``)
SPEC  the Gram matrix by one product, Cholesky Z of it, and the full eigendecomposition of Z diag(I, -I) Z' (the form
      that SPEC's authors use; lambda = 1 and no constraint)

The floor is n D^2 useful flops of the symmetric product, at the rate of a large plain product in the same process.
"""

from __future__ import annotations

import argparse
import time

import torch
from common import Figures, Planted, data, data_options, measured, product_rate, run_side, show
from torch import Tensor

from koda_audit._contrast.operators import GramPair
from koda_audit._contrast.solve import solve_operators
from koda_audit._features.fourier import FourierFeatures
from koda_audit._kernels.bandwidth import fit_bandwidth
from koda_audit._moments.moments import Moments

CHUNK, DIRECTIONS = 4096, 10
TOLERANCE = 1e-6  # as find_discrepancies asks for
JITTER = 1e-7  # on the diagonal, as SPEC's authors add


def features(models: Planted, frequencies: int) -> Tensor:
    """(n, 4r): Fourier features of both models, scaled so that F'F is the Gram matrix."""
    whole = torch.empty(models.n, 4 * frequencies, dtype=torch.float64)
    for number, vectors in enumerate((models.target, models.reference)):
        sigmas = fit_bandwidth(vectors).sigmas
        columns = {name: values.shape[1] for name, values in vectors.items()}
        draw = FourierFeatures.draw(columns, sigmas, frequencies, seed=number)
        half = whole[:, number * draw.width : (number + 1) * draw.width]
        for start in range(0, models.n, CHUNK):
            rows = slice(start, start + CHUNK)
            half[rows] = draw({name: values[rows] for name, values in vectors.items()})
    return whole.div_(models.n**0.5)


def ours(whole: Tensor, frequencies: int) -> Figures:
    start = time.perf_counter()
    gram = Moments.of(torch.split(whole, CHUNK)).cross
    figures: Figures = {"gram": time.perf_counter() - start}
    epsilon = max(2 / len(whole), 1 / frequencies)
    found = solve_operators(GramPair(gram, 2 * frequencies), epsilon, DIRECTIONS, tolerance=TOLERANCE)
    figures["gap"] = float((found.duality_gap / found.target).max())
    figures["beyond"] = float((found.reference / epsilon - 1).max())
    return figures


def spec(whole: Tensor, frequencies: int) -> Figures:
    start = time.perf_counter()
    gram = whole.T @ whole
    figures: Figures = {"gram": time.perf_counter() - start}
    gram.diagonal().add_(JITTER)
    z = torch.linalg.cholesky(gram).T
    del gram
    signs = torch.ones(4 * frequencies, dtype=torch.float64)
    signs[2 * frequencies :] = -1
    torch.linalg.eigh((z * signs) @ z.T)
    return figures


SIDES = {"ours": ours, "SPEC": spec}


def side(name: str, frequencies: int, source: dict[str, object]) -> Figures:
    whole = features(data(**source), frequencies)  # type: ignore[arg-type]
    with measured() as figures:
        reached = SIDES[name](whole, frequencies)
    rest = figures["seconds"] - reached["gram"]
    floor = len(whole) * whole.shape[1] ** 2 / product_rate()
    return {**figures, **reached, "rest": rest, "floor": floor, "n": len(whole)}


def add_options(parser: argparse.ArgumentParser) -> None:
    data_options(parser, samples=16_000)
    parser.add_argument("--frequencies", type=int, nargs="+", default=[1000], help="r a model; D = 4r")


def run(options: argparse.Namespace) -> None:
    source = {"samples": options.samples, "fixtures": options.fixtures, "seed": options.seed}
    rows = []
    for frequencies in options.frequencies:
        sides = {name: run_side("speed", name=name, frequencies=frequencies, source=source) for name in SIDES}
        for name, figures in sides.items():
            rows.append(
                {
                    "D": 4 * frequencies,
                    "side": name,
                    "Gram s": figures["gram"],
                    "rest s": figures["rest"],
                    "total s": figures["seconds"],
                    "floor s": figures["floor"],
                    "peak GiB": figures["peak"],
                    "ours / SPEC": sides["ours"]["seconds"] / sides["SPEC"]["seconds"] if name == "ours" else None,
                    "gap / value": figures.get("gap"),
                    "beyond epsilon": figures.get("beyond"),
                }
            )
    show(
        f"n = {figures['n']}, {DIRECTIONS} directions",
        rows,
        "total = Gram + rest; the floor is the Gram matrix alone; the peak counts the features, which both sides hold. "
        "gap / value: how far\nthe ten directions are, at most, from their optimum; "
        "beyond epsilon: the largest relative violation of the constraint.",
    )
