"""Any block of a kernel matrix without the rest of it: exact values where the whole matrix does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from koda_audit._arrays import Vectors, chosen

BLOCK = 2048  # rows and columns of the kernel matrix that are made at a time
VALUES = 2**30  # kernel values of a sum: all pairs of 32,768 samples
FEWEST = 4096  # rows that are drawn where that is not enough for all

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

    def matrix(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(m, m): K/n of some rows (m,) among each other, or of all; symmetric, on the device of the vectors.

        Its trace is m/n. In this scale x'(K/n)x is the coherence of a unit direction x over all samples (KODA, ICML
        2026, arXiv 2606.04180, sec 3): 1/n for a direction at random, at most the largest eigenvalue.
        """
        points = self.points(chosen(self.vectors, rows))
        part = self.between(points, points)
        return (part + part.T).fill_diagonal_(2.0).div_(2 * self.n)

    def part(self, rows: Tensor) -> Tensor:
        """The same on the CPU."""
        return self.matrix(rows).cpu()

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
