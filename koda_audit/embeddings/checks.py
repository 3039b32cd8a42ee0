"""What is asked of the arrays of ``Embeddings``: the one place where foreign types come in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from koda_audit._host_arrays import host_array
from koda_audit.embeddings.rows import Floats, Rows
from koda_audit.errors import DataError, InputError

SMALLEST = 1e-290  # squared length that still has all its digits
CHUNK = 4096  # rows that are checked at a time


def matrix(values: Any, name: str) -> Floats | Rows:
    """Anything array-like as (rows, width) of float32 or float64; ``Rows`` as they are.

    Raises:
        InputError: no matrix of real numbers, or an empty one.
    """
    if isinstance(values, Rows):
        return values
    array = host_array(values, name, "is no matrix of numbers")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {array.dtype}: expected real numbers")
    if array.dtype not in (np.float32, np.float64):
        with np.errstate(over="ignore"):  # what a wider float has beyond float64 is found by ``check_rows``
            array = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}: expected (rows, width), neither of them 0")
    return array


def listed(values: Any, name: str) -> tuple[Any, ...]:
    """Any sequence but a text; else an InputError."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} is of type {type(values).__name__}: expected one text a row")
    return tuple(values)


def texts(values: Any, name: str) -> tuple[str, ...]:
    """A sequence of texts that can be written to a file; else an InputError."""
    for row, text in enumerate(found := listed(values, name)):
        if not isinstance(text, str):
            raise InputError(f"{name} must be texts: entry {row} is of type {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{name}: entry {row} is {text!r}, which no file can hold ({error.reason})") from error
    return found


def whole_numbers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    """Whole numbers of any dtype and shape; else an InputError."""
    array = host_array(values, name, "must be whole numbers")
    with np.errstate(invalid="ignore"):  # what is no number is found below
        whole: NDArray[np.int64] = array.astype(np.int64) if array.dtype.kind in "iubf" else np.empty(0, np.int64)
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and (array == whole).all()):
        raise InputError(f"{name} must be whole numbers, found {array.dtype}")
    return whole


def check_rows(array: Floats | Rows, names: Sequence[str], what: str) -> None:
    """Raise DataError for the first row that is zero or not finite, under its name."""
    # the sum of squares is zero for a zero row and not finite for a bad one: one pass, no temporary of the full size
    squares = np.concatenate(
        [_squares(np.asarray(array[start : start + CHUNK])) for start in range(0, len(array), CHUNK)]
    )
    bad = ~np.isfinite(squares) | (squares < SMALLEST)
    if bad.any():
        row = int(np.argmax(bad))
        small = "all zero" if not np.any(array[row : row + 1]) else "too small: its squared length has no digits"
        large = "too large: its squared length overflows" if np.isfinite(array[row]).all() else "not finite"
        fault = small if squares[row] < SMALLEST else large
        raise DataError(
            f"the {what} embedding of sample '{names[row]}' is {fault} ({int(bad.sum())} such rows): "
            "check the sample, or the model's dtype"
        )


def _squares(rows: Floats) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return squares
