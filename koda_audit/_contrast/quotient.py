"""One direction where B is diagonal and its smallest eigenvalue is zero: a search over regularised quotients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from koda_audit._contrast.mixing import mix, plane_multiplier
from koda_audit._contrast.psd import ROUNDING, leading_eigenpairs

CERTIFIED = 1e-11  # duality gap at which the search stops, relative to the optimum
UNMIXED = 1e-8  # the same where only leading eigenvectors count, which approach the level from one side
NEGLIGIBLE = 1e-6  # optima below this part of the largest eigenvalue of A are resolved in absolute terms
WEAKEST, STRONGEST = 1e-18, 1e38  # finite ends of the search for mu; beyond them both limits are reached in float64


@dataclass(frozen=True)
class Optimum:
    """``x`` (m,), x'Ax, the multiplier of the constraint, and the best dual bound minus x'Ax."""

    x: Tensor
    value: float
    multiplier: float
    gap: float


@dataclass(frozen=True)
class _Trial:
    mu: float
    x: Tensor
    level: float
    multiplier: float
    bound: float


def maximise(a: Tensor, d: Tensor, level: float, mixed: bool = True) -> Optimum:
    """max x'Ax  s.t.  x'Dx <= level, |x| = 1, exactly up to rounding.

    The dual, min over lambda >= 0 of lambda_max(A - lambda D) + lambda level, has no gap in three or more dimensions
    (Brickman 1961: the joint range of two quadratic forms on the sphere is convex), and its maximisers are leading
    eigenvectors of A - lambda D (KODA, arXiv 2606.04180, Prop 4.1). Ours is the variable: with lambda = nu mu, where nu
    is the leading eigenvalue,

        (A - nu mu D) x = nu x    <=>    S A S z = nu z,    S = (1 + mu D)^(-1/2),    x = S z / |S z|,

    so x also maximises the quotient x'Ax / (1 + mu x'Dx). S A S stays well scaled as lambda grows without limit
    (level close to zero), and the error of its leading eigenpair is relative to nu, not to lambda. x'Dx falls as mu
    grows. Every trial gives the bound nu (1 + mu level) on the optimum, so the search ends with a certificate.

    Args:
        a: (m, m) positive semidefinite, scaled so that the largest eigenvalue is about 1.
        d: (m,) not negative, smallest 0, scaled so that the largest is 1 (or all zero).
        level: not negative; 0 asks for the null space of D, where the multiplier is infinite.
        mixed: False for the rule of KODA's Algorithm 1, the best feasible leading eigenvector: less than the optimum
            where that eigenvalue is multiple, by the gap that is returned.

    >>> a = torch.diag(torch.tensor([1.0, 0.6, 0.1], dtype=torch.float64))
    >>> found = maximise(a, torch.tensor([1.0, 0.1, 0.0], dtype=torch.float64), level=0.5)
    >>> round(found.value, 9), round(found.multiplier, 9), found.gap < 1e-11
    (0.777777778, 0.444444444, True)
    """
    unconstrained = _unconstrained(a, d)
    top = unconstrained.bound
    if unconstrained.level <= level or top <= len(d) * ROUNDING:
        x = unconstrained.x if unconstrained.level <= level else _within_null_space(a, d)
        value = (x @ a @ x).item()
        return Optimum(x, value, 0.0, max(top - value, 0.0))
    floor = _within_null_space(a, d)
    if level == 0:
        return Optimum(floor, (floor @ a @ floor).item(), math.inf, 0.0)

    outside, inside = unconstrained, _Trial(math.inf, floor, 0.0, math.inf, math.inf)
    best = outside
    widths = [math.inf, math.inf]
    while True:
        x, value = mix(a, d, level, inside.x, outside.x)
        reached = value if mixed else (inside.x @ a @ inside.x).item()
        if best.bound - reached <= (CERTIFIED if mixed else UNMIXED) * max(reached, NEGLIGIBLE):
            break
        low, high = max(outside.mu, WEAKEST), min(inside.mu, STRONGEST)
        if high <= low * (1 + 2 * ROUNDING):
            break
        widths.append(math.log(high / low))
        middle = math.sqrt(low) * math.sqrt(high)
        # the multiplier of the plane converges fast on both smooth and kinked duals; halving guards it
        stalled = widths[-1] > widths[-3] / 2
        mu = middle if stalled else _mu_of_plane(a, d, level, x, value, outside.x, inside.x)
        trial = _trial(a, d, level, mu if low < mu < high else middle)
        if trial.bound < best.bound:
            best = trial
        if trial.level > level:
            outside = trial
        else:
            inside = trial
        if not low < trial.mu < high:
            break
    if mixed:
        return Optimum(x, value, best.multiplier, max(best.bound - value, 0.0))
    return Optimum(inside.x, reached, inside.multiplier, max(best.bound - reached, 0.0))


def _trial(a: Tensor, d: Tensor, level: float, mu: float) -> _Trial:
    s = (1 + mu * d).rsqrt()
    values, vectors = leading_eigenpairs(a * s[:, None] * s)
    nu, x = values[0].item(), s * vectors[:, 0]
    x = x / torch.linalg.vector_norm(x)
    return _Trial(mu, x, (d * x * x).sum().item(), nu * mu, nu * (1 + mu * level))


def _unconstrained(a: Tensor, d: Tensor) -> _Trial:
    """Of the leading eigenvectors of A the one with the smallest x'Dx."""
    values, vectors = torch.linalg.eigh(a)
    top = values[-1].item()
    leading = vectors[:, values >= top - len(d) * ROUNDING * max(top, 0.0)]
    _, inner = torch.linalg.eigh((leading * d[:, None]).T @ leading)
    x = leading @ inner[:, 0]
    return _Trial(0.0, x, (d * x * x).sum().item(), 0.0, top)


def _within_null_space(a: Tensor, d: Tensor) -> Tensor:
    null = (d == 0).nonzero()[:, 0]
    x = torch.zeros_like(d)
    x[null] = leading_eigenpairs(a[null][:, null])[1][:, 0]
    return x


def _mu_of_plane(a: Tensor, d: Tensor, level: float, x: Tensor, value: float, *ends: Tensor) -> float:
    """mu = lambda / nu of ``x`` within the plane; the end that is farther from ``x`` spans it better."""
    other = min(ends, key=lambda end: abs((end @ x).item()))
    multiplier = plane_multiplier(a, d, x, other)
    nu = value - multiplier * level
    return multiplier / nu if nu > 0 else math.nan
