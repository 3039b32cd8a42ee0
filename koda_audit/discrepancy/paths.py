"""Three ways to the same directions: kernel matrices, random features of all samples, or the features' Gram matrix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from koda_audit._arrays import Vectors, chosen
from koda_audit._contrast.direction import BelowFloor
from koda_audit._contrast.operators import DensePair, FeaturePair, GramPair
from koda_audit._contrast.solve import Contrast, FewerDirections, solve_operators
from koda_audit._kernels.table import KERNELS, kernel_blocks
from koda_audit._moments.moments import Moments, full_float32
from koda_audit.errors import InputError

PATHS = ("dense", "sample", "reduced")
ROLES = ("target", "reference")
Side = TypeVar("Side")
TOLERANCE = 1e-4  # of the residual in the subspace: the gap is a hundred times smaller, and groups change beyond 1e-2
CLOSE = 1e-6  # relative: epsilon is the smallest feasible value, as a caller may have rounded it
CHUNK = 4096  # samples whose features are made at a time


def swapped(models: Mapping[str, Side]) -> dict[str, Side]:
    """What is the target's as the reference's, and the other way round."""
    return {"target": models["reference"], "reference": models["target"]}


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

    def swapped(self) -> Sides:
        return replace(self, vectors=swapped(self.vectors), sigmas=swapped(self.sigmas))


@dataclass(frozen=True)
class Plan:
    """What is asked of the solver, and by which path: see ``find_discrepancies``.

    Attributes:
        path: one of ``PATHS``.
        epsilon: or ``quantile`` of the reference's eigenvalues, or ``multiplier``; ``rule`` says where epsilon is from.
        n_directions: columns that are sought.
        block: how many of them hold epsilon in the mean; with 0 each holds it, one after the other.
        n_features: frequencies r of a Gaussian kernel (2r columns a model), projections of any other.
        mixed: False for KODA's rule of the multiplier.
    """

    path: str
    epsilon: float | None
    quantile: float | None
    multiplier: float | None
    rule: str | None
    n_directions: int
    block: int
    n_features: int
    seed: int
    mixed: bool


@dataclass(frozen=True)
class Operators:
    """The kernels of both models over all samples, as the solver takes them, and what makes their random features."""

    pair: DensePair | FeaturePair | GramPair
    features: Features | None = None

    @classmethod
    def of(cls, sides: Sides, plan: Plan) -> Operators:
        """By the path of the plan: the passes over all samples."""
        if plan.path == "dense":
            kernels = (kernel_blocks(sides.kernel, sides.vectors[role], sides.sigmas[role]).matrix() for role in ROLES)
            return cls(DensePair(*kernels))
        features, n = Features(sides, plan.n_features, plan.seed), sides.n
        if plan.path == "sample":
            return cls(
                FeaturePair(*(torch.cat(part) / n**0.5 for part in zip(*features.chunks(), strict=True))), features
            )
        # products in float32 are off by 1e-7, and random features by 1e-2; where torch may round further, in float64
        products = torch.float32 if full_float32() else torch.float64
        gram = Moments.of((torch.cat(both, dim=1) for both in features.chunks()), products).cross / n
        return cls(GramPair(gram, features.maps["target"].width), features)

    def swapped(self) -> Operators:
        """For the groups of the other model, with nothing computed again."""
        if isinstance(self.pair, GramPair):
            return replace(self, pair=replace(self.pair, reverse=not self.pair.reverse))
        return replace(self, pair=replace(self.pair, target=self.pair.reference, reference=self.pair.target))


def solve(operators: Operators, plan: Plan) -> tuple[Contrast, Plan]:
    """Directions over the samples, with the coherences of the kernel that was used; and the plan, with epsilon as used.

    "dense" takes exact kernels, n x n matrices; "sample" random features of all samples; "reduced" the Gram matrix of
    random features, streamed, whatever the number of samples.
    """
    pair = operators.pair
    if isinstance(pair, DensePair):
        plan = _feasible(_with_quantile(plan, pair.reference, pair.size), pair)
        return _solve(pair, plan), plan
    if isinstance(pair, FeaturePair):
        reference = pair.reference
        width = reference.shape[1]
        if plan.quantile is not None:
            # the same eigenvalues but for zeros
            plan = _with_quantile(
                plan, reference.T @ reference if width <= pair.size else reference @ reference.T, width
            )
        plan = _feasible(plan, pair)
        return _solve(pair, plan), plan
    assert operators.features is not None
    return _reduced(pair, operators.features, plan)


def _feasible(plan: Plan, pair: DensePair | FeaturePair) -> Plan:
    """With epsilon as the search can meet it: raised to the smallest feasible value where rounding has put it below.

    The smallest eigenvalues are at most 1/n in the mean, as the trace is 1: only below that they are computed.

    Raises:
        BelowFloor: before the search, for an epsilon that the reference cannot meet.
    """
    n, count, reference = pair.size, max(plan.block, 1), pair.reference
    if plan.epsilon is None or plan.multiplier is not None or plan.epsilon >= 1 / n:
        return plan
    if n >= reference.shape[1] + count:  # so many directions are orthogonal to all features
        return plan
    matrix = reference if isinstance(pair, DensePair) else reference @ reference.T
    smallest = scipy.linalg.eigvalsh(matrix.cpu().numpy(), subset_by_index=[0, count - 1], check_finite=False)
    floor = float(smallest.clip(min=0).mean())
    if plan.epsilon < floor * (1 - CLOSE):
        raise BelowFloor(plan.epsilon, floor, count)
    return replace(plan, epsilon=max(plan.epsilon, floor))


def _reduced(pair: GramPair, features: Features, plan: Plan) -> tuple[Contrast, Plan]:
    n, gram = features.sides.n, pair.gram
    plan = _with_quantile(plan, pair.reference(), len(pair.reference()))
    contrast = _within_span(pair, plan)
    beyond = contrast is None
    if contrast is None:
        contrast = _solve(replace(pair, spare=plan.n_directions), plan)
    coordinates = torch.from_numpy(contrast.directions).to(gram)
    inside, outside = coordinates[: len(gram)] / n**0.5, coordinates[len(gram) :]
    # into one tensor: small pieces between large chunks would keep the freed ones from going back to the system
    x = torch.empty((n, inside.shape[1]), dtype=torch.float64)
    for start, both in zip(range(0, n, CHUNK), features.chunks(), strict=True):
        x[start : start + CHUNK] = torch.cat(both, dim=1) @ inside
    if beyond:
        x += _orthogonal_to(features, gram, plan) @ outside.cpu()
    # lengths and angles in the span lose digits where the Gram matrix is nearly singular
    return replace(contrast, directions=torch.linalg.qr(x)[0].numpy()), plan


def _within_span(pair: GramPair, plan: Plan) -> Contrast | None:
    """The directions, if those outside the span of the features, where both forms are 0, cannot change them.

    They cannot where x'Ax - lambda x'Bx, the leading eigenvalue of A - lambda B in the span, is positive.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewerDirections)
        try:
            contrast = _solve(pair, plan)
        except (InputError, FewerDirections):  # which may be otherwise outside
            return None
    leading = contrast.target - contrast.multiplier * contrast.reference
    return contrast if (leading > 0).all() else None


def _orthogonal_to(features: Features, gram: Tensor, plan: Plan) -> Tensor:
    """(n, T) orthonormal columns that are orthogonal to all features, by two more passes."""
    n = features.sides.n
    random = np.random.default_rng([plan.seed, n]).standard_normal((n, plan.n_directions))
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
    return 2 * n_features * KERNELS[kernel].columns


def _with_quantile(plan: Plan, reference: Tensor, count: int) -> Plan:
    """epsilon as the quantile that is asked for, of ``count`` eigenvalues: those of ``reference``, and zeros."""
    if plan.quantile is None:
        return plan
    eigenvalues = torch.linalg.eigvalsh(reference)
    eigenvalues = torch.cat([eigenvalues, eigenvalues.new_zeros(count - len(eigenvalues))]).clamp_min(0)
    return replace(plan, epsilon=torch.quantile(eigenvalues, plan.quantile).item())


def _solve(pair: DensePair | FeaturePair | GramPair, plan: Plan) -> Contrast:
    return solve_operators(
        pair,
        plan.epsilon,
        plan.n_directions,
        plan.multiplier,
        TOLERANCE,
        plan.seed,
        mixed=plan.mixed,
        block=plan.block,
    )


class Features:
    """Random features of both models, chunk by chunk; the two draw from different streams."""

    def __init__(self, sides: Sides, n_features: int, seed: int) -> None:
        self.sides = sides
        self.maps = {
            role: KERNELS[sides.kernel].features(
                {name: values.shape[1] for name, values in sides.vectors[role].items()},
                sides.sigmas[role],
                n_features,
                2 * seed + number,
                device=sides.device,
            )
            for number, role in enumerate(ROLES)
        }

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.sides.n, CHUNK):
            rows = slice(start, start + CHUNK)
            target, reference = (
                features(chosen(self.sides.vectors[role], rows)) for role, features in self.maps.items()
            )
            yield target, reference
