"""The width of the Gaussian kernel: one rule for every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor

from koda_audit._arrays import Vectors, chosen
from koda_audit._kernels.rbf import scaled_points, squared_distances
from koda_audit.errors import InputError

TARGET = 0.15  # leading eigenvalue of K/n; SPEC's published widths give .136 and .157
PAIRS = 5_000
NARROWEST = 1e-4  # multiple of the base scale below which no width is sought
FIRST, STEP = (0.25, 1.0), 4.0  # where it mostly lies, and how the ends move where it does not
DENSE = 200  # rows up to which all eigenvalues are computed


@dataclass(frozen=True)
class Bandwidth:
    """``sigmas`` = ``multiplier`` times the base scales, what they reach, and on how many ``rows``.

    ``lambda_max`` is the largest eigenvalue of K/n on those rows.
    """

    sigmas: dict[str, float]
    multiplier: float
    lambda_max: float
    rows: int


def base_scale(values: Vectors, name: str, seed: int = 0) -> float:
    """Median distance between two different rows of ``values`` (n, d), over at most 5,000 pairs drawn with ``seed``.

    Pairs of equal rows are left out: with one text a class most pairs of texts are equal, and the median would be 0.

    Raises:
        InputError: all pairs are equal.

    >>> base_scale(torch.tensor([[0.0], [1.0], [3.0]]), "image")
    2.0
    """
    n = len(values)
    if n * (n - 1) // 2 <= PAIRS:
        first, second = np.triu_indices(n, k=1)
    else:
        generator = np.random.default_rng(seed)
        first = generator.integers(0, n, PAIRS)
        second = (first + generator.integers(1, n, PAIRS)) % n
    left, right = (values[torch.from_numpy(rows)].to(torch.float64) for rows in (first, second))
    distances = torch.linalg.vector_norm(left - right, dim=1).cpu().numpy()
    distances = distances[distances > 0]
    if not len(distances):
        raise InputError(f"the {name} embeddings are constant: all rows are equal, and no kernel tells samples apart")
    return float(np.median(distances))


def fit_bandwidth(vectors: Mapping[str, Vectors], target: float = TARGET, seed: int = 0) -> Bandwidth:
    """Widths at which the leading eigenvalue of K/n is ``target``.

    KODA makes the leading eigenvalues of the two models comparable (ICML 2026, arXiv 2606.04180, sec 6) and states
    neither the value nor how the widths of image and text relate. Ours: each modality has its base scale, one
    multiplier a model stretches both, and the leading eigenvalue is the same number for every model. It grows with the
    multiplier (all entries of K do), from the share of the largest group of equal rows to 1, so the root is unique.

    Args:
        vectors: modality -> (n, d) raw vectors of the same samples, whose n x n distances are made.
        target: between 1/n and 1.
        seed: of the pairs that are drawn.

    Raises:
        InputError: constant embeddings, a target that is out of range or that these samples cannot reach.

    >>> width = fit_bandwidth({"image": torch.arange(20.0)[:, None]}, target=0.5)
    >>> round(width.lambda_max, 9), round(width.sigmas["image"] / width.multiplier, 9)
    (0.5, 6.0)
    """
    if not 0 < target < 1:
        raise InputError(f"target of the leading eigenvalue is {target!r}: expected a number between 0 and 1")
    base = {name: base_scale(values, name, seed) for name, values in vectors.items()}
    n = len(next(iter(vectors.values())))
    if target * n <= 1:
        raise InputError(
            f"a leading eigenvalue of {target:g} cannot be reached with {n} samples, where it is never below 1/n: "
            f"give at least {int(1 / target) + 1} samples"
        )
    distances = squared_distances(scaled_points(chosen(vectors, slice(None)), base)).cpu()

    buffer = torch.empty_like(distances)  # one for all trials: as much memory again, made once
    low, high = FIRST
    while (reached := _leading(low, distances, buffer)) >= target:
        if low < NARROWEST:
            raise InputError(
                f"a leading eigenvalue of {target:g} cannot be reached: it is never below {reached:.4g}, because that "
                f"share of the {n} samples have {' and '.join(vectors)} embeddings that are equal, or almost equal "
                "beside the median distance"
            )
        low, high = low / STEP, low
    while _leading(high, distances, buffer) < target:
        low, high = high, high * STEP
    # the matrices go in as arguments: SciPy keeps the function in a cycle, and with it what the function holds
    given = (target, distances, buffer)
    multiplier = float(np.exp(brentq(_log_excess, np.log(low), np.log(high), args=given, xtol=1e-12)))
    reached = _leading(multiplier, distances, buffer)
    return Bandwidth({name: multiplier * scale for name, scale in base.items()}, multiplier, reached, n)


def _log_excess(log_multiplier: float, target: float, distances: Tensor, buffer: Tensor) -> float:
    return float(np.log(_leading(np.exp(log_multiplier), distances, buffer) / target))


def _leading(multiplier: float, distances: Tensor, buffer: Tensor) -> float:
    torch.mul(distances, -0.5 / multiplier**2, out=buffer).exp_().div_(len(distances))
    return leading_eigenvalues(buffer.numpy(), 1)[0]


def leading_eigenvalues(gram: NDArray[np.float64], count: int) -> list[float]:
    """The ``count`` largest eigenvalues of a symmetric matrix (n, n), largest first.

    >>> leading_eigenvalues(np.diag([1.0, 3.0, 2.0]), 2)
    [3.0, 2.0]
    """
    n = len(gram)
    if n <= DENSE:
        values = np.linalg.eigvalsh(gram)
    else:
        # ten columns more than are wanted: the leading ones stand apart, and each step is one product
        start = np.random.default_rng(0).random(n)
        try:
            values = eigsh(gram, k=count, ncv=count + 10, v0=start, tol=1e-12, return_eigenvectors=False)
        except ArpackError:  # a matrix of lower rank than the columns, or no convergence in n steps
            values = np.linalg.eigvalsh(gram)
    return cast("list[float]", np.sort(values)[::-1][:count].tolist())
