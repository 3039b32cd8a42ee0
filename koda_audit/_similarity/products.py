"""Sums of products over samples: all that the linear measures need, in n d^2 operations and without an n x n matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from koda_audit._moments.moments import Moments
from koda_audit._similarity.protocol import scaled
from koda_audit.errors import InputError

CHUNK = 8_192  # rows that are joined at a time
VANISHES = 1e-12  # part of a sum that rounding leaves where nothing should be left


@dataclass(frozen=True, eq=False)
class Products:
    """Of rows [x, |x|^2] and [y, |y|^2], x and y centred once: ``left`` (n, p + 1), ``right`` (n, q + 1).

    The squared lengths are the diagonals of the Gram matrices: with them the sums over all pairs of *different*
    samples are exact too (ours; see ``cka``). ``moments`` are those of the joint rows (p + q + 2,). To leave samples
    out is to subtract their moments, and a permutation changes one block of them.
    """

    left: Tensor
    right: Tensor
    moments: Moments

    def permuted(self, order: Tensor) -> Products:
        right, split = self.right[order], self.left.shape[1]
        cross = self.moments.cross.clone()
        cross[:split, split:] = self.left.T @ right
        cross[split:, :split] = cross[:split, split:].T
        return Products(self.left, right, replace(self.moments, cross=cross))

    def without(self, rows: Tensor) -> Products:
        """Can be asked for ``moments`` alone; the rows are those of all samples still."""
        gone, whole = _joint(self.left[rows], self.right[rows]), self.moments
        rest = Moments(whole.count - gone.count, whole.total - gone.total, whole.cross - gone.cross)
        return replace(self, moments=rest)

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """X'X (p, p), X'Y (p, q) and Y'Y (q, q) of the centred x and y.

        Raises:
            InputError: x or y is constant.
        """
        total, split = self.moments.total, self.left.shape[1]
        cross = self.moments.cross - torch.outer(total, total) / self.moments.count
        x, y = slice(split - 1), slice(split, -1)
        for name, part in (("x", x), ("y", y)):
            if cross[part, part].trace() <= VANISHES * self.moments.cross[part, part].trace():
                raise InputError(
                    f"all rows of {name}, or all but those that an interval leaves out, are equal: "
                    "there is nothing to compare"
                )
        return cross[x, x], cross[x, y], cross[y, y]


def products(x: Tensor, y: Tensor) -> Products:
    """Of ``x`` (n, d_x) and ``y`` (n, d_y).

    Where there are more columns than samples, they are rotated so that all but n are 0, and those are dropped: no
    inner product changes, and the cost is that of Gram matrices.

    >>> x = torch.tensor([[1.0], [2.0], [6.0]], dtype=torch.float64)
    >>> [part.round(decimals=4).tolist() for part in products(x, -2 * x).centred()]
    [[[0.3889]], [[-0.3889]], [[0.3889]]]
    """
    left, right = _with_lengths(x), _with_lengths(y)
    return Products(left, right, _joint(left, right))


def _with_lengths(values: Tensor) -> Tensor:
    rows = scaled(values)
    rows = rows - rows.mean(dim=0)
    if rows.shape[1] > len(rows):
        rows = torch.linalg.qr(rows.T, mode="r").R.T
    return torch.cat([rows, (rows * rows).sum(dim=1, keepdim=True)], dim=1)


def _joint(left: Tensor, right: Tensor) -> Moments:
    pairs = zip(torch.split(left, CHUNK), torch.split(right, CHUNK), strict=True)
    return Moments.of(torch.cat(pair, dim=1) for pair in pairs)
