"""What a measure of similarity is.

A third party adds one by the entry-point group ``koda_audit.measures``; ours are registered the same way::

    [options.entry_points]
    koda_audit.measures =
        my_measure = my_package.my_module:my_measure
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor


class Prepared(Protocol):
    """Two representations of the same n samples, with all that is worth computing once."""

    def permuted(self, order: Tensor, /) -> Prepared:
        """With sample i of x paired with sample ``order[i]`` of y; ``order`` (n,) holds each number once."""

    def without(self, rows: Tensor, /) -> Prepared:
        """Of the samples that are not among ``rows`` (m,)."""


class Side(Protocol):
    """One representation, for a measure that can prepare each by itself."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor, /) -> Side:
        """Of these samples in this order, none of them twice; all n of them are a permutation."""


@dataclass(frozen=True)
class Rows:
    """The simplest side: ``values`` (n, d).

    >>> Rows(torch.arange(3.0)[:, None]).take(torch.tensor([2, 0])).values.tolist()
    [[2.0], [0.0]]
    """

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Tensor) -> Rows:
        return Rows(self.values[rows])


@dataclass(frozen=True)
class Sides:
    """``Prepared`` of two sides that do not know each other."""

    left: Any
    right: Any

    def permuted(self, order: Tensor) -> Sides:
        return Sides(self.left, self.right.take(order))

    def without(self, rows: Tensor) -> Sides:
        kept = torch.ones(len(self.left), dtype=torch.bool, device=rows.device)
        kept[rows] = False
        rest = kept.nonzero()[:, 0]
        return Sides(self.left.take(rest), self.right.take(rest))


Invariance = Literal["orthogonal", "isotropic scaling", "translation", "invertible linear", "permutation of columns"]


@dataclass(frozen=True)
class Measure:
    """One measure: what it means, and how it is computed in two steps.

    Measures with the same ``prepare`` share what it returns.

    Attributes:
        name: the same as that of the entry point.
        meaning: one line.
        source: paper and equation.
        low: least value that is possible, None where there is no limit.
        high: greatest value.
        higher_is_similar: whether a large value means that the two are alike.
        invariances: what changes nothing when done to the columns of x or y, each by itself.
        cost: "moments": sums over samples, n d^2. "pairwise": all pairs of samples, n^2 d, so at most 10,000 samples.
        prepare: (x, y) float64 tensors (n, d_x) and (n, d_y) -> Prepared. Its keyword-only arguments are the options
            of the measure. Raises InputError for what it cannot compare.
        formula: Prepared -> the value.
    """

    name: str
    meaning: str
    source: str
    low: float | None
    high: float | None
    higher_is_similar: bool
    invariances: tuple[Invariance, ...]
    cost: Literal["moments", "pairwise"]
    prepare: Callable[..., Prepared]
    formula: Callable[[Any], float]


def scaled(values: Tensor) -> Tensor:
    """Divided by the largest absolute entry, so that no product over- or underflows; all zeros stay.

    >>> scaled(torch.tensor([[1e200], [-2e200]], dtype=torch.float64)).tolist()
    [[0.5], [-1.0]]
    """
    largest = values.abs().max()
    return values / largest if largest > 0 else values
