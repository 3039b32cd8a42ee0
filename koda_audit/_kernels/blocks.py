"""Any block of a kernel matrix without the rest of it: exact values where the whole matrix does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from koda_audit._kernels.bandwidth import ROWS, leading_eigenvalues
from koda_audit._kernels.directions import common_rows, directions
from koda_audit._kernels.rbf import scaled_points
from koda_audit._kernels.table import POWERS, no_bandwidth

ENTRIES = 2**25  # of the kernel matrix that are held at a time


@dataclass(frozen=True)
class Blocks:
    """``between(p, q)`` is the (a, b) matrix of K between ``points`` of a and of b samples, k(x, x) = 1."""

    points: tuple[Tensor, ...]  # (n, d) each
    between: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]

    @property
    def n(self) -> int:
        return len(self.points[0])

    def part(self, rows: Tensor) -> Tensor:
        """(m, m): K/n of some rows (m,) among each other; symmetric."""
        chosen = tuple(points[rows] for points in self.points)
        part = self.between(chosen, chosen)
        return (part + part.T).fill_diagonal_(2.0) / (2 * self.n)

    def coherences(self, x: Tensor) -> Tensor:
        """(T,): x'(K/n)x of each column of ``x`` (n, T), exact, in n^2 (d + T) products and no n x n matrix."""
        total = x.new_zeros(x.shape[1])
        for rows in torch.split(torch.arange(self.n, device=x.device), max(1, ENTRIES // self.n)):
            total += (x[rows] * (self.between(tuple(points[rows] for points in self.points), self.points) @ x)).sum(0)
        return total / self.n


def kernel_blocks(kernel: str, vectors: Mapping[str, Tensor], sigmas: Mapping[str, float]) -> Blocks:
    """The blocks of a kernel of ``table.KERNELS`` on modality -> (n, d) vectors.

    Raises:
        InputError: as the kernel's own Gram function does.

    >>> blocks = kernel_blocks("rbf", {"image": torch.tensor([[0.0], [2.0]])}, {"image": 1.0})
    >>> blocks.part(torch.arange(2)).round(decimals=6).tolist()
    [[0.5, 0.067668], [0.067668, 0.5]]
    """
    if kernel == "rbf":
        points = scaled_points(vectors, sigmas)
        # centred by the median, as in the Gram matrix: an offset would cost digits in the difference of squares
        return Blocks((points - points.median(dim=0).values,), _gaussian)
    no_bandwidth(kernel, sigmas)
    common_rows(vectors)
    degree, offset = POWERS[kernel]
    units = tuple(directions(values, name, offset) for name, values in vectors.items())
    return Blocks(units, lambda p, q: math.prod(a @ b.T for a, b in zip(p, q, strict=True)) ** degree)


def leading_spectrum(blocks: Blocks, seed: int = 0, count: int = 20) -> list[float]:
    """The largest eigenvalues of K/n, largest first, on at most 4,000 rows drawn with ``seed``."""
    rows = torch.arange(blocks.n)
    if blocks.n > ROWS:
        rows = torch.from_numpy(np.sort(np.random.default_rng(seed).choice(blocks.n, ROWS, replace=False)))
    part = (blocks.part(rows) * (blocks.n / len(rows))).cpu().numpy()
    return leading_eigenvalues(part, min(count, len(rows)))


def _gaussian(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
    (a,), (b,) = p, q
    squares = (a * a).sum(dim=1)[:, None] + (b * b).sum(dim=1)
    return torch.addmm(squares, a, b.T, alpha=-2).clamp_(min=0).div_(-2).exp_()
