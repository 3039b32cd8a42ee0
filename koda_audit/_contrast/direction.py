"""One direction on the complement of the earlier ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from koda_audit._contrast.psd import ROUNDING, PositiveSemidefinite, leading_eigenpairs
from koda_audit._contrast.quotient import Optimum, maximise
from koda_audit.errors import InputError

LARGEST = 1e12  # multiplier of B's largest eigenvalue, in A's largest


class BelowFloor(InputError):
    """Nothing meets the constraint; ``floor`` is the least mean of x'Bx over ``count`` orthonormal vectors."""

    def __init__(self, epsilon: float, floor: float, count: int = 1) -> None:
        self.floor = floor
        which = "smallest eigenvalue" if count == 1 else f"mean of the {count} smallest eigenvalues"
        super().__init__(
            f"epsilon {epsilon!r} is below the smallest feasible value {floor!r}, the {which} of the reference matrix: "
            "give at least that"
        )


@dataclass(frozen=True)
class Direction:
    """``x`` (n,) of unit length with x'Ax, x'Bx, the multiplier and the duality gap, in the units of A and B."""

    x: Tensor
    target: float
    reference: float
    multiplier: float
    gap: float


def constrained(
    target: PositiveSemidefinite,
    reference: PositiveSemidefinite,
    epsilon: float,
    earlier: Tensor,
    mixed: bool = True,
) -> Direction:
    """max x'Ax  s.t.  x'Bx <= epsilon, |x| = 1, U'x = 0  (KODA, ICML 2026, arXiv 2606.04180, eq 8 and 12).

    The paper projects both matrices, P = I - UU' (Prop 4.2), and calls that equivalent. It is not where B is positive
    definite on the complement: both projected forms vanish on span(U), and weight put there relaxes the constraint.
    Here x = Zy with an orthonormal basis Z of the complement, which is exact.

    Args:
        target: A (n, n).
        reference: B (n, n).
        epsilon: not negative.
        earlier: (n, t) orthonormal columns U, t >= 0.
        mixed: see ``quotient.maximise``.

    Raises:
        BelowFloor: epsilon is below the smallest eigenvalue of Z'BZ.

    >>> from koda_audit._contrast.psd import positive_semidefinite
    >>> a, b = (
    ...     positive_semidefinite(torch.diag(torch.tensor(entries, dtype=torch.float64)), "A or B")
    ...     for entries in ([10.0, 0.001, 5.0], [0.3, 0.1, 0.2])
    ... )
    >>> found = constrained(a, b, 0.11, earlier=torch.eye(3, dtype=torch.float64)[:, 2:])
    >>> round(found.target, 9), round(found.reference, 9)  # projecting as in Prop 4.2 says 3.664
    (0.50095, 0.11)
    """
    basis = _complement(earlier)
    b, vectors = torch.linalg.eigh(_compress(reference.factor, basis))
    basis = basis @ vectors
    del vectors  # n x n, and the memory is needed below
    a = _compress(target.factor, basis)
    rounding = len(b) * ROUNDING * reference.scale
    b = torch.where(b <= rounding, 0.0, b)
    floor = b[0].item()
    if epsilon < floor - rounding:
        raise BelowFloor(epsilon, floor)
    # equal eigenvalues, as those of a multiple of the identity, differ by a few times what the bound for one of them is
    above = torch.where(b - floor <= 4 * rounding, 0.0, b - floor)
    room = epsilon - floor
    if room <= 4 * ROUNDING * reference.scale:
        room = 0.0  # a caller's own smallest eigenvalue: equal to ours up to rounding
    b_scale = above[-1].item() or 1.0
    a_scale = target.scale or 1.0
    found: Optimum = maximise(a.div_(a_scale), above / b_scale, room / b_scale, mixed)
    x = basis @ found.x
    return Direction(
        x=x / torch.linalg.vector_norm(x),
        target=found.value * a_scale,
        reference=(b * found.x * found.x).sum().item(),
        multiplier=found.multiplier * (a_scale / b_scale),
        gap=found.gap * a_scale,
    )


def penalised(
    target: PositiveSemidefinite, reference: PositiveSemidefinite, multiplier: float, count: int
) -> list[Direction]:
    """The leading eigenvectors of A - multiplier B: what direction 1 of KODA is at its own multiplier (Prop 4.1).

    Multiplier 1 gives SPEC (KODA, sec 1). They are orthogonal without any deflation; no constraint is imposed, and the
    gap is the eigenvalue minus (x'Ax - multiplier x'Bx), zero up to rounding.

    Raises:
        InputError: a multiplier that leaves less than four digits of A.

    >>> from koda_audit._contrast.psd import positive_semidefinite
    >>> a, b = (
    ...     positive_semidefinite(torch.diag(torch.tensor(entries, dtype=torch.float64)), "A or B")
    ...     for entries in ([3.0, 2.0, 1.0], [2.5, 0.2, 0.1])
    ... )
    >>> [round(found.target, 9) for found in penalised(a, b, 1.0, 2)]
    [2.0, 1.0]
    """
    if multiplier > LARGEST * (target.scale / reference.scale if reference.scale else math.inf):
        raise InputError(
            f"multiplier {multiplier!r} is so large that rounding leaves nothing of A, whose largest eigenvalue is "
            f"{target.scale:.3g} (of B {reference.scale:.3g}): give a smaller one, or epsilon"
        )
    scale = max(target.scale, multiplier * reference.scale) or 1.0
    values, vectors = leading_eigenpairs(target.matrix / scale - (multiplier / scale) * reference.matrix, count)
    found = []
    for value, x in zip((values * scale).tolist(), vectors.T, strict=True):
        held, kept = (x @ target.matrix @ x).item(), (x @ reference.matrix @ x).item()
        found.append(Direction(x, held, kept, multiplier, gap=max(value - held + multiplier * kept, 0.0)))
    return found


def _complement(earlier: Tensor) -> Tensor:
    n, t = earlier.shape
    if t == 0:
        return torch.eye(n, dtype=earlier.dtype, device=earlier.device)
    orthogonal: Tensor = torch.linalg.qr(earlier, mode="complete")[0]
    return orthogonal[:, t:]


def _compress(factor: Tensor, basis: Tensor) -> Tensor:
    """Z'F'FZ; from the factor, rounding in an entry is relative to its two columns: what is hardly held stays small."""
    part = factor @ basis
    return part.T @ part
