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

TOLERANCE = 1e-6  # as find_discrepancies asks for
SUBSPACE = 80  # Lanczos vectors; with ARPACK's default of 21, penalties above 1 take many times longer


def koda(a: Tensor, b: Tensor, count: int) -> tuple[Floats, Floats]:
    found = solve_operators(DensePair(a, b), 2 / len(a), count, tolerance=TOLERANCE).directions
    return found, found


def penalised(alpha: float, a: Tensor, b: Tensor, count: int) -> tuple[Floats, Floats]:
    """Leading eigenvectors of A - alpha B, by Lanczos; the difference itself is never formed."""

    def product(x: Floats) -> Floats:
        block = torch.from_numpy(x)
        image: Floats = (a @ block - alpha * (b @ block)).numpy()
        return image

    found = _leading(LinearOperator(tuple(a.shape), matvec=product, dtype=np.float64), count)
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


def _leading(matrix: LinearOperator | Floats, count: int, **metric: object) -> Floats:
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    held = min(max(SUBSPACE, 2 * count + 1), matrix.shape[0] - 1)
    values, vectors = eigsh(matrix, k=count, which="LA", v0=start, ncv=held, tol=TOLERANCE, **metric)
    largest_first: Floats = vectors[:, np.argsort(-values)]
    return largest_first
