"""Whether the same samples lie near a sample in both representations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from koda_audit._similarity.distances import BLOCK, distance_rows
from koda_audit._similarity.protocol import Measure, Sides, scaled
from koda_audit.errors import InputError

K = 10  # Huh et al. 2024
TIED = 1e-12  # of the largest squared distance, up to which two are equal
SPARE = 20  # neighbours beyond 3 k, so that an interval can leave samples out without a new search


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """The ``nearest`` (n, m) samples of each, nearest first, m at least k, from ``points`` (n, d)."""

    points: Tensor
    nearest: Tensor
    k: int
    seed: int

    @classmethod
    def of(cls, points: Tensor, k: int, seed: int) -> Neighbourhoods:
        """Euclidean; ``seed`` decides among equally near ones, for each row anew."""
        n = len(points)
        if not 1 <= k < n:
            raise InputError(
                f"k is {k}, and {n} samples are left: neighbours are 1 to {n - 1}; give more samples, or another k"
            )
        generator = np.random.default_rng([seed, 3])
        found = []
        for rows, distances in distance_rows(points):
            noise = torch.from_numpy(generator.random(distances.shape)).to(distances.device)
            distances.add_(noise * (TIED * distances.max()))
            distances.diagonal(rows.start).fill_(torch.inf)  # none is its own neighbour
            found.append(distances.topk(min(3 * k + SPARE, n - 1), largest=False).indices)
        return cls(points, torch.cat(found), k, seed)

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: Tensor) -> Neighbourhoods:
        place = torch.full((len(self),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        nearest = place[self.nearest[rows]]
        if len(rows) < len(self):
            gone = nearest < 0
            left = int((~gone).sum(dim=1).min())
            if left < self.k:
                return Neighbourhoods.of(self.points[rows], self.k, self.seed)
            nearest = nearest.gather(1, gone.to(torch.int8).argsort(dim=1, stable=True)[:, :left])
        return replace(self, points=self.points[rows], nearest=nearest)

    @cached_property
    def local(self) -> Tensor:
        """(n, k): <x_i, x_j> less its mean over all j, for the k neighbours j of i."""
        return self.centred_products(self.nearest[:, : self.k])

    def centred_products(self, others: Tensor) -> Tensor:
        """(n, k) of ``others`` (n, k)."""
        shifted = self.points - self.points.mean(dim=0)
        blocks = zip(torch.split(self.points, BLOCK), torch.split(others, BLOCK), strict=True)
        return torch.cat([torch.einsum("id,ijd->ij", rows, shifted[columns]) for rows, columns in blocks])

    def shared(self, other: Neighbourhoods) -> Tensor:
        """(n, k): whether each of the k neighbours here is one there."""
        row = len(self) * torch.arange(len(self), device=self.points.device)[:, None]
        return torch.isin(row + self.nearest[:, : self.k], row + other.nearest[:, : self.k], assume_unique=True)


def neighbourhoods(x: Tensor, y: Tensor, *, k: Any = K) -> Sides:
    """The ``k`` nearest others of each row, in Euclidean distance.

    Both papers take rows of length 1, where that is the order of cosines: normalise first to compare with their
    numbers. Among equally near rows the choice is random, for each row anew and another for y than for x, so that rows
    which occur more than once (one prompt for all images of a class) agree no more often than chance has it; such a
    representation is not wholly like itself either.

    Raises:
        InputError: k is no whole number from 1 to n - 1.
    """
    if not isinstance(k, Integral) or isinstance(k, bool):
        raise InputError(f"k is {k!r}: expected a whole number of neighbours")
    return Sides(*(Neighbourhoods.of(scaled(values), int(k), seed) for seed, values in enumerate((x, y))))


def shared_neighbours(pair: Sides) -> float:
    """Mean share of the k nearest neighbours in x that are also among those in y (Huh et al. 2024, eq 11).

    For independent representations about k / (n - 1).
    """
    return float(pair.left.shared(pair.right).to(torch.float64).mean())


def local_alignment(pair: Sides) -> float:
    """Centred kernel alignment over pairs (i, j) where j is a neighbour of i in both (Huh et al. 2024, eqs 16 to 18).

        A(K, L) = sum over those (i, j) of (K_ij - mean_l K_il) (L_ij - mean_l L_il),    K = XX', L = YY'
        CKNNA = A(K, L) / sqrt(A(K, K) A(L, L))

    Each centred by its rows alone, as the paper writes it, so a shift of x matters; the authors' published code
    computes another number, the unbiased HSIC of both kernels with all other entries set to 0.
    """
    left, right = pair.left, pair.right
    shared = left.shared(right)
    together = left.local * right.centred_products(left.nearest[:, : left.k]) * shared
    return float(together.sum() / (left.local.norm() * right.local.norm()))


mutual_knn = Measure(
    name="mutual_knn",
    meaning="mean share of the k nearest neighbours that both have in common; chance is k / (n - 1)",
    source="Huh et al. 2024 (ICML), appendix A, eq 11",
    low=0.0,
    high=1.0,
    higher_is_similar=True,
    invariances=("orthogonal", "isotropic scaling", "translation", "permutation of columns"),
    cost="pairwise",
    prepare=neighbourhoods,
    formula=shared_neighbours,
)

cknna = Measure(
    name="cknna",
    meaning="alignment of inner products over the neighbours that both have in common",
    source="Huh et al. 2024 (ICML), appendix A, eqs 16 to 18",
    low=-1.0,
    high=1.0,
    higher_is_similar=True,
    invariances=("orthogonal", "isotropic scaling", "permutation of columns"),
    cost="pairwise",
    prepare=neighbourhoods,
    formula=local_alignment,
)
