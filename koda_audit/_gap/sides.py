"""The two sets of rows that a gap lies between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._kernels.directions import at_scale
from koda_audit.errors import InputError

LARGEST = 1e75  # entry of a row: its fourth power has all its digits, and so has that of its reciprocal
ROUNDING = 1e-28  # of a squared length: a squared distance that is no larger is 0
BLOCK = 4096  # rows of which a copy is made at a time


@dataclass(frozen=True)
class Sides:
    """``image`` (n, d) and ``text`` (m, e), float64; where ``paired``, n = m and row i belongs to row i."""

    image: Tensor
    text: Tensor
    paired: bool

    @property
    def comparable(self) -> bool:
        """Whether rows of the two have the same width, so that distances between them exist."""
        return self.image.shape[1] == self.text.shape[1]

    @property
    def divisible(self) -> bool:
        """Whether each side has two halves of 2 rows."""
        return min(len(self.image), len(self.text)) >= 4

    def chosen(self, image_rows: NDArray[np.int64], text_rows: NDArray[np.int64]) -> Sides:
        """Some rows of each."""
        image, text = (
            values[torch.from_numpy(rows).to(values.device)]
            for values, rows in ((self.image, image_rows), (self.text, text_rows))
        )
        return replace(self, image=image, text=text)

    def drawn(self, most: int, seed: int) -> Sides:
        """At most ``most`` rows of each, drawn with ``seed``; of pairs the same."""
        n, m = len(self.image), len(self.text)
        if max(n, m) <= most:
            return self
        image, text = (
            np.random.default_rng([seed, rows]).choice(rows, min(rows, most), replace=False) for rows in (n, m)
        )
        return self.chosen(image, text)

    def halved(self, name: str, seed: int) -> Sides:
        """Two random halves of the side ``name`` as image and text, paired as they fall."""
        values: Tensor = getattr(self, name)
        half = len(values) // 2
        order = torch.from_numpy(np.random.default_rng([seed, len(values)]).permutation(len(values))).to(values.device)
        return Sides(values[order[:half]], values[order[half : 2 * half]], paired=True)

    def directions(self) -> Sides:
        """With rows of length 1."""
        return replace(self, image=unit_rows(self.image, "image"), text=unit_rows(self.text, "text"))


def sides(image: Any, text: Any, normalize: bool = True, paired: bool | None = None) -> Sides:
    """The two checked; rows divided by their length in float64 if ``normalize``.

    Args:
        image: (n, d).
        text: (m, e), on the same device.
        normalize: public half-precision features have lengths from .9995 to 1.0006, which would move a gap in its
            fourth digit; so they too should be normalised.
        paired: None: where n = m.

    Raises:
        InputError: not two finite real matrices of at least 2 rows; rows that are zero; pairs asked for where n != m.

    >>> sides([[3.0, 4.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 5.0], [1.0, 0.0]]).image.tolist()
    [[0.6, 0.8], [1.0, 0.0]]
    """
    found = Sides(matrix(image, "image"), matrix(text, "text"), paired=False)
    n, m = len(found.image), len(found.text)
    if min(n, m) < 2:
        raise InputError(f"{n} image rows and {m} text rows: a gap needs at least 2 of each")
    if paired and n != m:
        raise InputError(f"{n} image rows and {m} text rows are no pairs: give one text an image, or paired=False")
    if normalize:
        found = found.directions()
    else:
        check_scale(found.image, "image")
        check_scale(found.text, "text")
    return replace(found, paired=n == m if paired is None else paired)


def blocks(values: Tensor) -> Iterator[slice]:
    """Slices that cover the rows of ``values``, 4,096 at most each."""
    for start in range(0, len(values), BLOCK):
        yield slice(start, min(start + BLOCK, len(values)))


def centroid(values: Tensor) -> Tensor:
    """(d,) mean of the rows (n, d); of equal rows exactly that row, so that centred they are 0.

    >>> centroid(torch.tensor([[1.0, 0.0], [3.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    origin = values[0]
    return origin + torch.stack([(values[rows] - origin).sum(dim=0) for rows in blocks(values)]).sum(dim=0) / len(
        values
    )


def unit_rows(values: Tensor, name: str) -> Tensor:
    """(n, d) rows divided by their length.

    Raises:
        InputError: a row without a direction.

    >>> unit_rows(torch.tensor([[3.0, 4.0]], dtype=torch.float64), "image").tolist()
    [[0.6, 0.8]]
    """
    points = at_scale(values)
    lengths: Tensor = torch.linalg.vector_norm(points, dim=1, keepdim=True)
    if not lengths.all():
        row = int((lengths == 0).nonzero()[0, 0])
        raise InputError(f"{name} row {row} has length 0, so no direction: leave it out")
    return points / lengths


def check_scale(values: Tensor, name: str, zero: bool = False) -> None:
    """Whether products of four entries can be formed of rows that are not divided by their length.

    Raises:
        InputError: a row that is too short or too long for that, or of length 0 unless ``zero``.

    >>> check_scale(torch.ones(1, 2), "image")
    """
    largest = torch.linalg.vector_norm(values, ord=torch.inf, dim=1)
    wrong = (largest > LARGEST) | ((largest < 1 / LARGEST) & ((largest > 0) | (not zero)))
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        if not largest[row]:
            raise InputError(f"{name} row {row} has length 0, so no direction: leave it out")
        raise InputError(
            f"{name} row {row} has {largest[row].item():g} as its largest entry: expected {1 / LARGEST:g} to "
            f"{LARGEST:g} where rows are not divided by their length"
        )
