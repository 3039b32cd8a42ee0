"""All directions at once: the subspace that one matrix holds and the other does not, at one price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from scipy.optimize import brentq
from torch import Tensor

from koda_audit._contrast.direction import LARGEST, BelowFloor, Direction
from koda_audit._contrast.psd import ROUNDING, PositiveSemidefinite, leading_eigenpairs

STEPS = 60  # of the search for the multiplier
CLOSE = 1e-10  # relative: a multiplier, or an epsilon that is met


@dataclass(frozen=True)
class _At:
    """The ``x`` (n, k) leading eigenvectors of A - multiplier B with their eigenvalues, and the mean x'Bx of the first
    ``count``."""

    multiplier: float
    values: Tensor
    x: Tensor
    mean: float


def block(
    target: PositiveSemidefinite, reference: PositiveSemidefinite, epsilon: float, count: int, most: int
) -> list[Direction]:
    """max tr X'AX  s.t.  tr X'BX <= count epsilon,  X'X = I  (n, count): KODA's eq 8 for a subspace (ours).

    By Fan's theorem the dual is d(lambda) = sum of the ``count`` largest eigenvalues of A - lambda B, plus lambda count
    epsilon, and X are the leading eigenvectors at the smallest lambda that is feasible. The subspace does not change
    under X -> XR. With ``count`` 1 this is KODA's first direction (ICML 2026, arXiv 2606.04180, eq 8 and 12). Where
    eigenvalues ``count`` and ``count`` + 1, or more, cross at that lambda, vectors of their span meet epsilon.

    Args:
        target: A (n, n).
        reference: B (n, n).
        epsilon: not negative; the mean of x'Bx over the directions.
        count: whose mean it is.
        most: directions that are wanted at that lambda, at least ``count``. With more, no pair is mixed, so that the
            first T columns are leading eigenvectors for each T.

    Returns:
        ``most`` directions, by falling eigenvalue of A - lambda B. ``gap`` is (d - tr X'AX) / count, the same for all.

    Raises:
        BelowFloor: epsilon is below the mean of the ``count`` smallest eigenvalues of B.

    >>> from koda_audit._contrast.psd import positive_semidefinite
    >>> a, b = (
    ...     positive_semidefinite(torch.diag(torch.tensor(entries, dtype=torch.float64)), "A or B")
    ...     for entries in ([4.0, 3.0, 2.0, 1.0], [3.0, 0.5, 0.3, 0.1])
    ... )
    >>> [round(found.target, 6) for found in block(a, b, 0.4, 2, 2)]
    [3.0, 2.0]
    """
    smallest = torch.linalg.eigvalsh(reference.matrix)[:count]
    floor = smallest.clamp_min(0).mean().item()
    if epsilon < floor - len(reference.matrix) * ROUNDING * reference.scale:
        raise BelowFloor(epsilon, floor, count)
    outside, inside = _bracket(target, reference, epsilon, count, most)
    x = inside.x
    if most == count and outside is not None and inside.mean < epsilon * (1 - CLOSE):
        x = _mixed(target.matrix, reference.matrix, outside.x, x, count * epsilon)
    held, kept = ((x * (part.matrix @ x)).sum(dim=0) for part in (target, reference))
    bound = inside.values[:count].sum().item() + inside.multiplier * count * epsilon
    gap = max(bound - held[:count].sum().item(), 0.0) / count
    return [
        Direction(x[:, number], held[number].item(), kept[number].item(), inside.multiplier, gap)
        for number in range(most)
    ]


def _bracket(
    target: PositiveSemidefinite, reference: PositiveSemidefinite, epsilon: float, count: int, most: int
) -> tuple[_At | None, _At]:
    """The largest multiplier known to be infeasible and the smallest known to be feasible, close to one another."""

    def at(multiplier: float) -> _At:
        values, x = leading_eigenpairs(target.matrix - multiplier * reference.matrix, most)
        first = x[:, :count]
        return _At(multiplier, values, x, (first * (reference.matrix @ first)).sum().item() / count)

    ends: dict[bool, _At] = {}

    @cache  # the search asks for its ends again
    def excess(multiplier: float) -> float:
        """How far epsilon is missed; the last points on both sides stay."""
        point = at(multiplier)
        ends[point.mean <= epsilon] = point
        return 0.0 if 0 <= epsilon - point.mean <= CLOSE * epsilon else point.mean - epsilon

    if excess(0.0) <= 0:
        return None, ends[True]
    unit = target.scale / reference.scale if target.scale else 1.0
    multiplier = unit
    while excess(multiplier) > 0:
        if multiplier >= LARGEST * unit:  # at the floor the multiplier is infinite
            return None, ends[False]
        multiplier = min(3 * multiplier, LARGEST * unit)
    # the mean falls steadily, with a jump where eigenvalues cross
    brentq(excess, ends[False].multiplier, multiplier, xtol=ROUNDING * unit, rtol=CLOSE, maxiter=STEPS, disp=False)
    return ends[False], ends[True]


def _mixed(a: Tensor, b: Tensor, outside: Tensor, inside: Tensor, level: float) -> Tensor:
    """``inside`` turned towards ``outside``, one principal vector after the other, until tr X'BX is ``level``.

    At a crossing the vectors in which they differ span one eigenspace of A - lambda B, any of which is as good.
    """
    left, _, right = torch.linalg.svd(inside.T @ outside)
    x: Tensor = inside @ left
    others = outside @ right.T
    for place in reversed(range(x.shape[1])):
        v = others[:, place]
        for _ in range(2):  # twice is enough: once leaves what rounding made of the large part
            v = v - x @ (x.T @ v)
        if torch.linalg.vector_norm(v) < math.sqrt(ROUNDING):
            break  # the rest is the same on both sides
        plane = torch.stack([x[:, place], v / torch.linalg.vector_norm(v)], dim=1)
        kept = plane.T @ b @ plane
        room = level - (x * (b @ x)).sum().item() + kept[0, 0].item()
        if kept[1, 1].item() <= room:
            x[:, place] = plane[:, 1]
            continue
        x[:, place] = _within(a, plane, kept, room)
        break
    return x


def _within(a: Tensor, plane: Tensor, kept: Tensor, room: float) -> Tensor:
    """The best unit vector of a plane (n, 2) with x'Bx = room, from B's form in the plane; or the first of both."""
    # u'Bu cos^2 + 2 u'Bv sin cos + v'Bv sin^2 = room is one cosine of the doubled angle
    middle, half = (kept[0, 0] + kept[1, 1]).item() / 2, (kept[0, 0] - kept[1, 1]).item() / 2
    size, phase = math.hypot(half, kept[0, 1].item()), math.atan2(kept[0, 1].item(), half)
    opening = math.acos(min(max((room - middle) / size, -1.0), 1.0)) if size else 0.0
    angles = ((phase + sign * opening) / 2 for sign in (-1, 1))
    mixtures = [plane @ plane.new_tensor([math.cos(angle), math.sin(angle)]) for angle in angles]
    return max([plane[:, 0], *mixtures], key=lambda x: (x @ a @ x).item())
