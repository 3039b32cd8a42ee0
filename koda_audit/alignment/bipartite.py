"""Alignments made of all similarities between queries and gallery: new rows for both, and for no others."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from koda_audit.alignment.choices import Count, Range, one_width, whole
from koda_audit.alignment.maps import NO_LENGTH, UNIT, Fitted
from koda_audit.errors import InputError

PAIRS = 2**27  # of a query and a gallery row: 1 GiB for each matrix of them
ITERATIONS = 2000
RANK = 1e-10  # of the largest singular value: what is below is rounding
MARGINAL = 1e-6  # how far a plan's masses may be off, summed over all rows


def spectral(queries: Tensor, gallery: Tensor, k: Count = 64) -> Fitted:
    """The k leading coordinates of the bipartite graph of queries and gallery (as SPECk of arXiv 2505.03703).

    Edge weights are W = (1 + cosine) / 2, our choice: never negative, whatever a model's cosines are. With D_q, D_z the
    sums of its rows and columns and D_q^-1/2 W D_z^-1/2 = U S V', the coordinates are D_q^-1/2 U and D_z^-1/2 V without
    the first, constant one (Dhillon, KDD 2001). They are the eigenvectors of the random walk on the graph: its step
    D_q^-1 W, whose rows sum to 1, takes the gallery's coordinates to S times those of the queries.

    Args:
        queries, gallery: (n, d) and (m, d) unit rows.
        k: coordinates, at most the smaller number of rows less 2. W has no more than one a dimension; what would be
            rounding is left out.

    Returns:
        ``figures``: ``coordinates``, how many there are, and their singular values S, largest first.

    >>> rows = torch.tensor([[1.0, 0.1], [0.9, 0.1], [0.1, 1.0], [0.1, 0.9]], dtype=torch.float64)
    >>> spectral(rows, rows, k=1).first[:, 0].sign().abs().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    whole(k, "k", min(len(queries), len(gallery)) - 2, "two less than the smaller number of rows")
    weights = ((1 + _similarities(queries, gallery)) / 2).clamp(min=0).numpy()
    masses = weights.sum(axis=1), weights.sum(axis=0)
    if min(mass.min() for mass in masses) <= NO_LENGTH:
        raise InputError("a row is opposite to all rows of the other side, so it has no place among them: leave it out")
    first, second = (1 / np.sqrt(mass) for mass in masses)
    # a start of its own for the iteration makes it the same every time
    start = np.random.default_rng(0).standard_normal(min(weights.shape))
    u, s, vt = svds(first[:, None] * weights * second, k=k + 1, v0=start)
    order = np.argsort(-s)[1:]
    order = order[s[order] > RANK]  # of the largest, which is 1
    if not len(order):
        raise InputError("all queries or all gallery rows are alike, so the graph has no coordinates: take others")
    new = [torch.from_numpy(scale[:, None] * v[:, order]) for scale, v in ((first, u), (second, vt.T))]
    return Fitted(new[0], new[1], "shared", {"coordinates": len(order), "singular_values": s[order].tolist()})


def ot(queries: Tensor, gallery: Tensor, epsilon: Annotated[float, Range(1e-4)] = 0.03) -> Fitted:
    """Each gallery row moved to the mean of the queries it is transported to (barycentric map of entropic optimal
    transport; Cuturi, NeurIPS 2013).

    Plan T = argmin sum T_ij |y_i - x_j|^2 - epsilon mean|y - x|^2 entropy(T), every gallery row of mass 1/m and every
    query of mass 1/n; row i goes to sum_j m T_ij x_j. arXiv 2505.03703 uses a Laplacian-regularised plan instead, whose
    solver is in no library needed here. Equal masses say that each gallery row is wanted equally often.

    Args:
        queries, gallery: (n, d) and (m, d) unit rows.
        epsilon: at least 1e-4, in units of the mean cost. Small ones need many iterations.

    >>> x = torch.eye(3, dtype=torch.float64)
    >>> torch.allclose(ot(x, x).second, x)
    True
    """
    plan = transport_plan(2 - 2 * _similarities(gallery, queries), epsilon)
    return Fitted(UNIT, plan @ queries, "first")


def transport_plan(cost: Tensor, epsilon: float) -> Tensor:
    """(m, n) the entropic plan of equal masses; its rows sum to 1, its columns to m/n (Sinkhorn, in logarithms).

    Raises:
        InputError: the masses are off by more than 1e-6 after 2,000 iterations.

    >>> transport_plan(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 0.05).round(decimals=6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    tiny = torch.finfo(cost.dtype).tiny
    kernel = -cost / (epsilon * cost.mean()).clamp(min=tiny)
    columns = cost.new_full((cost.shape[1],), len(cost) / cost.shape[1])
    potential = torch.zeros_like(columns)
    for _ in range(ITERATIONS):
        plan = torch.softmax(kernel + potential, dim=1)
        sums = plan.sum(dim=0)
        if (sums - columns).abs().sum() <= MARGINAL * len(cost):
            return plan
        potential += columns.log() - sums.clamp(min=tiny).log()
    raise InputError(f"epsilon={epsilon}: no transport plan after {ITERATIONS} iterations; give a larger epsilon")


def _similarities(first: Tensor, second: Tensor) -> Tensor:
    one_width(first, second)
    if len(first) * len(second) > PAIRS:
        raise InputError(
            f"{len(first)} times {len(second)} similarities do not fit: this alignment needs all of them at once, "
            f"at most {PAIRS:,}; take fewer samples"
        )
    return first @ second.T
