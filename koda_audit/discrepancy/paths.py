"""Three ways to the same directions: kernel matrices, random features of all samples, or the features' Gram matrix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from koda_audit._arrays import Vectors, chosen
from koda_audit._contrast.operators import DensePair, FeaturePair, GramPair
from koda_audit._contrast.solve import Contrast, FewerDirections, solve_operators
from koda_audit._features.table import RANDOM_FEATURES
from koda_audit._kernels.table import KERNELS
from koda_audit._moments.moments import Moments
from koda_audit.errors import InputError

PATHS = ("dense", "sample", "reduced")
TOLERANCE = 1e-6  # of the residual in the subspace
CHUNK = 4096  # samples whose features are made at a time


@dataclass(frozen=True)
class Sides:
    """The two models on the same samples: "target" and "reference" -> modality -> (n, d), or -> widths."""

    vectors: Mapping[str, Mapping[str, Vectors]]
    sigmas: Mapping[str, Mapping[str, float]]
    kernel: str
    device: torch.device

    @property
    def n(self) -> int:
        return len(next(iter(self.vectors["target"].values())))


@dataclass(frozen=True)
class Goal:
    """What is asked of the solver: see ``find_discrepancies``. ``mixed`` is False for KODA's rule of the multiplier.

    ``rotation`` is what becomes of the directions afterwards.
    """

    epsilon: float | None
    quantile: float | None
    n_directions: int
    multiplier: float | None
    seed: int
    mixed: bool = True
    rotation: str = "none"


def solve(sides: Sides, goal: Goal, path: str, n_features: int) -> tuple[Contrast, float | None]:
    """Directions over the samples, with the coherences of the kernel that was used; and epsilon.

    Args:
        path: "dense", exact kernels, n x n matrices; "sample", random features of all samples; "reduced", the Gram
            matrix of random features, streamed, whatever the number of samples.
        n_features: frequencies r of a Gaussian kernel (2r columns a model), projections of any other.
    """
    if path == "dense":
        return _dense(sides, goal)
    features = _Features(sides, n_features, goal.seed)
    return _sample(features, goal) if path == "sample" else _reduced(features, goal)


def _dense(sides: Sides, goal: Goal) -> tuple[Contrast, float | None]:
    gram = KERNELS[sides.kernel].gram
    target, reference = (
        gram(chosen(sides.vectors[role], slice(None)), sides.sigmas[role]) for role in ("target", "reference")
    )
    goal = _with_quantile(goal, reference, sides.n)
    return _solve(DensePair(target, reference), goal), goal.epsilon


def _sample(features: _Features, goal: Goal) -> tuple[Contrast, float | None]:
    n = features.sides.n
    target, reference = (torch.cat(part) / n**0.5 for part in zip(*features.chunks(), strict=True))
    if goal.quantile is not None:
        width = reference.shape[1]
        # the same eigenvalues but for zeros
        goal = _with_quantile(goal, reference.T @ reference if width <= n else reference @ reference.T, width)
    return _solve(FeaturePair(target, reference), goal), goal.epsilon


def _reduced(features: _Features, goal: Goal) -> tuple[Contrast, float | None]:
    n, split = features.sides.n, features.maps["target"].width
    gram = Moments.of(torch.cat(both, dim=1) for both in features.chunks()).cross / n
    goal = _with_quantile(goal, gram[split:, split:], len(gram) - split)
    contrast = _within_span(GramPair(gram, split), goal)
    beyond = contrast is None
    if contrast is None:
        contrast = _solve(GramPair(gram, split, goal.n_directions), goal)
    coordinates = torch.from_numpy(contrast.directions).to(gram)
    inside, outside = coordinates[: len(gram)] / n**0.5, coordinates[len(gram) :]
    # into one tensor: small pieces between large chunks would keep the freed ones from going back to the system
    x = torch.empty((n, inside.shape[1]), dtype=torch.float64)
    for start, both in zip(range(0, n, CHUNK), features.chunks(), strict=True):
        x[start : start + CHUNK] = torch.cat(both, dim=1) @ inside
    if beyond:
        x += _orthogonal_to(features, gram, goal) @ outside.cpu()
    # lengths and angles in the span lose digits where the Gram matrix is nearly singular
    return replace(contrast, directions=torch.linalg.qr(x)[0].numpy()), goal.epsilon


def _within_span(pair: GramPair, goal: Goal) -> Contrast | None:
    """The directions, if those outside the span of the features, where both forms are 0, cannot change them.

    They cannot where x'Ax - lambda x'Bx, the leading eigenvalue of A - lambda B in the span, is positive.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewerDirections)
        try:
            contrast = _solve(pair, goal)
        except (InputError, FewerDirections):  # which may be otherwise outside
            return None
    leading = contrast.target - contrast.multiplier * contrast.reference
    return contrast if (leading > 0).all() else None


def _orthogonal_to(features: _Features, gram: Tensor, goal: Goal) -> Tensor:
    """(n, T) orthonormal columns that are orthogonal to all features, by two more passes."""
    n = features.sides.n
    random = np.random.default_rng([goal.seed, n]).standard_normal((n, goal.n_directions))
    columns, inverse = torch.from_numpy(random), torch.linalg.pinv(gram, hermitian=True)
    for _ in range(2):  # twice is enough: once leaves what rounding made of the large part
        starts = range(0, n, CHUNK)
        sums = sum(
            torch.cat(both, dim=1).T @ columns[start : start + CHUNK].to(gram) / n
            for start, both in zip(starts, features.chunks(), strict=True)
        )
        for start, both in zip(starts, features.chunks(), strict=True):
            columns[start : start + CHUNK] -= (torch.cat(both, dim=1) @ (inverse @ sums)).cpu()
        columns = torch.linalg.qr(columns)[0]
    return columns


def feature_width(kernel: str, n_features: int) -> int:
    """Columns of both models' features together."""
    return n_features * (4 if kernel == "rbf" else 2)


def _with_quantile(goal: Goal, reference: Tensor, count: int) -> Goal:
    """epsilon as the quantile that is asked for, of ``count`` eigenvalues: those of ``reference``, and zeros."""
    if goal.quantile is None:
        return goal
    eigenvalues = torch.linalg.eigvalsh(reference)
    eigenvalues = torch.cat([eigenvalues, eigenvalues.new_zeros(count - len(eigenvalues))]).clamp_min(0)
    return replace(goal, epsilon=torch.quantile(eigenvalues, goal.quantile).item())


def _solve(pair: DensePair | FeaturePair | GramPair, goal: Goal) -> Contrast:
    return solve_operators(
        pair, goal.epsilon, goal.n_directions, goal.multiplier, TOLERANCE, goal.seed, mixed=goal.mixed
    )


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
                device=sides.device,
            )
            for number, role in enumerate(("target", "reference"))
        }

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.sides.n, CHUNK):
            rows = slice(start, start + CHUNK)
            target, reference = (
                features(chosen(self.sides.vectors[role], rows)) for role, features in self.maps.items()
            )
            yield target, reference
