"""Squared distances between all samples, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1_024  # rows at a time


def distance_rows(points: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and their squared distances to all ``points`` (n, d), 0 to themselves: (at most 1,024, n) each.

    >>> [(rows.start, part.tolist()) for rows, part in distance_rows(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))]
    [(0, [[0.0, 25.0], [25.0, 0.0]])]
    """
    points = points - points.mean(dim=0)  # a common offset would cost digits in the difference below
    squares = (points * points).sum(dim=1)
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        part = torch.addmm(squares, points[rows], points.T, alpha=-2).add_(squares[rows, None]).clamp_(min=0)
        part.diagonal(start).zero_()
        yield rows, part
