"""Three ways to the same directions: kernel matrices, random features of all samples, or the features' Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from koda_audit._contrast.operators import DensePair, FeaturePair, GramPair
from koda_audit._contrast.solve import Contrast, solve_contrast, solve_operators
from koda_audit._features.table import RANDOM_FEATURES
from koda_audit._kernels.table import KERNELS
from koda_audit._moments.moments import Moments

PATHS = ("dense", "sample", "reduced")
EXACT = 512  # samples; above, decompositions of whole matrices take many times longer than the subspace
TOLERANCE = 1e-6  # of the residual in the subspace
CHUNK = 4096  # samples whose features are made at a time


@dataclass(frozen=True)
class Sides:
    """The two models on the same samples: "target" and "reference" -> modality -> (n, d), or -> widths."""

    vectors: Mapping[str, Mapping[str, Tensor]]
    sigmas: Mapping[str, Mapping[str, float]]
    kernel: str

    @property
    def n(self) -> int:
        return len(next(iter(self.vectors["target"].values())))


@dataclass(frozen=True)
class Goal:
    """What is asked of the solver: see ``find_discrepancies``."""

    epsilon: float | None
    n_directions: int
    multiplier: float | None
    seed: int


def solve(sides: Sides, goal: Goal, path: str, n_features: int) -> Contrast:
    """Directions over the samples, with the coherences of the kernel that was used.

    Args:
        path: "dense", exact kernels, n x n matrices; "sample", random features of all samples; "reduced", the Gram
            matrix of random features, streamed, whatever the number of samples.
        n_features: frequencies r of a Gaussian kernel (2r columns a model), projections of any other.
    """
    if path == "dense":
        gram = KERNELS[sides.kernel].gram
        target, reference = (gram(sides.vectors[role], sides.sigmas[role]) for role in ("target", "reference"))
        if sides.n <= EXACT:
            return solve_contrast(target, reference, goal.epsilon, goal.n_directions, goal.multiplier)
        return _solve(DensePair(target, reference), goal)
    features = _Features(sides, n_features, goal.seed)
    if path == "sample":
        parts = list(features.chunks())
        return _solve(FeaturePair(*(torch.cat(part) / sides.n**0.5 for part in zip(*parts, strict=True))), goal)
    moments = Moments.of(torch.cat(both, dim=1) for both in features.chunks())
    contrast = _solve(GramPair(moments.cross / sides.n, features.split), goal)
    coordinates = torch.from_numpy(contrast.directions) / sides.n**0.5
    lifted = torch.cat([torch.cat(both, dim=1) @ coordinates for both in features.chunks()])
    return replace(contrast, directions=lifted.numpy())


def feature_width(kernel: str, n_features: int) -> int:
    """Columns of both models' features together."""
    return n_features * (4 if kernel == "rbf" else 2)


def _solve(pair: DensePair | FeaturePair | GramPair, goal: Goal) -> Contrast:
    return solve_operators(pair, goal.epsilon, goal.n_directions, goal.multiplier, TOLERANCE, goal.seed)


class _Features:
    """Random features of both models, chunk by chunk; the two draw from different streams."""

    def __init__(self, sides: Sides, n_features: int, seed: int) -> None:
        self.sides = sides
        self.maps = {
            role: RANDOM_FEATURES[sides.kernel](
                {name: values.shape[1] for name, values in sides.vectors[role].items()},
                sides.sigmas[role],
                n_features,
                2 * seed + number,
            )
            for number, role in enumerate(("target", "reference"))
        }
        self.split = self.maps["target"].width

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.sides.n, CHUNK):
            rows = slice(start, start + CHUNK)
            target, reference = (
                features({name: values[rows] for name, values in self.sides.vectors[role].items()})
                for role, features in self.maps.items()
            )
            yield target, reference
