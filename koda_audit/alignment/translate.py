"""Translations of a gallery, and what they do to its ranking."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from koda_audit.alignment.choices import number, one_width, vector, whole
from koda_audit.alignment.maps import UNIT, Fitted, Step
from koda_audit.errors import InputError, KodaAuditError

SPANNED = 1e-10  # of the largest singular value: below it, the gallery does not extend
TIED = 1e-10  # scores of unit rows that differ by less are equal
BLOCK = 1024  # queries that are ranked at a time


def orthogonal_gap(gap: Tensor, gallery: Tensor, rank: int | float | None = None) -> tuple[Tensor, int]:
    """(d,) g' = g - V V'g, V the principal directions of the centred gallery, and their number
    (arXiv 2603.29080, equation 11).

    Args:
        gap: (d,) g.
        gallery: (m, d).
        rank: None takes all directions of singular value above 1e-10 of the largest; a whole number the first so many;
            a fraction the fewest that hold this share of the variance.

    >>> gallery = torch.tensor([[1.0, 0.0, 0.5], [-1.0, 0.0, 0.5]], dtype=torch.float64)
    >>> orthogonal_gap(torch.ones(3, dtype=torch.float64), gallery)
    (tensor([0., 1., 1.], dtype=torch.float64), 1)
    """
    _, s, vt = torch.linalg.svd(gallery - gallery.mean(dim=0), full_matrices=False)
    full = int((s > SPANNED * s[0]).sum())
    if isinstance(rank, float):
        if not 0 < rank < 1:
            raise InputError(f"rank={rank!r}: a fraction is a share of the variance, between 0 and 1")
        held = (s**2).cumsum(0) / (s**2).sum()
        kept = min(int((held < rank).sum()) + 1, full)
    else:
        kept = full if rank is None else whole(rank, "rank", full, "the directions that the gallery spans")
    if kept == len(gap):
        return torch.zeros_like(gap), kept
    basis = vt[:kept].T
    return gap - basis @ (basis.T @ gap), kept


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
        rank: as in ``orthogonal_gap``; less than full closes more of the gap and promises nothing.

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
    gap = queries.mean(dim=0) - gallery.mean(dim=0)
    closed, kept = orthogonal_gap(gap, gallery, rank)
    fitted = _translated(queries, gallery, gap, alpha * closed)
    kept_share = min(fitted.figures["top1_unchanged_euclidean"], fitted.figures["top1_unchanged_cosine"])
    if rank is None and kept_share < 1:
        raise KodaAuditError(
            f"orthogonal_translate changed the nearest row of {1 - kept_share:.2%} of the queries although the shift "
            "should be orthogonal to the gallery: its vectors have too few digits, give them in float64"
        )
    closable = torch.linalg.vector_norm(closed).item()
    figures = {**fitted.figures, "gap_orthogonal": closable, "rank": kept, "guaranteed": rank is None}
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
    gap = queries.mean(dim=0) - gallery.mean(dim=0)
    return _translated(queries, gallery, gap, gap if v is None else vector(v, "v", width))


def _translated(queries: Tensor, gallery: Tensor, gap: Tensor, shift: Tensor) -> Fitted:
    figures = {
        "gap": torch.linalg.vector_norm(gap).item(),
        "gap_remaining": torch.linalg.vector_norm(gap - shift).item(),
        **_unchanged(queries, gallery, gallery + shift),
    }
    return Fitted(UNIT, (Step(offset=shift),), "first", figures)


def _unchanged(queries: Tensor, gallery: Tensor, moved: Tensor) -> dict[str, float]:
    """The share of queries whose best row is the same before and after, or was tied with it before."""
    counts = {"euclidean": 0, "cosine": 0}
    for part in torch.split(queries, BLOCK):
        before, after = _scores(part, gallery), _scores(part, moved)
        for name in counts:
            new = after[name].argmax(dim=1, keepdim=True)
            loss = before[name].max(dim=1).values - before[name].gather(1, new)[:, 0]
            counts[name] += int((loss <= TIED).sum())
    return {f"top1_unchanged_{name}": count / len(queries) for name, count in counts.items()}


def _scores(queries: Tensor, gallery: Tensor) -> dict[str, Tensor]:
    products = queries @ gallery.T
    lengths = torch.linalg.vector_norm(gallery, dim=1)
    return {"euclidean": 2 * products - lengths**2, "cosine": products / lengths.clamp(min=TIED)}
