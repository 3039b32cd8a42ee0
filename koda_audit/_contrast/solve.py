"""The public solver: several contrast directions, one after the other."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._contrast.block import block as together
from koda_audit._contrast.direction import BelowFloor, Direction, constrained, penalised
from koda_audit._contrast.operators import Pair
from koda_audit._contrast.psd import PositiveSemidefinite, few_threads, positive_semidefinite
from koda_audit._contrast.subspace import RESCUE, converge
from koda_audit.errors import InputError, KodaAuditWarning

Floats = NDArray[np.float64]
BESIDE = 8  # Ritz vectors that are carried beside the directions
LARGEST = sys.float_info.max  # a whole number can be larger
FINEST = 1e-13  # epsilon below which only a decomposition of everything is exact enough
YIELD = 1.5  # times the smallest value that a young subspace can meet


class FewerDirections(KodaAuditWarning):
    """A later direction is infeasible, so there are fewer than were asked for."""


@dataclass(frozen=True)
class Contrast:
    """Contrast directions and what they reach, T of them, in order.

    Attributes:
        directions: (n, T) orthonormal columns x; the sign of a column means nothing.
        target: (T,) x'Ax.
        reference: (T,) x'Bx.
        multiplier: (T,) lambda, the price of the constraint; infinite where epsilon is the smallest feasible value.
        duality_gap: (T,) the best dual bound minus x'Ax: how far, at most, x is from the optimum; of a block that of
            the whole subspace, divided among its directions.
    """

    directions: Floats
    target: Floats
    reference: Floats
    multiplier: Floats
    duality_gap: Floats


def solve_contrast(
    A: Any,
    B: Any,
    epsilon: float | None = None,
    n_directions: int = 1,
    multiplier: float | None = None,
    block: bool = False,
) -> Contrast:
    """Directions that the target A holds and the reference B does not.

        max x'Ax   s.t.   x'Bx <= epsilon,   |x| = 1,   U'x = 0        U: the earlier directions

    Source: KODA, ICML 2026, arXiv 2606.04180, eq 8 and 12. Each direction is solved to the optimum of its dual,
    min over lambda >= 0 of lambda_max(A - lambda B) + lambda epsilon on the complement of U. Three places differ from
    the paper: U'x = 0 is imposed exactly (its Prop 4.2 projects, which can relax the constraint), a multiple leading
    eigenvalue is resolved (its Algorithm 1 returns a feasible but smaller value there), and the search runs in the
    ridge of a generalised eigenproblem instead of in lambda, which may be infinite.

    Args:
        A: (n, n) symmetric positive semidefinite, the target; anything array-like.
        B: (n, n) symmetric positive semidefinite, the reference.
        epsilon: the most that x'Bx may be, in the units of B.
        n_directions: T, at most n - 2: the dual has no gap only on a complement of three or more dimensions.
        multiplier: instead of epsilon, one fixed lambda for all directions: the leading eigenvectors of
            A - multiplier B, with no constraint on x'Bx (1.0 is SPEC).
        block: solve for all directions at once: max tr X'AX s.t. tr X'BX <= T epsilon, X'X = I, where epsilon bounds
            their mean (``block.block``; ours). The columns are eigenvectors; only their span is determined.

    Raises:
        InputError: matrices that are not finite, square, symmetric, positive semidefinite or of one size; a value out
            of range; both or neither of epsilon and multiplier; an epsilon that no unit vector meets (the message
            states the smallest one that is met).

    Warns:
        FewerDirections: a later direction is infeasible; the list ends before it.

    >>> found = solve_contrast(np.diag([10.0, 6.0, 1.0]), np.diag([8.0, 1.0, 0.1]), epsilon=4.0)
    >>> found.target.round(6).tolist(), found.multiplier.round(6).tolist(), (found.directions**2).round(6).T.tolist()
    ([7.714286], [0.571429], [[0.428571, 0.571429, 0.0]])
    """
    target, reference = _pair(A, B)
    n = len(target.matrix)
    check_settings(n, epsilon, n_directions, multiplier)
    with few_threads(n):
        if block and epsilon is not None:
            return _contrast(together(target, reference, float(epsilon), n_directions, n_directions))
        return _contrast(_in_order(target, reference, epsilon, n_directions, multiplier))


def solve_operators(
    pair: Pair,
    epsilon: float | None = None,
    n_directions: int = 1,
    multiplier: float | None = None,
    tolerance: float = 1e-4,
    seed: int = 0,
    mixed: bool = True,
    whole_up_to: int | None = None,
    block: int = 0,
) -> Contrast:
    """The same directions for matrices that are too large for ``solve_contrast``: see ``subspace.converge``.

    Args:
        pair: the operators; the directions come back in its coordinates, orthonormal in its inner product.
        epsilon: as in ``solve_contrast``.
        n_directions: as in ``solve_contrast``.
        multiplier: as in ``solve_contrast``.
        tolerance: of the residual, relative to x'Ax; the duality gap says what was reached.
        seed: of the subspace's start.
        mixed: False for KODA's own rule of the multiplier, see ``quotient.maximise``.
        whole_up_to: see ``subspace.converge``.
        block: the leading ``n_directions`` eigenvectors at the multiplier where the first ``block`` of them hold
            epsilon in the mean, see ``block.block``; 0: one after the other.

    Raises:
        InputError: as in ``solve_contrast``, or no convergence.

    >>> from koda_audit._contrast.operators import DensePair
    >>> a, b = (torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([10.0, 6.0, 1.0], [8.0, 1.0, 0.1]))
    >>> solve_operators(DensePair(a, b), epsilon=4.0).target.round(6).tolist()
    [7.714286]
    """
    check_settings(pair.size, epsilon, n_directions, multiplier)
    if epsilon is not None and epsilon < FINEST:
        whole_up_to = RESCUE  # a subspace does not find the null space of B
        if pair.size > RESCUE:
            raise InputError(f"epsilon is {epsilon!r} with {pair.size:,} coordinates: give at least {FINEST:g}")

    def solve(a: Tensor, b: Tensor, whole: bool) -> tuple[list[Direction], bool]:
        with few_threads(len(a)):
            return solved(a, b, whole)

    def solved(a: Tensor, b: Tensor, whole: bool) -> tuple[list[Direction], bool]:
        target, reference = positive_semidefinite(a, "A"), positive_semidefinite(b, "B")
        level = epsilon
        if epsilon is not None and not whole:
            # a young subspace may hold nothing that meets epsilon: take what it can give, and let it grow
            level = max(epsilon, YIELD * torch.linalg.eigvalsh(b)[min(n_directions, len(b) - 1)].item())
        if block and level is not None:
            count = min(block, len(a))
            return together(target, reference, level, count, min(n_directions, len(a))), level == epsilon
        return _in_order(target, reference, level, min(n_directions, len(a)), multiplier, mixed), level == epsilon

    with few_threads(pair.size):
        return _contrast(converge(pair, solve, n_directions + BESIDE, tolerance, seed, whole_up_to, sure=block or None))


def _in_order(
    target: PositiveSemidefinite,
    reference: PositiveSemidefinite,
    epsilon: float | None,
    n_directions: int,
    multiplier: float | None,
    mixed: bool = True,
) -> list[Direction]:
    if multiplier is not None:
        return penalised(target, reference, float(multiplier), n_directions)
    assert epsilon is not None
    found: list[Direction] = []
    earlier = target.matrix.new_zeros((len(target.matrix), 0))
    for number in range(n_directions):
        try:
            found.append(constrained(target, reference, float(epsilon), earlier, mixed))
        except BelowFloor as error:
            if not found:
                raise
            warnings.warn(
                f"{number} of {n_directions} directions: the next one needs epsilon of at least {error.floor!r}, "
                f"but epsilon is {float(epsilon)!r}",
                FewerDirections,
                stacklevel=3,
            )
            break
        earlier = torch.stack([direction.x for direction in found], dim=1)
    return found


def _pair(a: Any, b: Any) -> tuple[PositiveSemidefinite, PositiveSemidefinite]:
    target, reference = positive_semidefinite(a, "A"), positive_semidefinite(b, "B")
    if target.matrix.shape != reference.matrix.shape:
        raise InputError(f"A has {len(target.matrix)} rows and B has {len(reference.matrix)}: expected one size")
    if target.matrix.device != reference.matrix.device:
        raise InputError(f"A lies on {target.matrix.device} and B on {reference.matrix.device}: expected one device")
    return target, reference


def check_settings(n: int, epsilon: float | None, n_directions: int, multiplier: float | None) -> None:
    """Stop at a value that ``solve_contrast`` cannot take for ``n`` samples, before any matrix is made.

    Raises:
        InputError: the value is named, with its range.

    >>> check_settings(n=10, epsilon=0.1, n_directions=8, multiplier=None)
    """
    if not isinstance(n_directions, Integral) or isinstance(n_directions, bool) or n_directions < 1:
        raise InputError(f"n_directions is {n_directions!r}: expected a whole number of at least 1")
    if n < 3:
        raise InputError(f"{n} samples are too few: at least 3 are needed")
    if n - int(n_directions) < 2:
        raise InputError(
            f"n_directions is {n_directions} for {n} samples: at most n - 2 = {n - 2}, so that three dimensions are "
            "left for the last one"
        )
    if (epsilon is None) == (multiplier is None):
        raise InputError("give either epsilon (the most that x'Bx may be) or multiplier (a fixed lambda)")
    for name, value in (("epsilon", epsilon), ("multiplier", multiplier)):
        if value is None:
            continue
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= LARGEST:
            raise InputError(f"{name} is {value!r}: expected a finite number that is not negative")


def _contrast(found: list[Direction]) -> Contrast:
    return Contrast(
        directions=torch.stack([direction.x for direction in found], dim=1).cpu().numpy(),
        target=np.array([direction.target for direction in found]),
        reference=np.array([direction.reference for direction in found]),
        multiplier=np.array([direction.multiplier for direction in found]),
        duality_gap=np.array([direction.gap for direction in found]),
    )
