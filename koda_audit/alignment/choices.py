"""What is asked of the arguments of a fit, before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._options import LARGEST, finite_number, one_of, whole_number
from koda_audit.errors import InputError


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

    A float must be finite, and a seed not negative. Other kinds than bool, int, float, text, path and Literal, and what
    only a type checker can resolve, are left to the formula.

    >>> def fit(rows: Tensor, lam: float = 0.5, unit: Literal["raw", "unit"] = "raw") -> None: ...
    >>> check_kinds(fit, {"lam": 1, "unit": "unit"})
    """
    try:
        hints = get_type_hints(formula)
    except NameError:
        return
    for name, value in given.items():
        hint = hints.get(name, Any)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        if (value is None and type(None) in kinds) or str(value) in words:
            continue
        if bool in kinds and not isinstance(value, (bool, np.bool_)):
            raise InputError(f"{name} is {value!r}: expected true or false")
        if float in kinds:
            finite_number(value, name)
        elif int in kinds:
            whole_number(value, name, 0 if name == "seed" else -LARGEST)
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
