"""The means over samples of which all metrics of the first order are functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._gap.sides import ROUNDING, Sides, blocks, centroid

Counts = NDArray[np.int16]


@dataclass(frozen=True)
class Means:
    """Means over samples that were weighed in B ways: (B,) each but the first four.

    Attributes:
        n, m: rows of image and of text.
        image, text: (B, d), (B, e) centroids.
        image_spread, text_spread: mean squared distance of a side's rows to its centroid: the trace of its covariance.
        raw, raw_square: mean distance and mean squared distance of the two rows of a pair; nan without pairs.
        centred_square: the latter once each side is centred.
    """

    n: int
    m: int
    image: Tensor
    text: Tensor
    image_spread: Tensor
    text_spread: Tensor
    raw: Tensor
    raw_square: Tensor
    centred_square: Tensor

    @property
    def freedom(self) -> tuple[float, float]:
        """n - 1 and m - 1; nan for a single row."""
        return self.n - 1 or math.nan, self.m - 1 or math.nan


def means(sides: Sides, image_counts: Counts | None = None, text_counts: Counts | None = None) -> Means:
    """Of two sides, in blocks of rows.

    Squares are taken around the centroid c of all samples, so that no digits cancel; what another centroid c* differs
    from it comes off afterwards: mean |z - c*|^2 = mean |z - c|^2 - |c* - c|^2.

    Args:
        image_counts: (B, n) how often each row counts, n in all; default (1, n) ones.
        text_counts: (B, m); of pairs the same as ``image_counts``.

    >>> from koda_audit._gap.sides import sides
    >>> found = means(sides([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]))
    >>> found.image.tolist(), found.raw_square.tolist()
    ([[0.5, 0.5]], [1.0])
    """
    image, text = sides.image, sides.text
    centre, other = centroid(image), centroid(text)
    paired = sides.paired and sides.comparable
    distances = _pair_distances(sides, centre - other) if paired else image.new_empty(len(image), 0)
    offset, image_spread, of_pairs = _weighted(image, centre, image_counts, distances)
    shift, text_spread, _ = _weighted(text, other, text_counts, text.new_empty(len(text), 0))
    if paired:
        raw, raw_square, centred_square = of_pairs.T
        centred_square = _significant(centred_square - ((offset - shift) ** 2).sum(dim=1), centre, other)
    else:
        raw = raw_square = centred_square = torch.full_like(image_spread, torch.nan)
    return Means(
        n=len(image),
        m=len(text),
        image=centre + offset,
        text=other + shift,
        image_spread=_significant(image_spread, centre),
        text_spread=_significant(text_spread, other),
        raw=raw,
        raw_square=raw_square,
        centred_square=centred_square,
    )


def _significant(squares: Tensor, *centroids: Tensor) -> Tensor:
    """Mean squared distances, with those that are rounding made 0, as of rows that differ by their lengths alone."""
    least = ROUNDING * max((centre @ centre).item() for centre in centroids)
    return torch.where(squares <= least, torch.zeros_like(squares), squares)  # nan stays


def _pair_distances(sides: Sides, gap: Tensor) -> Tensor:
    """(n, 3) of each pair: distance, its square, the square of the distance between the centred rows."""
    found = sides.image.new_empty(len(sides.image), 3)
    for rows in blocks(sides.image):
        between = sides.image[rows] - sides.text[rows]
        square = (between * between).sum(dim=1)
        found[rows] = torch.stack([square.sqrt(), square, ((between - gap) ** 2).sum(dim=1)], dim=1)
    return found


def _weighted(
    values: Tensor, centre: Tensor, counts: Counts | None, statistics: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted means: of the rows less ``centre`` (B, d), of their squared distance to it (B,), of others (B, k)."""
    weighings = 1 if counts is None else len(counts)
    total = values.new_zeros(weighings, values.shape[1] + 1 + statistics.shape[1])
    for rows in blocks(values):
        centred = values[rows] - centre
        columns = torch.cat([centred, (centred * centred).sum(dim=1, keepdim=True), statistics[rows]], dim=1)
        if counts is None:
            total += columns.sum(dim=0)
        else:
            total.addmm_(torch.from_numpy(counts[:, rows]).to(columns), columns)
    total /= len(values)
    width = values.shape[1]
    offset = total[:, :width]
    return offset, total[:, width] - (offset * offset).sum(dim=1), total[:, width + 1 :]
