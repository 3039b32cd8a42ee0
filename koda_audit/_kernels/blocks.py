"""Any block of a kernel matrix without the rest of it: exact values where the whole matrix does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from koda_audit._arrays import Vectors, chosen
from koda_audit._kernels.bandwidth import drawn_rows, leading_eigenvalues
from koda_audit._kernels.directions import common_rows, directions
from koda_audit._kernels.rbf import scaled_points
from koda_audit._kernels.table import POWERS, no_bandwidth

BLOCK = 2048  # rows and columns of the kernel matrix that are made at a time
VALUES = 2**30  # kernel values of a sum: all pairs of 32,768 samples
FEWEST = 4096  # rows that are drawn where that is not enough for all
CENTRE = 4096  # rows, evenly spaced, whose median is the origin

Points = tuple[Tensor, ...]


@dataclass(frozen=True)
class Blocks:
    """The matrix K of n samples, k(x, x) = 1, of which any block is made when it is asked for.

    ``points(vectors)`` are what ``between(p, q)`` needs of a and of b samples to make their (a, b) block.
    """

    vectors: Mapping[str, Vectors]
    points: Callable[[Mapping[str, Tensor]], Points]
    between: Callable[[Points, Points], Tensor]

    @property
    def n(self) -> int:
        return len(next(iter(self.vectors.values())))

    def part(self, rows: Tensor) -> Tensor:
        """(m, m): K/n of some rows (m,) among each other; symmetric, on the CPU."""
        points = self.points(chosen(self.vectors, rows))
        part = self.between(points, points)
        return ((part + part.T).fill_diagonal_(2.0) / (2 * self.n)).cpu()

    def coherences(self, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """x'(K/n)x of each column of ``x`` (n, T), and their standard errors (T,), without an n x n matrix.

        Up to 32,768 samples every pair counts, and the error is 0. Above, rows i are drawn with probability p_i, the
        mean of x_i^2 over the columns, and x_i (Kx)_i / n p_i is averaged over them: unbiased, and exact where x is an
        eigenvector (ours). 2^30 kernel values are made then, or 4,096 rows.
        """
        drawn = max(VALUES // self.n, FEWEST)
        if drawn >= self.n:
            return self._all_pairs(x), x.new_zeros(x.shape[1])
        chance = (x * x).mean(dim=1)
        chance /= chance.sum()
        numbers = np.random.default_rng(seed).choice(self.n, drawn, p=chance.numpy())
        rows, counts = (torch.from_numpy(part) for part in np.unique(numbers, return_counts=True))
        samples = torch.cat([self._weighted_rows(x, part) for part in torch.split(rows, BLOCK)]) / chance[rows, None]
        mean = (counts[:, None] * samples).sum(dim=0) / drawn
        variance = (counts[:, None] * (samples - mean) ** 2).sum(dim=0) / (drawn - 1)
        return mean, (variance / drawn).sqrt()

    def _all_pairs(self, x: Tensor) -> Tensor:
        total = x.new_zeros(x.shape[1])
        for start, p, left in self._chunks(x):
            for other, q, right in self._chunks(x, start):  # what lies below the diagonal is its mirror image
                values = (left * (self.between(p, q) @ right)).sum(dim=0).cpu()
                total += values if other == start else 2 * values
        return total / self.n

    def _weighted_rows(self, x: Tensor, rows: Tensor) -> Tensor:
        """x_i (Kx)_i / n of some rows (m,): (m, T)."""
        points = self.points(chosen(self.vectors, rows))
        images = sum(self.between(points, q) @ right for _, q, right in self._chunks(x))
        assert isinstance(images, Tensor)
        return x[rows] * images.cpu() / self.n

    def _chunks(self, x: Tensor, first: int = 0) -> Iterator[tuple[int, Points, Tensor]]:
        for start in range(first, self.n, BLOCK):
            rows = slice(start, start + BLOCK)
            points = self.points(chosen(self.vectors, rows))
            yield start, points, x[rows].to(points[0].device)


def kernel_blocks(kernel: str, vectors: Mapping[str, Vectors], sigmas: Mapping[str, float]) -> Blocks:
    """The blocks of a kernel of ``table.KERNELS`` on modality -> (n, d) vectors.

    Raises:
        InputError: as the kernel's own Gram function does.

    >>> blocks = kernel_blocks("rbf", {"image": torch.tensor([[0.0], [2.0]])}, {"image": 1.0})
    >>> blocks.part(torch.arange(2)).round(decimals=6).tolist()
    [[0.5, 0.067668], [0.067668, 0.5]]
    """
    n = common_rows(vectors)
    if kernel == "rbf":
        # centred by the median, as in the Gram matrix: an offset would cost digits in the difference of squares
        evenly = torch.arange(0, n, -(-n // CENTRE))
        centre = scaled_points(chosen(vectors, evenly), sigmas).median(dim=0).values
        return Blocks(vectors, lambda part: (scaled_points(part, sigmas) - centre,), _gaussian)
    no_bandwidth(kernel, sigmas)
    degree, offset = POWERS[kernel]
    return Blocks(
        vectors,
        lambda part: tuple(directions(values, name, offset) for name, values in part.items()),
        lambda p, q: math.prod(a @ b.T for a, b in zip(p, q, strict=True)) ** degree,
    )


def leading_spectrum(blocks: Blocks, seed: int = 0, count: int = 20) -> list[float]:
    """The largest eigenvalues of K/n, largest first, on at most 4,000 rows drawn with ``seed``."""
    rows = drawn_rows(blocks.n, seed)
    part = (blocks.part(rows) * (blocks.n / len(rows))).numpy()
    return leading_eigenvalues(part, min(count, len(rows)))


def _gaussian(p: Points, q: Points) -> Tensor:
    (a,), (b,) = p, q
    squares = (a * a).sum(dim=1)[:, None] + (b * b).sum(dim=1)
    return torch.addmm(squares, a, b.T, alpha=-2).clamp_(min=0).div_(-2).exp_()
