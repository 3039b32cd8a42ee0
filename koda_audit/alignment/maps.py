"""The one form of all alignments: what happens to the rows of one side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from koda_audit.embeddings.rows import Floats, Rows
from koda_audit.errors import InputError

CHUNK = 4096  # rows that are float64 at a time
NO_LENGTH = 1e-12  # of a row made from unit rows: what rounding leaves of 0


@dataclass(frozen=True, eq=False)
class Step:
    """x -> (x - centre) matrix + offset, divided by its length where ``renormalise``; what is None is left out.

    Attributes:
        centre: (d,) float64.
        matrix: (d, e) float64.
        offset: (e,) float64.

    >>> Step(centre=torch.tensor([1.0, 0.0]), renormalise=True)(torch.tensor([[1.0, 2.0]])).tolist()
    [[0.0, 1.0]]
    """

    centre: Tensor | None = None
    matrix: Tensor | None = None
    offset: Tensor | None = None
    renormalise: bool = False

    def __call__(self, points: Tensor) -> Tensor:
        """Rows (n, d) to rows (n, e).

        Raises:
            InputError: a row that comes to lie at 0, and so has no direction.
        """
        if self.centre is not None:
            points = points - self.centre
            if self.offset is None:
                _lengths(points)
        if self.matrix is not None:
            points = points @ self.matrix
        if self.offset is not None:
            points = points + self.offset
        return unit_rows(points) if self.renormalise else points

    def width(self, width: int) -> int:
        """e of rows of ``width``.

        Raises:
            InputError: shapes that do not fit, dtypes other than float64, values that are not finite.
        """
        for name, ndim in (("centre", 1), ("matrix", 2), ("offset", 1)):
            tensor = getattr(self, name)
            if tensor is None:
                continue
            length = tensor.shape[0] if tensor.ndim == ndim else None
            if length != width or tensor.dtype != torch.float64 or not torch.isfinite(tensor).all():
                shape, dtype = tuple(tensor.shape), tensor.dtype
                raise InputError(f"{name} {shape} of {dtype} for rows of {width}: expected finite torch.float64")
            width = tensor.shape[-1]
        return width


@dataclass(frozen=True, eq=False)
class Residual:
    """x -> x + gelu(x inner + bias) outer, a small network beside the identity.

    Attributes:
        inner, bias, outer: (d, h), (h,) and (h, d) float64.

    >>> off = Residual(torch.ones(2, 3), torch.zeros(3), torch.zeros(3, 2))
    >>> off(torch.tensor([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    inner: Tensor
    bias: Tensor
    outer: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """Rows (n, d) to rows (n, d)."""
        return points + F.gelu(points @ self.inner + self.bias) @ self.outer

    def width(self, width: int) -> int:
        """d of rows of ``width``; raises InputError as ``Step.width`` does."""
        inside = Step(matrix=self.inner, offset=self.bias).width(width)
        if Step(matrix=self.outer).width(inside) != width:
            raise InputError(f"outer {tuple(self.outer.shape)} for rows of {width}: a residual keeps the width")
        return width


Map = tuple[Step | Residual, ...] | Tensor
"""Steps, which start from unit rows (none leaves the rows as they are), or the new (n, e) rows themselves."""

UNIT: Map = (Step(renormalise=True),)
Frame = Literal["first", "shared"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit formula returns for its two sides, images and texts or queries and gallery.

    ``frame`` is "first" where the second side is moved to where the first one lies, "shared" where both meet or stay in
    a common place. ``figures`` are what the fit measured, in plain JSON types; ``measured`` makes more of them from the
    rows of both sides as ``Alignment.apply`` returns them, in their dtype.
    """

    first: Map
    second: Map
    frame: Frame = "shared"
    figures: Mapping[str, Any] = field(default_factory=dict)
    measured: Callable[[Floats, Floats], Mapping[str, Any]] | None = None


def unit_rows(points: Tensor) -> Tensor:
    """Rows divided by their length.

    Raises:
        InputError: a row at 0.

    >>> unit_rows(torch.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    units: Tensor = points / _lengths(points)
    return units


def _lengths(points: Tensor) -> Tensor:
    """(n, 1); raises InputError for a row at 0."""
    lengths: Tensor = torch.linalg.vector_norm(points, dim=1, keepdim=True)
    short = lengths[:, 0] <= NO_LENGTH
    if short.any():
        row = int(short.nonzero()[0, 0])
        raise InputError(
            f"row {row} comes to lie at 0 and has no direction ({int(short.sum())} such rows): "
            "it equals what the alignment subtracts; fit on more varied samples"
        )
    return lengths


def float64_units(values: Floats | Rows) -> Tensor:
    """All rows at length 1, in float64: features kept in 16 bits are off in the fourth digit."""
    points = torch.from_numpy(np.array(values, dtype=np.float64))
    units: Tensor = points / torch.linalg.vector_norm(points, dim=1, keepdim=True)  # never 0 in ``Embeddings``
    return units


def mapped(values: Floats | Rows, how: Map, what: str) -> Floats | Rows:
    """The rows of one side after the map, in the dtype of ``values``; computed in float64, some rows at a time.

    Raises:
        InputError: a row that comes to lie at 0; the message says of ``what``.

    >>> mapped(np.array([[0.0, 2.0]], dtype=np.float32), UNIT, "text")
    array([[0., 1.]], dtype=float32)
    """
    if isinstance(how, Tensor):
        return how.numpy().astype(values.dtype)
    if not how:
        return values
    parts: list[Floats] = []
    for start in range(0, len(values), CHUNK):
        try:
            points = float64_units(values[start : start + CHUNK])
            for step in how:
                points = step(points)
        except InputError as error:
            raise InputError(f"{what} rows from {start} on: {error}") from error
        parts.append(points.numpy().astype(values.dtype))
    return np.concatenate(parts)


def check_map(how: Map, rows: int, width: int) -> None:
    """Raises InputError where a map does not fit ``rows`` rows of ``width``.

    >>> check_map((Step(matrix=torch.ones(3, 2, dtype=torch.float64)),), 5, 3)
    """
    if isinstance(how, Tensor):
        if how.ndim != 2 or len(how) != rows or how.dtype != torch.float64 or not torch.isfinite(how).all():
            raise InputError(f"new rows {tuple(how.shape)} of {how.dtype} for {rows} rows: expected torch.float64")
        return
    for step in how:
        width = step.width(width)


def renormalised(maps: Sequence[Map]) -> bool:
    """Whether all rows come out at length 1."""
    return all(not isinstance(how, Tensor) and bool(how) and _unit(how[-1]) for how in maps)


def _unit(step: Step | Residual) -> bool:
    return isinstance(step, Step) and step.renormalise
