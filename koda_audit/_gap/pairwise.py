"""Sums over all pairs of rows, in one pass and without their matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._gap.folds import Groups
from koda_audit._gap.pair_sums import PairSums
from koda_audit._gap.sides import Sides, centroid

ROWS = 1024  # rows and columns of distances that are made at a time
POTENTIAL = 2.0  # t of exp(-t |z - z'|^2) in the uniformity (Wang and Isola, ICML 2020)
TIED = 1e-12  # squared distances that differ by less, as a part of the mean squared length, are equal


@dataclass(frozen=True, eq=False)
class _Part:
    """Some centred rows of one group of a side: ``squares`` (k,) of their lengths, ``along`` (k,) their z'g.

    ``same`` and ``other`` (k,) are the smallest squared distances yet to a row of the same and of the other modality.
    """

    group: int
    rows: Tensor
    squares: Tensor
    along: Tensor
    same: Tensor
    other: Tensor


def _parts(values: Tensor, groups: NDArray[np.int64], gap: Tensor) -> list[_Part]:
    centre, parts = centroid(values), []
    for group in range(groups.max() + 1):
        for chunk in torch.split(torch.from_numpy(np.flatnonzero(groups == group)).to(values.device), ROWS):
            rows = values[chunk] - centre
            far = rows.new_full((len(rows),), torch.inf)
            parts.append(_Part(group, rows, (rows * rows).sum(dim=1), rows @ gap, far, far.clone()))
    return parts


def _squared_distances(a: _Part, b: _Part) -> Tensor:
    return torch.addmm(a.squares[:, None] + b.squares, a.rows, b.rows.T, alpha=-2).clamp_(min=0)


def pair_sums(sides: Sides, groups: Groups, gamma: float) -> PairSums:
    """Exact, in blocks of 1,024 x 1,024 pairs; about (n + m)^2 d operations, and a copy of the rows.

    >>> from koda_audit._gap.sides import sides
    >>> both = sides([[1, 0], [0, 1]], [[0, -1], [-1, 0]])
    >>> found = pair_sums(both, (np.zeros(2, dtype=int), np.zeros(2, dtype=int)), gamma=1.0).metrics()
    >>> round(found["energy_centred"], 9), round(found["uniformity_image"], 9), found["mix_bias_image"]
    (0.0, -4.0, 0.5)
    """
    count = int(max(numbers.max() for numbers in groups)) + 1
    gap = centroid(sides.image) - centroid(sides.text)
    images, texts = _parts(sides.image, groups[0], gap), _parts(sides.text, groups[1], gap)
    zero = sides.image.new_zeros(count, count)
    distance = {name: zero.clone() for name in ("image", "text", "cross", "centred")}
    kernel = {name: zero.clone() for name in ("image", "text", "centred")}
    potential = {name: zero.log() for name in ("image", "text", "cross", "matched")}

    for name, parts in (("image", images), ("text", texts)):
        for number, a in enumerate(parts):
            for b in parts[number:]:
                squares = _squared_distances(a, b)
                if a is b:
                    squares.fill_diagonal_(0.0)
                apart = squares.sqrt().sum()
                if a is b:
                    squares.fill_diagonal_(torch.inf)  # a row is no neighbour of its own
                _keep_nearest(squares, a.same, b.same)
                near, log = (squares * -gamma).exp_().sum(), (squares.flatten() * -POTENTIAL).logsumexp(dim=0)
                for i, j in [(a.group, a.group)] if a is b else [(a.group, b.group), (b.group, a.group)]:
                    distance[name][i, j] += apart
                    kernel[name][i, j] += near
                    potential[name][i, j] = torch.logaddexp(potential[name][i, j], log)

    # of the sums over "centred", where all x - y grow shorter by one vector
    slopes = {name: torch.zeros_like(gap) for name in ("distance", "kernel")}
    for k, a in enumerate(images):
        for q, b in enumerate(texts):
            at = a.group, b.group
            squares = _squared_distances(a, b)
            apart, near = squares.sqrt(), (squares * -gamma).exp_()
            distance["centred"][at] += apart.sum()
            kernel["centred"][at] += near.sum()
            slopes["distance"] -= _differences(a, b, apart.reciprocal_().nan_to_num_(posinf=0.0))
            slopes["kernel"] += _differences(a, b, near.mul_(2 * gamma))
            # |x - y|^2 of the rows as they are: x - y is the difference of the centred rows plus the gap
            squares.add_((2 * a.along)[:, None] - 2 * b.along + gap @ gap).clamp_(min=0)
            distance["cross"][at] += squares.sqrt().sum()
            _keep_nearest(squares, a.other, b.other)
            if sides.paired and k == q:
                logs = torch.stack([potential["matched"][at], (squares.diagonal() * -POTENTIAL).logsumexp(dim=0)])
                potential["matched"][at] = logs.logsumexp(dim=0)
                squares.fill_diagonal_(torch.inf)
            log = (squares.flatten() * -POTENTIAL).logsumexp(dim=0)
            potential["cross"][at] = torch.logaddexp(potential["cross"][at], log)

    both = (images, texts)
    tied = TIED * torch.cat([part.squares + gap @ gap for parts in both for part in parts]).mean()
    rows, same = (torch.stack([zero[0], zero[0]]) for _ in range(2))
    totals = gap.new_zeros(2, count, len(gap))
    for side, parts in enumerate(both):
        for part in parts:
            rows[side, part.group] += len(part.rows)
            totals[side, part.group] += part.rows.sum(dim=0)
            same[side, part.group] += (1 + _sign(part.other - part.same, tied)).sum() / 2
    n, m = rows.sum(dim=1)
    centroids = -totals / (rows.sum(dim=1, keepdim=True) - rows)[:, :, None]
    moved = {name: (centroids[0] - centroids[1]) @ slope / (n * m) for name, slope in slopes.items()}
    return PairSums(rows, distance, kernel, potential, same, moved, sides.paired)


def _differences(a: _Part, b: _Part, weights: Tensor) -> Tensor:
    """Sum of w_ij (x_i - y_j)."""
    return weights.sum(dim=1) @ a.rows - weights.sum(dim=0) @ b.rows


def _keep_nearest(squares: Tensor, of_rows: Tensor, of_columns: Tensor) -> None:
    torch.minimum(of_rows, squares.amin(dim=1), out=of_rows)
    torch.minimum(of_columns, squares.amin(dim=0), out=of_columns)


def _sign(values: Tensor, tied: Tensor) -> Tensor:
    return values.sign() * (values.abs() > tied)
