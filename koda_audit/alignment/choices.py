"""What is asked of the arguments of a fit, before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._gap.translate import FARTHEST
from koda_audit._options import LARGEST, finite_number, one_of, whole_number
from koda_audit.errors import InputError


@dataclass(frozen=True)
class Range:
    """What a parameter may be, as a part of its annotation; without ``low`` itself where it is ``open``."""

    low: float
    high: float = math.inf
    open: bool = False


Size = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, open=True)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1, LARGEST)]
Far = Annotated[float, Range(-FARTHEST, FARTHEST)]  # of a shift, in units of what is shifted by


def whole(value: Any, name: str, high: int, why: str) -> int:
    """A whole number from 1 to ``high``; else an InputError that says ``why``.

    >>> whole(3, "k", 4, "the width")
    3
    """
    try:
        return whole_number(value, name, 1, high)
    except InputError as error:
        raise InputError(f"{error}, {why}") from None


def check_kinds(formula: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises InputError for values that the annotations of ``formula`` do not allow, before any work.

    A float must be finite, a number within its ``Range``, and a seed not negative. Other kinds than bool, int, float,
    text, path and Literal, and what only a type checker can resolve, are left to the formula.

    >>> def fit(rows: Tensor, lam: Size = 0.5, unit: Literal["raw", "unit"] = "raw") -> None: ...
    >>> check_kinds(fit, {"lam": 1, "unit": "unit"})
    """
    try:
        hints = get_type_hints(formula, include_extras=True)
    except NameError:
        return
    for name, value in given.items():
        hint = hints.get(name, Any)
        whole_hint = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        ranges = [part for kind in whole_hint if get_origin(kind) is Annotated for part in kind.__metadata__]
        kinds = tuple(kind.__origin__ if get_origin(kind) is Annotated else kind for kind in whole_hint)
        words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        if (value is None and type(None) in kinds) or str(value) in words:
            continue
        if bool in kinds and not isinstance(value, (bool, np.bool_)):
            raise InputError(f"{name} is {value!r}: expected true or false")
        bounds = next((part for part in ranges if isinstance(part, Range)), None)
        if float in kinds:
            bounds = bounds or Range(-math.inf)
            if finite_number(value, name, bounds.low, bounds.high) == bounds.low and bounds.open:
                raise InputError(f"{name} is {value!r}: expected a positive number")
        elif int in kinds:
            bounds = bounds or Range(0 if name == "seed" else -LARGEST, LARGEST)
            whole_number(value, name, int(bounds.low), int(bounds.high))
        elif {str, Path} & {*kinds}:
            if not isinstance(value, (str, Path)):
                raise InputError(f"{name} is {value!r}: expected a text")
        elif words:
            one_of(str(value), name, words)


def vector(values: Any, name: str, width: int) -> Tensor:
    """(width,) float64 of anything array-like; else an InputError.

    >>> vector([1, 2], "v", 2).tolist()
    [1.0, 2.0]
    """
    if np.ndim(values) != 1:
        raise InputError(f"{name} is no vector: expected {width} numbers, one a dimension")
    found = matrix(values[None] if hasattr(values, "ndim") else [values], name)[0]
    if len(found) != width:
        raise InputError(f"{name} has {len(found)} entries: expected {width}, one a dimension")
    return found


def one_width(first: Tensor, second: Tensor) -> int:
    """The width of both sides.

    Raises:
        InputError: they differ.
    """
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"both sides must have one width, found {first.shape[1]} and {second.shape[1]}: use 'cca', "
            "or 'ridge' with prior=0"
        )
    return int(first.shape[1])
