"""Moving a gallery towards its queries along the part of the gap that no ranking of it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit.errors import InputError

SPANNED = 1e-10  # of the largest singular value (or of the gap's length): what is below it is rounding
METRICS = ("euclidean", "cosine", "dot")
FARTHEST = 1e6  # alpha; of rows that moved farther, rounding takes the digits that tell them apart
SCORES = 2**19  # that are held at a time, 4 MiB
TIED = 1e-12  # scores of unit rows that differ by less are equal: that is what rounding makes of equal rows


@dataclass(frozen=True, eq=False)
class OrthogonalGap:
    """A gap and its part orthogonal to the gallery.

    Attributes:
        gap: (d,) g, centroid of the queries minus that of the gallery.
        shift: (d,) g' = g - V V'g, exactly 0 where nothing of the gap is orthogonal.
        rank: number of principal directions V that were taken out.
    """

    gap: Tensor
    shift: Tensor
    rank: int

    @property
    def movable(self) -> bool:
        """Whether there is anything to move by. False where g' = 0: then no alpha changes the gallery."""
        return bool(self.shift.any())

    @property
    def residual(self) -> float:
        """||V V'g||, the distance of the centroids that is left at alpha = 1."""
        return self.remaining(1.0)

    def remaining(self, alpha: float) -> float:
        """||g - alpha g'||, the distance of the centroids once the gallery has moved by alpha g'."""
        return float(torch.linalg.vector_norm(self.gap - alpha * self.shift))


def gap_vector(gallery: Any, queries: Any) -> Tensor:
    """(d,) centroid of the queries (m, d) minus centroid of the gallery (c, d) (arXiv 2603.29080, equation 4).

    Rows are taken as they come; the gap of directions needs rows of length 1.

    Raises:
        InputError: not two finite matrices of one width.

    >>> gap_vector([[1.0, 0.0], [3.0, 0.0]], [[2.0, 5.0]]).tolist()
    [0.0, 5.0]
    """
    first, second = matrix(gallery, "gallery"), matrix(queries, "queries")
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"gallery rows are {first.shape[1]} wide and query rows {second.shape[1]}: both must be of one shared space"
        )
    return second.to(first.device).mean(dim=0) - first.mean(dim=0)


def orthogonal_gap(gallery: Any, queries: Any, rank: int | float | None = None) -> OrthogonalGap:
    """The gap g and g' = g - V V'g, with V the principal directions of the gallery (arXiv 2603.29080, equation 11).

    V is of the centred gallery. With all of it, g' is orthogonal to every difference of two gallery rows, so a
    translation along g' keeps the Euclidean nearest row of any query (theorem 3.5). With fewer directions more of the
    gap can be closed, and nothing is promised. With as many as dimensions g' is 0, and nothing can be moved.

    Args:
        gallery: (c, d), the rows that are ranked.
        queries: (m, d).
        rank: None for all directions with singular values above 1e-10 of the largest; a whole number for so many of
            them at most, 0 for the whole gap; a fraction for the fewest that hold this share of the variance.

    Raises:
        InputError: not two finite matrices of one width, a rank that is out of range.

    >>> found = orthogonal_gap([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]], [[5.0, 4.0, 0.0]])
    >>> found.gap.tolist(), found.shift.tolist(), found.rank, found.residual
    ([3.0, 4.0, 0.0], [0.0, 4.0, 0.0], 1, 3.0)
    >>> orthogonal_gap([[0.0], [1.0]], [[9.0]]).movable
    False
    """
    rank = check_rank(rank)
    gap = gap_vector(gallery, queries)
    rows = matrix(gallery, "gallery")
    rows = rows - rows[0]  # first, so that equal rows become exactly 0
    triangle = torch.linalg.qr(rows - rows.mean(dim=0), mode="r").R  # V without the much larger left factor
    _, sizes, basis = torch.linalg.svd(triangle, full_matrices=False)
    kept = int((sizes > SPANNED * sizes[0]).sum())
    if isinstance(rank, float):
        held = sizes.square().cumsum(dim=0)
        kept = min(kept, int((held < rank * held[-1]).sum()) + 1)
    elif rank is not None:
        kept = min(kept, rank)
    shift = gap - basis[:kept].T @ (basis[:kept] @ gap)
    if torch.linalg.vector_norm(shift) <= SPANNED * torch.linalg.vector_norm(gap):
        shift = torch.zeros_like(gap)
    return OrthogonalGap(gap, shift, kept)


def check_rank(rank: Any) -> int | float | None:
    """The rank, in plain Python types; an InputError for one that ``orthogonal_gap`` does not know.

    >>> check_rank(0.9)
    0.9
    """
    if rank is None:
        return None
    if isinstance(rank, Integral):
        if not isinstance(rank, bool) and int(rank) >= 0:
            return int(rank)
    elif isinstance(rank, Real) and 0 < float(rank) <= 1:
        return float(rank)
    raise InputError(
        f"rank is {rank!r}: expected None, a whole number from 0 on, or a share of the variance (float) up to 1.0"
    )


def translated(gallery: Any, shift: Tensor, alpha: float = 1.0) -> Tensor:
    """(c, d) gallery + alpha * shift; queries stay where they are (arXiv 2603.29080, section 4).

    Args:
        gallery: (c, d).
        shift: (d,), of ``orthogonal_gap``: alpha = 1 closes all of the gap that can be closed.
        alpha: 0 moves nothing.

    Raises:
        InputError: a gallery that is no finite matrix, or of another width than the shift.

    >>> translated([[1.0, 0.0], [3.0, 0.0]], torch.tensor([0.0, 4.0], dtype=torch.float64), alpha=0.5).tolist()
    [[1.0, 2.0], [3.0, 2.0]]
    """
    rows = matrix(gallery, "gallery")
    if shift.shape != rows.shape[1:]:
        raise InputError(f"the shift has shape {tuple(shift.shape)}: expected ({rows.shape[1]},), as wide as the rows")
    return rows + alpha * shift.to(rows)


def nearest_rows(
    rows: Tensor, queries: Tensor, shift: Tensor, alphas: Sequence[float], metric: str
) -> NDArray[np.int32]:
    """(A, m) for each of A alphas the number of the row x whose x + alpha * shift is nearest to each query.

    One product X Y' does for all alphas: of |x + av - y|^2 only |x|^2 + 2a x'v - 2 x'y depends on x, and of (x + av)'y
    only x'y. Rows whose scores at one alpha differ by rounding (1e-12 of the size of what is summed) are tied, and the
    first of them is the nearest.

    Args:
        rows: (c, d).
        queries: (m, d); of length 1 for "cosine".
        shift: (d,).
        alphas: A of them.
        metric: "euclidean", "cosine" or "dot".

    Raises:
        InputError: a moved row of length 0 under "cosine".

    >>> rows, shift = torch.eye(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> nearest_rows(rows, torch.tensor([[0.8, 0.6]], dtype=torch.float64), shift, [0.0, 1.0], "euclidean").tolist()
    [[0], [1]]
    """
    if metric == "euclidean":  # an offset common to all would cost digits in the difference of squares
        origin = rows.mean(dim=0)
        rows, queries = rows - origin, queries - origin
    longest, farthest = (torch.linalg.vector_norm(values, dim=1).max().item() for values in (rows, queries))
    moves = [abs(alpha) * torch.linalg.vector_norm(shift).item() for alpha in alphas]
    if metric == "euclidean":
        tied = [TIED * longest * max(longest, farthest, move) for move in moves]
        halves, along_rows = rows.square().sum(dim=1) / 2, rows @ shift
    elif metric == "cosine":
        tied = [TIED] * len(alphas)
        lengths = torch.stack([torch.linalg.vector_norm(translated(rows, shift, alpha), dim=1) for alpha in alphas])
        if not lengths.all():
            number, row = (lengths == 0).nonzero()[0].tolist()
            raise InputError(
                f"gallery row {row} has length 0 once it has moved by alpha {alphas[number]:g}, so it has no cosine: "
                "use metric='euclidean'"
            )
    else:
        tied = [TIED * longest * farthest] * len(alphas)
    numbers = torch.arange(len(rows), dtype=torch.int32, device=rows.device)
    found = numbers.new_empty(len(alphas), len(queries))
    block = max(SCORES // len(rows), 1)
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        products = part @ rows.T
        along = (part @ shift)[:, None]
        for number, alpha in enumerate(alphas):
            scores = products
            if metric == "euclidean":
                scores = products - (halves + alpha * along_rows)
            elif metric == "cosine":
                scores = (products + alpha * along) / lengths[number]
            # the first of the tied; an argmax takes any of them, as equal rows get products that differ by rounding
            best = scores >= scores.amax(dim=1, keepdim=True) - tied[number]
            found[number, start : start + block] = torch.where(best, numbers, len(rows)).amin(dim=1)
    return found.cpu().numpy()
