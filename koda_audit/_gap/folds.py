"""Covariances of all rows, and of all but one group of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._gap.sides import Sides, blocks, centroid
from koda_audit._moments.moments import Moments
from koda_audit._stats.jackknife import random_groups

Groups = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Gaussian:
    """Of ``count`` rows: ``mean`` (d,) and ``covariance`` (d, d), divided by count - 1."""

    count: int
    mean: Tensor
    covariance: Tensor


Gaussians = tuple[Gaussian, Gaussian]


def drawn_groups(sides: Sides, groups: int, seed: int) -> Groups:
    """Group of each image row and of each text row; pairs stay together. Two of a group at least, so fewer groups of
    few rows."""
    n, m = len(sides.image), len(sides.text)
    groups = max(min(groups, n // 2, m // 2), 1)
    return random_groups(n, groups, seed), random_groups(m, groups, seed)


def gaussians(sides: Sides) -> Gaussians:
    """Of all rows.

    >>> from koda_audit._gap.sides import sides
    >>> image, _ = gaussians(sides([[1, 0], [-1, 0]], [[0, 1], [0, 1]]))
    >>> image.covariance.tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    centres = _centres(sides)
    return _gaussians(_moments(sides, centres), centres)


def folds(sides: Sides, groups: Groups) -> Iterator[tuple[Gaussians, Sides]]:
    """For each group: the Gaussians of all rows but the group's, and the rows of the group.

    Four d x d matrices at a time, whatever the number of groups; so each cross-product is made twice.
    """
    centres = _centres(sides)
    whole = _moments(sides, centres)
    for group in range(max(numbers.max() for numbers in groups) + 1):
        part = sides.chosen(*(np.flatnonzero(numbers == group) for numbers in groups))
        rest = [_less(*both) for both in zip(whole, _moments(part, centres), strict=True)]
        yield _gaussians(rest, centres), part


def _centres(sides: Sides) -> list[Tensor]:
    return [centroid(values) for values in (sides.image, sides.text)]


def _moments(sides: Sides, centres: list[Tensor]) -> list[Moments]:
    both = zip((sides.image, sides.text), centres, strict=True)
    return [Moments.of(values[rows] - centre for rows in blocks(values)) for values, centre in both]


def _less(whole: Moments, part: Moments) -> Moments:
    return Moments(whole.count - part.count, whole.total - part.total, whole.cross - part.cross)


def _gaussians(moments: list[Moments], centres: list[Tensor]) -> Gaussians:
    image, text = (_gaussian(*both) for both in zip(moments, centres, strict=True))
    return image, text


def _gaussian(moments: Moments, centre: Tensor) -> Gaussian:
    mean = moments.total / moments.count
    covariance = (moments.cross - torch.outer(moments.total, mean)) / (moments.count - 1)
    return Gaussian(moments.count, centre + mean, covariance)
