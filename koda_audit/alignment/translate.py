"""Translations of a gallery, and what they do to its ranking."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from koda_audit._gap.translate import FARTHEST, gap_vector, nearest_rows, orthogonal_gap
from koda_audit.alignment.choices import Far, one_width, vector
from koda_audit.alignment.maps import UNIT, Fitted, Step
from koda_audit.embeddings.rows import Floats
from koda_audit.errors import InputError, KodaAuditError

TIED = 1e-8  # scores of unit rows in float64 that differ by less are equal; in float32 those nearer than 2e-6


def orthogonal_translate(queries: Tensor, gallery: Tensor, alpha: Far = 1.0, rank: int | float | None = None) -> Fitted:
    """Gallery + alpha g', g' the part of the gap that is orthogonal to all that the gallery spans (arXiv 2603.29080).

    At full rank the nearest row of every query stays the same for any alpha, in Euclidean distance, and in cosine too,
    as all moved rows have one length. A fit checks that on all rows as they are returned, in their dtype; rows whose
    scores differ by rounding count as equal. What the gallery spans cannot be closed: with as many directions as
    dimensions, nothing moves.

    Args:
        queries, gallery: (n, d) and (m, d) unit rows.
        alpha: 1 closes all that can be closed; -1e6 to 1e6.
        rank: as in ``koda_audit._gap.translate.orthogonal_gap``; less than full closes more of the gap and promises
            nothing.

    Returns:
        ``figures``: gap |g|, gap_orthogonal |g'|, gap_remaining |g - alpha g'|, rank, guaranteed. ``measured`` gives
        the shares of queries with an unchanged nearest row, top1_unchanged_euclidean and top1_unchanged_cosine, and
        raises a KodaAuditError where it changed at full rank.

    >>> queries = torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.6, 0.8]], dtype=torch.float64)
    >>> gallery = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    >>> moved = orthogonal_translate(queries, gallery)
    >>> round(moved.figures["gap"], 9), round(moved.figures["gap_remaining"], 9)
    (0.848528137, 0.0)
    """
    one_width(queries, gallery)
    found = orthogonal_gap(gallery, queries, rank)
    fitted = _translated(queries, gallery, found.gap, alpha * found.shift, guaranteed=rank is None)
    closable = torch.linalg.vector_norm(found.shift).item()
    figures = {**fitted.figures, "gap_orthogonal": closable, "rank": found.rank, "guaranteed": rank is None}
    return replace(fitted, figures=figures)


def translate_gallery(queries: Tensor, gallery: Tensor, v: Any = None) -> Fitted:
    """Gallery + v, queries as they are. Dot products rank as before for any v; distances only where v is orthogonal to
    all differences of gallery rows, and cosines only where their lengths stay equal.

    Args:
        queries, gallery: (n, d) and (m, d) unit rows.
        v: (d,), 1e6 long at most; default the whole gap, mean of the queries - mean of the gallery.

    Returns:
        ``figures`` and ``measured`` as in ``orthogonal_translate``, without those of the projection.

    >>> x, v = torch.eye(2, dtype=torch.float64), np.array([0.0, 3.0])
    >>> translate_gallery(x, x, v).measured(x.numpy(), x.numpy() + v)["top1_unchanged_euclidean"]
    0.5
    """
    width = one_width(queries, gallery)
    gap = gap_vector(gallery, queries)
    return _translated(queries, gallery, gap, gap if v is None else vector(v, "v", width), guaranteed=False)


def _translated(queries: Tensor, gallery: Tensor, gap: Tensor, shift: Tensor, guaranteed: bool) -> Fitted:
    length = torch.linalg.vector_norm(shift).item()
    if not length <= FARTHEST:
        raise InputError(f"the gallery would move by {length:g}: more than {FARTHEST:g} leaves its rows no digits")
    figures = {
        "gap": torch.linalg.vector_norm(gap).item(),
        "gap_remaining": torch.linalg.vector_norm(gap - shift).item(),
    }
    measured = partial(_kept, queries, gallery, guaranteed)
    return Fitted(UNIT, (Step(offset=shift),), "first", figures, measured)


def _kept(queries: Tensor, gallery: Tensor, guaranteed: bool, unmoved: Floats, moved: Floats) -> dict[str, float]:
    """The shares of queries whose nearest row is the same before and after, or was tied with it before.

    Args:
        queries, gallery: (n, d) and (m, d) unit rows.
        unmoved, moved: the same, as they are returned.

    Raises:
        KodaAuditError: ``guaranteed``, and a query whose nearest row changed.
    """
    tied = max(TIED, 16 * float(np.finfo(moved.dtype).eps))
    still = torch.zeros_like(gallery[0])
    rows, asked = (torch.from_numpy(np.array(side, dtype=np.float64)) for side in (moved, unmoved))
    figures = {}
    for metric in ("euclidean", "cosine"):
        before = nearest_rows(gallery, queries, still, [0.0], metric)[0]
        after = nearest_rows(rows, asked, still, [0.0], metric)[0]
        changed = np.flatnonzero(before != after)
        # of unit rows, cosine and distance before the shift are told by the dot product alike
        loss = (queries[changed] * (gallery[before[changed]] - gallery[after[changed]])).sum(dim=1)
        figures[f"top1_unchanged_{metric}"] = 1 - int((loss > tied).sum()) / len(queries)
    kept = min(figures.values())
    if guaranteed and kept < 1:
        raise KodaAuditError(
            f"orthogonal_translate changed the nearest row of {1 - kept:.2%} of the queries although the shift "
            "should be orthogonal to the gallery: its vectors have too few digits, give them in float64 or move less"
        )
    return figures
