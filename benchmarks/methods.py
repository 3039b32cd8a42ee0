"""Directions over the samples from two kernel matrices, by KODA and by the eigenvector methods beside it."""

from __future__ import annotations

import numpy as np
import torch
from agreement import Floats
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from koda_audit._contrast.operators import DensePair
from koda_audit._contrast.solve import solve_operators
from koda_audit.discrepancy.turn import third_moments, turns

TOLERANCE = 1e-6  # of the residual, for all alike
# Lanczos vectors a direction: with 40 for ten of n = 1,500, alpha = 1, 10 and 100 take 41, 713 and 1,156 products; with
# ARPACK's default of 21, 42, 3,645 and 5,072; with 160, 161, 381 and 723
SUBSPACE = 4


def koda(a: Tensor, b: Tensor, count: int) -> tuple[Floats, Floats]:
    found = solve_operators(DensePair(a, b), 2 / len(a), count, tolerance=TOLERANCE).directions
    return found, found


def turned(a: Tensor, b: Tensor, count: int) -> tuple[Floats, Floats]:
    pair = DensePair(a, b)
    x = solve_operators(pair, 2 / len(a), count, tolerance=TOLERANCE, block=count).directions
    *_, (_, turn) = turns(third_moments(x)[None], range(1, count + 1))
    return x @ turn[0], x @ turn[0]


def penalised(alpha: float, a: Tensor, b: Tensor, count: int) -> tuple[Floats, Floats]:
    """Leading eigenvectors of A - alpha B, by Lanczos; the difference is formed once, as each product reads it."""
    found = _leading(torch.sub(a, b, alpha=alpha).numpy(), count)
    return found, found


def generalised(a: Tensor, b: Tensor, count: int) -> tuple[Floats, Floats]:
    """Largest x'Ax / (x'Bx + delta) with delta = 2/n, KODA's epsilon, by Lanczos with one Cholesky factor."""
    ridged = b.clone()
    ridged.diagonal().add_(2 / len(b))
    metric = ridged.numpy()
    factor = cho_factor(metric, check_finite=False)
    shape = tuple(a.shape)
    solve = LinearOperator(shape, matvec=lambda x: cho_solve(factor, x, check_finite=False), dtype=np.float64)
    found = _leading(a.numpy(), count, M=metric, Minv=solve)
    found /= np.linalg.norm(found, axis=0)
    return found, found


def _leading(matrix: Floats, count: int, **metric: object) -> Floats:
    start = np.random.default_rng(0).standard_normal(len(matrix))
    held = min(SUBSPACE * count, len(matrix) - 1)
    values, vectors = eigsh(matrix, k=count, which="LA", v0=start, ncv=held, tol=TOLERANCE, **metric)
    largest_first: Floats = vectors[:, np.argsort(-values)]
    return largest_first
