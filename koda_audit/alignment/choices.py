"""What is asked of the arguments of a fit, before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit.errors import InputError, unknown


def number(value: Any, name: str, low: float = -math.inf) -> float:
    """A finite real number, at least ``low``; else an InputError.

    >>> number(2, "lam", low=0)
    2.0
    """
    real = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not (math.isfinite(real) and real >= low):
        bound = "" if low == -math.inf else f" of at least {low:g}"
        raise InputError(f"{name}={value!r}: expected a finite number{bound}")
    return real


def whole(value: Any, name: str, high: int, why: str) -> int:
    """A whole number from 1 to ``high``; else an InputError that says ``why``.

    >>> whole(3, "k", 4, "the width")
    3
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= high:
        raise InputError(f"{name}={value!r}: expected a whole number from 1 to {high}, {why}")
    return int(value)


def check_kinds(method: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises InputError for a word where the default is a number, or true or false.

    >>> check_kinds("kuea", {"lr": 0.1, "kernel": "cosine"}, {"lr": 1, "kernel": "gaussian"})
    """
    for name, value in given.items():
        default = defaults.get(name)
        if isinstance(default, (bool, int, float)) and not isinstance(value, (bool, int, float)):
            expected = "true or false" if isinstance(default, bool) else "a number"
            spelled = value if isinstance(value, str) else json.dumps(value)
            raise InputError(f"{name}={spelled} of '{method}': expected {expected}")


def one_of(value: Any, name: str, choices: Iterable[str]) -> None:
    """Raises InputError for what is none of the choices.

    >>> one_of("raw", "unit", ("raw", "unit"))
    """
    if value not in (known := tuple(choices)):
        raise InputError(unknown(name, str(value), known))


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
