"""Where the right candidates stand among all, and what a query counts where candidates are equally near."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._arrays import Vectors
from koda_audit._kernels.directions import directions

BLOCK = 1024  # rows of a gallery, and of the queries, that are compared at a time
TIED = 1e-12  # cosines that differ by less are equal: that is what rounding makes of equal vectors


def ranks(queries: Tensor, sought: Tensor, gallery: Vectors, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """How many of the gallery lie nearer to each query than what it seeks, and how many as near, that one among them.

    Args:
        queries: (m, d) unit rows.
        sought: (m,) cosine of each query and the nearest of the right candidates; these are in the gallery too.
        gallery: (n, d) raw vectors, read block by block.
        block: rows of the gallery, and of the queries, that are compared at a time.

    Returns:
        Two (m,) float64 tensors of whole numbers.

    >>> gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]], dtype=torch.float64)
    >>> ranks(gallery[:1], torch.tensor([0.6], dtype=torch.float64), gallery)
    (tensor([1.], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """
    nearer, tied = torch.zeros_like(sought), torch.zeros_like(sought)
    for start in range(0, len(gallery), block):
        candidates = directions(gallery[start : start + block], "gallery")
        for first in range(0, len(queries), block):
            part = slice(first, first + block)
            _count(queries[part] @ candidates.T, sought[part], 1, nearer[part], tied[part])
    return nearer, tied


def mutual_ranks(
    first: Tensor, sought: Tensor, second: Tensor, sought_back: Tensor, block: int = BLOCK
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """``ranks`` of the first rows among the second and of the second among the first, from one product.

    Args:
        first: (m, d) unit rows.
        sought: (m,) as of ``ranks``.
        second: (n, d) unit rows.
        sought_back: (n,)
        block: rows of either side that are compared at a time.

    >>> rows, own = torch.eye(2, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> mutual_ranks(rows, own, rows, own)[0]
    (tensor([1., 0.], dtype=torch.float64), tensor([1., 1.], dtype=torch.float64))
    """
    there = torch.zeros_like(sought), torch.zeros_like(sought)
    back = torch.zeros_like(sought_back), torch.zeros_like(sought_back)
    for start in range(0, len(first), block):
        rows = slice(start, start + block)
        for begin in range(0, len(second), block):
            columns = slice(begin, begin + block)
            products = first[rows] @ second[columns].T
            _count(products, sought[rows], 1, there[0][rows], there[1][rows])
            _count(products, sought_back[columns], 0, back[0][columns], back[1][columns])
    return there, back


def _count(products: Tensor, sought: Tensor, dim: int, nearer: Tensor, tied: Tensor) -> None:
    """Add to the counts, in place, how many products along ``dim`` lie above what is sought there, and how many tie."""
    bound = sought.unsqueeze(dim)
    # as small integers: a plain sum of booleans widens each of them first and takes as long as the product
    above, not_below = (
        flags.view(torch.uint8).sum(dim=dim, dtype=torch.int32)
        for flags in (products > bound + TIED, products >= bound - TIED)
    )
    nearer += above
    tied += not_below - above


def expected_hits(nearer: Tensor, tied: Tensor, k: int, right: Tensor | None = None) -> NDArray[np.float64]:
    """(m,) chance that one of the right candidates is among the k nearest, where equals come in random order.

    With g nearer, t as near, and p of these right, the k - g places left are drawn from t: the query misses with the
    hypergeometric chance C(t - p, k - g) / C(t, k - g), so with p = 1 it counts clip((k - g) / t, 0, 1). Exactly 0 or 1
    without ties. Ours.

    Args:
        nearer, tied: (m,) as from ``ranks``.
        k: at least 1.
        right: (m,) how many of the tied are right; default 1. A query with none counts 0.

    >>> nearer, tied, right = torch.tensor([[0, 1, 0], [1, 3, 4], [1, 1, 2]], dtype=torch.float64)
    >>> expected_hits(nearer, tied, 2, right).round(4).tolist()
    [1.0, 0.3333, 0.8333]
    """
    right = torch.ones_like(nearer) if right is None else right
    drawn = (k - nearer).clamp(min=0)
    missed = torch.ones_like(nearer)
    for i in range(int(right.max())):
        missed *= torch.where(i < right, ((tied - drawn - i) / (tied - i)).clamp(min=0), 1.0)
    hits: NDArray[np.float64] = (1 - missed).cpu().numpy()
    return hits
