"""What is asked of an option, whoever takes it: numbers, lists and names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from koda_audit.errors import InputError, unknown

LARGEST = 2**32 - 1  # a seed of scikit-learn


def whole_number(value: Any, name: str, least: int = 0, most: int | None = LARGEST) -> int:
    """A whole number from ``least`` to ``most``, by default those that a seed can be; else an InputError.

    >>> whole_number(3, "seed")
    3
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        raise InputError(f"{name} is {value!r}: expected a whole number from {least}{_upper(most)}")
    return int(value)


def finite_number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite real number from ``low`` to ``high``; else an InputError.

    >>> finite_number(2, "lam", low=0)
    2.0
    """
    try:
        real = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number beyond all floats
        real = math.inf
    if not (math.isfinite(real) and low <= real <= high):
        bounds = f"number from {low:g}{_upper(None if high == math.inf else high)}"
        raise InputError(f"{name} is {value!r}: expected a {'finite number' if low == -math.inf else bounds}")
    return real


def several(values: Any, name: str) -> tuple[Any, ...]:
    """Whatever can be gone through, a generator too, but no text; else an InputError.

    >>> several(range(2), "alphas")
    (0, 1)
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InputError(f"{name} is {values!r}: expected a list")
    return tuple(values)


def one_of(value: Any, name: str, choices: Iterable[str]) -> None:
    """Raises InputError for what is none of the choices, near matches first.

    >>> one_of("raw", "unit", ("raw", "unit"))
    """
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise InputError(unknown(name, value, known))


def _upper(most: float | None) -> str:
    return "" if most is None else f" to {most:g}" if isinstance(most, float) else f" to {most}"
