"""Matrices of all pairs of samples, compared entry by entry: CKA with a Gaussian kernel, and RSA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from torch import Tensor

from koda_audit._similarity.distances import BLOCK, distance_rows
from koda_audit._similarity.protocol import Measure, Sides, scaled
from koda_audit.errors import InputError

EQUAL = 1e-12  # of the largest squared distance, below which two rows are equal
TIED = 12  # decimals: dissimilarities that agree in so many are equal, and rounding decides no rank


@dataclass(frozen=True, eq=False)
class PairMatrix:
    """Symmetric ``values`` (n, n) of which ``adjust`` has taken the mean away, and their Frobenius norm.

    ``adjust`` may write to what it is given. Done again to a part of what it returned, it gives what it would have
    given on that part of the original. ``order`` is how the samples stand; None: as in ``values``.
    """

    name: str
    values: Tensor
    adjust: Callable[[Tensor], Tensor]
    norm: float
    order: Tensor | None = None

    @classmethod
    def of(cls, name: str, values: Tensor, adjust: Callable[[Tensor], Tensor]) -> PairMatrix:
        adjusted = adjust(values)
        norm = float(torch.linalg.vector_norm(adjusted))
        if norm <= 1e-12 * len(values):
            raise InputError(
                f"all pairs of rows of {name} are equally far apart, or all but those that an interval leaves out: "
                "there is nothing to compare"
            )
        return cls(name, adjusted, adjust, norm)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Tensor) -> PairMatrix:
        rows = rows.to(self.values.device)
        if self.order is not None:
            rows = self.order[rows]
        if len(rows) == len(self):
            return replace(self, order=rows)
        return PairMatrix.of(self.name, self.values[rows[:, None], rows], self.adjust)

    def block(self, rows: slice) -> Tensor:
        return self.values[rows] if self.order is None else self.values[self.order[rows][:, None], self.order]


def cosine_of_matrices(pair: Sides) -> float:
    """<K, L> / (|K| |L|) over all entries."""
    left, right = pair.left, pair.right
    blocks = (slice(start, start + BLOCK) for start in range(0, len(left), BLOCK))
    total = sum(float((left.block(rows) * right.block(rows)).sum()) for rows in blocks)
    return float(total / left.norm / right.norm)


def gaussian_matrices(x: Tensor, y: Tensor) -> Sides:
    """Doubly centred exp(-|x_i - x_j|^2 / 2 sigma^2), sigma the median distance between two different rows, as
    Kornblith et al. (2019, sec 5) with the fraction 1; pairs of equal rows do not count. An interval keeps that sigma.
    """
    return Sides(*(PairMatrix.of(name, _gaussian(values), _doubly_centred) for name, values in (("x", x), ("y", y))))


def _gaussian(values: Tensor) -> Tensor:
    distances = _all_distances(scaled(values))
    pairs = squareform(distances.cpu().numpy(), checks=False)
    sigma = float(np.median(np.sqrt(pairs[pairs > EQUAL * pairs.max()]), overwrite_input=True))
    return distances.div_(-2 * sigma**2).exp_()


def _all_distances(points: Tensor) -> Tensor:
    """(n, n): squared; written row by row, so that it is in memory once."""
    distances = points.new_empty(len(points), len(points))
    for rows, part in distance_rows(points):
        distances[rows] = part
    return distances


def _doubly_centred(matrix: Tensor) -> Tensor:
    means = matrix.mean(dim=1)
    return matrix.sub_(means[:, None]).sub_(means).add_(means.mean())


def dissimilarity_ranks(x: Tensor, y: Tensor) -> Sides:
    """Ranks of 1 - Pearson correlation between rows, among all pairs of different rows; ties share their mean rank.

    Raises:
        InputError: a row whose entries are all equal; it has no correlation.
    """
    return Sides(
        *(PairMatrix.of(name, _dissimilarities(name, values), _ranks) for name, values in (("x", x), ("y", y)))
    )


def _dissimilarities(name: str, values: Tensor) -> Tensor:
    flat = (values == values[:, :1]).all(dim=1)
    if flat.any():
        row = int(flat.nonzero()[0, 0])
        raise InputError(f"row {row} of {name} is the same in all columns: rsa needs rows that vary over columns")
    rows = scaled(values)
    rows = torch.nn.functional.normalize(rows - rows.mean(dim=1, keepdim=True), eps=0.0)
    # of rows of length 1 the squared distance is 2 - 2 times the correlation
    return _all_distances(rows).round_(decimals=TIED)


def _ranks(matrix: Tensor) -> Tensor:
    ranks = rankdata(squareform(matrix.cpu().numpy(), checks=False))
    ranks -= ranks.mean()
    return torch.from_numpy(squareform(ranks))


cka_rbf = Measure(
    name="cka_rbf",
    meaning="alignment of Gaussian kernels as wide as the median distance",
    source="Kornblith et al. 2019 (ICML), sec 3 and 5",
    low=0.0,
    high=1.0,
    higher_is_similar=True,
    invariances=("orthogonal", "isotropic scaling", "translation", "permutation of columns"),
    cost="pairwise",
    prepare=gaussian_matrices,
    formula=cosine_of_matrices,
)

rsa = Measure(
    name="rsa",
    meaning="Spearman correlation of the dissimilarities (1 - correlation) between samples",
    source="Kriegeskorte, Mur and Bandettini 2008 (Front. Syst. Neurosci. 2:4)",
    low=-1.0,
    high=1.0,
    higher_is_similar=True,
    invariances=("isotropic scaling", "permutation of columns"),
    cost="pairwise",
    prepare=dissimilarity_ranks,
    formula=cosine_of_matrices,
)
