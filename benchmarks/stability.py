"""How much the groups depend on the random frequencies and on the samples, over r and n.

seeds   three runs on the same samples that draw other frequencies (and other pairs for the widths), compared in pairs
parts   two runs with the same seed, each on two thirds of the samples, drawn anew; compared on the samples in common

The approximation itself: root mean square error of the target's approximate kernel on 100,000 pairs of samples, whose
square is on average over draws at most 1/2r (bound: its root; one draw may exceed it), and the shift of the leading
eigenvalue of K/n, on at most 4,000 samples. This table is not about time, so it has no floor; it runs in one process.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations
from typing import Any

import numpy as np
import torch
from agreement import groups_of, jaccard, principal_cosines
from common import Planted, data, data_options, peak, progress, show, widths
from torch import Tensor

from koda_audit import find_discrepancies
from koda_audit._features.fourier import FourierFeatures
from koda_audit._kernels.rbf import scaled_points
from koda_audit.discrepancy.result import Discrepancies

SEEDS, DIRECTIONS = 3, 8
PAIRS, PART = 100_000, 10_000  # PART pairs at a time
ROWS = 4_000
PRODUCTS = 200  # of the power iteration; its value is then good to far more digits than are shown


def found(models: Planted, r: int, seed: int) -> Discrepancies:
    return find_discrepancies(
        *models.models(), features="random", n_features=r, n_directions=DIRECTIONS, seed=seed, halves=0
    )


def across_seeds(models: Planted, r: int) -> dict[str, float]:
    pairs = list(combinations([found(models, r, seed) for seed in range(SEEDS)], 2))
    return {
        "Jaccard seeds": float(np.mean([jaccard(groups_of(a.subsets), groups_of(b.subsets)) for a, b in pairs])),
        "cosine seeds": float(np.mean([principal_cosines(a.directions, b.directions).mean() for a, b in pairs])),
    }


def across_parts(models: Planted, r: int, seed: int) -> float:
    """Jaccard index of the groups of two runs, both restricted to the samples that they share."""
    random = np.random.default_rng(seed)
    rows = [np.sort(random.choice(models.n, 2 * models.n // 3, replace=False)) for _ in range(2)]
    shared = set(np.intersect1d(rows[0], rows[1]).tolist())
    runs = []
    for part in rows:
        groups = groups_of(found(models.rows(part), r, 0).subsets)
        runs.append([common for group in groups if (common := shared & set(part[list(group)].tolist()))])
    return jaccard(*runs)


def approximation(models: Planted, r: int, seed: int) -> dict[str, float]:
    """Error of the kernel of the target, entry by entry and in its leading eigenvalue."""
    sigmas = widths(models.target)
    columns = {name: values.shape[1] for name, values in models.target.items()}
    features = FourierFeatures.draw(columns, sigmas, r, seed)(models.target)
    points = scaled_points(models.target, sigmas)
    random, n = np.random.default_rng(seed), models.n
    first = torch.from_numpy(random.integers(0, n, PAIRS))
    second = (first + torch.from_numpy(random.integers(1, n, PAIRS))) % n  # never the same sample, which has no error
    squares = 0.0
    for i, j in zip(torch.split(first, PART), torch.split(second, PART), strict=True):
        approximate = torch.linalg.vecdot(features[i], features[j])
        truth = torch.exp(-(points[i] - points[j]).square().sum(dim=1) / 2)
        squares += (approximate - truth).square().sum().item()
    rows = slice(min(ROWS, n))
    kernel = torch.exp(torch.cdist(points[rows], points[rows]).square() / -2)
    exact, shifted = leading(kernel, kernel), leading(features[rows], features[rows].T)
    return {"rmse": (squares / PAIRS) ** 0.5, "bound": (2 * r) ** -0.5, "eigenvalue shift": shifted / exact - 1}


def leading(left: Tensor, right: Tensor) -> float:
    """Largest eigenvalue of left @ right, or of the one matrix that both are, by power iteration."""
    x = torch.ones(len(left), dtype=torch.float64)
    value = 0.0
    for _ in range(PRODUCTS):
        image = left @ x if left is right else left @ (right @ x)
        value = torch.linalg.vector_norm(image).item()
        x = image / value
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    data_options(parser, samples=None)
    parser.add_argument("--samples", type=int, nargs="+", default=[2000, 4000, 8000, 16_000], help="n of each curve")
    parser.add_argument("--frequencies", type=int, nargs="+", default=[500, 1000, 2000, 3000], help="r a model")


def run(options: argparse.Namespace) -> None:
    whole = data(max(options.samples), options.fixtures, options.seed)
    rows: list[dict[str, Any]] = []
    for n in sorted({min(n, whole.n) for n in options.samples}):
        models = whole.rows(np.arange(n))
        for r in options.frequencies:
            start = time.perf_counter()
            row = {"n": n, "r": r, **across_seeds(models, r), "Jaccard parts": across_parts(models, r, options.seed)}
            row |= approximation(models, r, options.seed)
            rows.append({**row, "seconds": time.perf_counter() - start})
            progress(f"stability {rows[-1]}")
    highest = peak()
    show(
        f"n and r as below, {DIRECTIONS} directions, default epsilon, {SEEDS} seeds, "
        f"peak {'unknown' if highest is None else f'{highest:.2f} GiB'}",
        rows,
        "Jaccard: of each group with the best of the other run, means over pairs of runs; cosine: mean over the "
        "principal angles between\nthe spans; eigenvalue shift: relative; seconds: of the whole row, five runs.",
    )
