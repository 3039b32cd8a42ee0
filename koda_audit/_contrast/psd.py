"""What is asked of the two matrices, and their leading eigenpairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import scipy.linalg
import torch
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit.errors import InputError

ROUNDING = torch.finfo(torch.float64).eps
ASYMMETRY = 1e-10  # of the largest entry: what float64 products leave
NEGATIVE = 1e-8  # of the largest eigenvalue; a Gram matrix computed in float32 fails this, and should

# rows from which computing only the wanted pairs, three to four times sooner, outweighs waking SciPy's own thread pool
# beside torch's: on a busy machine the two pools take the cores from one another
SUBSET_PAYS = 1000
ALONE = 1000  # rows up to which one thread decomposes as soon as several, which wait for each other on busy cores


@dataclass(frozen=True)
class PositiveSemidefinite:
    """``matrix`` (n, n) = factor' factor up to rounding, ``factor`` (rank, n), and the largest eigenvalue ``scale``."""

    matrix: Tensor
    factor: Tensor
    scale: float


def positive_semidefinite(values: Any, name: str) -> PositiveSemidefinite:
    """A checked symmetric positive semidefinite matrix; eigenvalues that are only rounding are left out of the factor.

    Raises:
        InputError: not a finite real matrix, not square, not symmetric (beyond 1e-10 of the largest entry), or an
            eigenvalue below -1e-8 of the largest one.

    >>> checked = positive_semidefinite([[2.0, 2.0], [2.0, 2.0]], "A")
    >>> round(checked.scale, 9), tuple(checked.factor.shape)
    (4.0, (1, 2))
    """
    tensor = matrix(values, name)
    rows, columns = tensor.shape
    if rows != columns:
        raise InputError(f"{name} has shape {(rows, columns)}: expected a square matrix")
    largest_entry = tensor.abs().max().item()
    asymmetry = (tensor - tensor.T).abs().max().item()
    if asymmetry > ASYMMETRY * largest_entry:
        raise InputError(f"{name} is not symmetric: entries and their mirror images differ by up to {asymmetry:.3g}")
    tensor = (tensor + tensor.T) / 2
    with few_threads(rows):
        eigenvalues, vectors = torch.linalg.eigh(tensor)
    smallest, largest = eigenvalues[0].item(), eigenvalues[-1].item()
    if smallest < -NEGATIVE * max(largest, -smallest):
        raise InputError(
            f"{name} is not positive semidefinite: its eigenvalues run from {smallest:.6g} to {largest:.6g} "
            "(compute kernel matrices in float64)"
        )
    kept = eigenvalues > rows * ROUNDING * largest
    factor = (vectors[:, kept] * eigenvalues[kept].sqrt()).T
    return PositiveSemidefinite(tensor, factor, max(largest, 0.0))


@contextmanager
def few_threads(rows: int) -> Iterator[None]:
    """One thread of torch for matrices of up to ``ALONE`` rows.

    Their decompositions have no work for more, and threads that wait for one another on a machine with other work take
    many times as long: 10 directions of 25 halves of 424 samples took 11 seconds in one thread and 32 to 140 in two.

    >>> with few_threads(10):
    ...     torch.get_num_threads()
    1
    """
    threads = torch.get_num_threads()
    try:
        if rows <= ALONE:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def leading_eigenpairs(symmetric: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """The ``count`` largest eigenvalues (count,), largest first, and their orthonormal eigenvectors (n, count).

    >>> values, vectors = leading_eigenpairs(torch.diag(torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)), 2)
    >>> values.tolist(), vectors.abs()[:, 0].tolist()
    ([3.0, 2.0], [0.0, 1.0, 0.0])
    """
    n = len(symmetric)
    if symmetric.device.type == "cpu" and n > SUBSET_PAYS:
        lapack = scipy.linalg.eigh(symmetric.numpy(), subset_by_index=[n - count, n - 1], check_finite=False)
        values, vectors = (torch.from_numpy(part) for part in lapack)
    else:
        values, vectors = torch.linalg.eigh(symmetric)
    return values[-count:].flip(0), vectors[:, -count:].flip(1)
