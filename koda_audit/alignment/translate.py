"""Translations of a gallery, and what they do to its ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from koda_audit._gap.translate import gap_vector, nearest_rows, orthogonal_gap
from koda_audit.alignment.choices import number, one_width, vector
from koda_audit.alignment.maps import UNIT, Fitted, Step
from koda_audit.errors import KodaAuditError

TIED = 1e-10  # scores of unit rows that differ by less are equal


def orthogonal_translate(
    queries: Tensor, gallery: Tensor, alpha: float = 1.0, rank: int | float | None = None
) -> Fitted:
    """Gallery + alpha g', g' the part of the gap that is orthogonal to all that the gallery spans (arXiv 2603.29080).

    At full rank the nearest row of every query stays the same for any alpha, in Euclidean distance, and in cosine too,
    as all moved rows have one length. That is checked here on all queries; rows whose scores differ by rounding count
    as equal. What the gallery spans cannot be closed: with as many directions as dimensions, nothing moves.

    Args:
        queries, gallery: (n, d) and (m, d) unit rows.
        alpha: 1 closes all that can be closed.
        rank: as in ``koda_audit._gap.translate.orthogonal_gap``; less than full closes more of the gap and promises
            nothing.

    Returns:
        ``figures``: gap |g|, gap_orthogonal |g'|, gap_remaining |g - alpha g'|, rank, guaranteed, and the shares of
        queries with an unchanged nearest row, top1_unchanged_euclidean and top1_unchanged_cosine.

    Raises:
        KodaAuditError: at full rank, a query whose nearest row changed.

    >>> queries = torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.6, 0.8]], dtype=torch.float64)
    >>> gallery = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    >>> moved = orthogonal_translate(queries, gallery)
    >>> moved.figures["top1_unchanged_cosine"], round(moved.figures["gap_remaining"], 9)
    (1.0, 0.0)
    """
    number(alpha, "alpha")
    one_width(queries, gallery)
    if rank is not None:
        number(rank, "rank", low=0)
    found = orthogonal_gap(gallery, queries, rank)
    fitted = _translated(queries, gallery, found.gap, alpha * found.shift)
    kept = min(fitted.figures["top1_unchanged_euclidean"], fitted.figures["top1_unchanged_cosine"])
    if rank is None and kept < 1:
        raise KodaAuditError(
            f"orthogonal_translate changed the nearest row of {1 - kept:.2%} of the queries although the shift "
            "should be orthogonal to the gallery: its vectors have too few digits, give them in float64"
        )
    closable = torch.linalg.vector_norm(found.shift).item()
    figures = {**fitted.figures, "gap_orthogonal": closable, "rank": found.rank, "guaranteed": rank is None}
    return Fitted(fitted.first, fitted.second, fitted.frame, figures)


def translate_gallery(queries: Tensor, gallery: Tensor, v: Any = None) -> Fitted:
    """Gallery + v, queries as they are. Dot products rank as before for any v; distances only where v is orthogonal to
    all differences of gallery rows, and cosines only where their lengths stay equal.

    Args:
        queries, gallery: (n, d) and (m, d) unit rows.
        v: (d,); default the whole gap, mean of the queries - mean of the gallery.

    Returns:
        ``figures`` as in ``orthogonal_translate``, without those of the projection.

    >>> x = torch.eye(2, dtype=torch.float64)
    >>> translate_gallery(x, x, v=[0.0, 3.0]).figures["top1_unchanged_euclidean"]
    0.5
    """
    width = one_width(queries, gallery)
    gap = gap_vector(gallery, queries)
    return _translated(queries, gallery, gap, gap if v is None else vector(v, "v", width))


def _translated(queries: Tensor, gallery: Tensor, gap: Tensor, shift: Tensor) -> Fitted:
    figures = {
        "gap": torch.linalg.vector_norm(gap).item(),
        "gap_remaining": torch.linalg.vector_norm(gap - shift).item(),
        **{
            f"top1_unchanged_{metric}": _unchanged(queries, gallery, shift, metric)
            for metric in ("euclidean", "cosine")
        },
    }
    return Fitted(UNIT, (Step(offset=shift),), "first", figures)


def _unchanged(queries: Tensor, gallery: Tensor, shift: Tensor, metric: str) -> float:
    """The share of queries whose nearest row is the same before and after, or was tied with it before."""
    before, after = nearest_rows(gallery, queries, shift, [0.0, 1.0], metric)
    changed = np.flatnonzero(before != after)
    # of unit rows, cosine and distance before the shift are told by the dot product alike
    loss = (queries[changed] * (gallery[before[changed]] - gallery[after[changed]])).sum(dim=1)
    tied = TIED * (1 + shift @ shift)  # a long shift costs the scores after it digits
    return 1 - int((loss > tied).sum()) / len(queries)
