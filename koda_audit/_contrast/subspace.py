"""Contrast directions of large operators: one growing subspace, shared by all directions and multipliers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from koda_audit._contrast.direction import Direction
from koda_audit._contrast.operators import Pair
from koda_audit._contrast.psd import few_threads
from koda_audit.errors import InputError

LARGEST = 320  # columns before the basis is cut back to its best, or 8 times ``width``
KEPT = 4  # times ``width`` columns stay then
SOLVE_AGAIN = 1.4  # times the columns of the last solution
DEPENDENT = 1e-10  # part of a new column's squared length that must be new
STEPS = 200
LOOSE = 1e-2  # part of a value that the residual of a direction may be that is only tried
STEEPEST = 1e9  # multiplier that is looked for
WHOLE = 512  # coordinates up to which everything is solved at once, exact to rounding
RESCUE = 4096  # the same where the subspace does not converge: it takes minutes

Solve = Callable[[Tensor, Tensor, bool], tuple[list[Direction], bool]]


@dataclass
class _Basis:
    """Columns orthonormal in the pair's inner product, with their images."""

    vectors: Tensor
    target: Tensor
    reference: Tensor
    metric: Tensor
    # the largest squared length in M that a column of plain length 1 had
    largest: float = field(init=False, default=0.0)

    def form(self, images: Tensor) -> Tensor:
        form = self.metric.T @ images
        return (form + form.T) / 2

    def times(self, matrix: Tensor) -> _Basis:
        return self._of(part @ matrix for part in self._parts())

    def extended(self, pair: Pair, block: Tensor) -> _Basis:
        """With the columns of ``block`` added, as far as they are new."""
        for _ in range(2):  # twice is enough: once leaves what rounding made of the large part
            block = block - self.vectors @ (self.metric.T @ block)
            block = block / torch.linalg.vector_norm(block, dim=0).clamp_min(torch.finfo(block.dtype).tiny)
        added = _Basis(block, *pair.images(block))
        values, rotation = torch.linalg.eigh(added.form(added.vectors))
        new = values > DEPENDENT * max(values[-1].item(), self.largest)
        if not new.any():
            return self
        added = added.times(rotation[:, new] / values[new].sqrt())
        # the image of a nearly dependent column carries rounding along the basis: remove it, with images at hand
        overlap = self.metric.T @ added.vectors
        added = _Basis(*(mine - whole @ overlap for mine, whole in zip(added._parts(), self._parts(), strict=True)))
        lengths, rotation = torch.linalg.eigh(added.form(added.vectors))
        true = lengths > 0.5  # all were 1; what lost half of it was rounding
        added = added.times(rotation[:, true] / lengths[true].sqrt())
        whole = self._of(torch.cat(both, dim=1) for both in zip(self._parts(), added._parts(), strict=True))
        whole.largest = max(values[-1].item(), self.largest)
        return whole

    def _of(self, parts: Iterable[Tensor]) -> _Basis:
        basis = _Basis(*parts)
        basis.largest = self.largest
        return basis

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.vectors, self.target, self.reference, self.metric


def converge(
    pair: Pair,
    solve: Solve,
    width: int,
    tolerance: float,
    seed: int = 0,
    whole_up_to: int | None = None,
    sure: int | None = None,
) -> list[Direction]:
    """Directions of ``pair`` by Rayleigh-Ritz, until each residual is at most ``tolerance`` of the direction's value.

    The subspace starts at random and grows by A X and B X, X the current directions and the Ritz vectors beside them.
    That holds every residual (A - lambda B) x - nu x whatever the multiplier is, so one block product a step serves all
    directions, and multipliers are tuned on small dense problems alone, which ``solve`` does exactly (ours). The norm
    of a residual bounds the distance from nu to an eigenvalue of A - lambda B, and is added to the gap.

    Args:
        pair: the operators.
        solve: (a, b, whole) -> directions of two small matrices, and whether they are what is wanted or only what so
            young a subspace can give; ``whole`` says that a and b are A and B in full.
        width: columns that are carried beside each other, at least the number of directions.
        tolerance: of a residual's norm, relative to x'Ax.
        seed: of the start.
        whole_up_to: coordinates up to which there is no subspace, and everything is solved at once; default 512.
        sure: directions whose residual is held to ``tolerance``, the others' to .01; default all.

    Returns:
        The directions in the pair's coordinates and units, in order; each gap includes what the subspace cannot see.

    Raises:
        InputError: no convergence, or whatever ``solve`` raises.
    """
    empty = torch.empty((pair.size, 0), dtype=torch.float64, device=pair.device)
    nothing = _Basis(empty, empty, empty, empty)
    if pair.size <= max(WHOLE if whole_up_to is None else whole_up_to, 2 * width):
        return _whole(pair, nothing, solve)
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(pair.size, 2 * width, generator=generator, dtype=torch.float64)
    basis = nothing.extended(pair, block.to(pair.device))
    solved_at, small, multiplier, wanted, exhausted = 0, torch.empty(0), 0.0, False, False
    for _ in range(STEPS):
        a, b = basis.form(basis.target), basis.form(basis.reference)
        columns, solved = len(a), False
        whole = exhausted or columns == pair.size
        # the small problems are the cost: they are solved again only for a clearly larger subspace
        if whole or columns >= SOLVE_AGAIN * solved_at:
            (found, wanted), solved, solved_at = solve(a, b, whole), True, columns
            small = torch.stack([direction.x for direction in found], dim=1)
            # at the floor it is infinite; a large one asks the same of the subspace
            multipliers = a.new_tensor([direction.multiplier for direction in found]).clamp(max=STEEPEST)
            multiplier = multipliers.median().item()
        with few_threads(columns):
            beside = torch.linalg.eigh(a - multiplier * b)[1][:, -KEPT * width :].flip(1)
        if len(small) < columns:  # the directions of an earlier, smaller basis
            small = torch.nn.functional.pad(small, (0, 0, 0, columns - len(small)))
        chosen = torch.linalg.qr(torch.cat([small, beside], dim=1)[:, : min(KEPT * width, columns)])[0]
        if columns + 2 * width > max(LARGEST, 8 * width):
            basis, small = basis.times(chosen), chosen.T @ small
            chosen, columns = torch.eye(len(chosen.T)).to(chosen), len(chosen.T)
            solved_at = min(solved_at, columns)
        held, kept = basis.target @ chosen[:, :width], basis.reference @ chosen[:, :width]
        larger = basis if whole else basis.extended(pair, torch.cat([held, kept], dim=1))
        if solved and wanted:
            residual = basis.target @ small - multipliers * (basis.reference @ small)
            unseen = torch.linalg.vector_norm(larger.metric[:, columns:].T @ residual, dim=0)
            values = a.new_tensor([direction.target for direction in found])
            allowed = torch.full_like(values, max(tolerance, LOOSE))
            allowed[:sure] = tolerance
            if whole or bool((unseen <= allowed * values).all()):
                return [
                    replace(direction, x=x, gap=direction.gap + error)
                    for direction, x, error in zip(found, (basis.vectors @ small).T, unseen.tolist(), strict=True)
                ]
        basis, exhausted = larger, len(larger.vectors.T) == columns
    if pair.size <= RESCUE:
        return _whole(pair, nothing, solve)
    least = torch.linalg.eigvalsh(basis.form(basis.reference))[0].item()
    raise InputError(
        f"no convergence in {STEPS} block products, which found no direction whose value in the reference is below "
        f"{least:.3g}: give a larger epsilon, or fewer directions"
    )


def _whole(pair: Pair, nothing: _Basis, solve: Solve) -> list[Direction]:
    basis = nothing.extended(pair, torch.eye(pair.size, dtype=torch.float64, device=pair.device))
    found, _ = solve(basis.form(basis.target), basis.form(basis.reference), True)
    return [replace(direction, x=basis.vectors @ direction.x) for direction in found]
