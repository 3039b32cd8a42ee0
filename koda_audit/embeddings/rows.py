"""Vectors that lie in several files, or in another order than they are wanted: read when they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from koda_audit.errors import InputError, StoreError

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class StoredArray:
    """A float32 .npy file, mapped only for as long as a read takes, so that its pages do not add up."""

    path: Path
    shape: tuple[int, ...]
    stamp: tuple[int, ...]  # of the file when it was verified

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Floats:
        """A copy of some rows.

        Raises:
            StoreError: the file is gone, or another one by now.
        """
        try:
            mapped: Floats = np.load(self.path, mmap_mode="r", allow_pickle=False)
            if stamp_of(self.path) != self.stamp or mapped.shape != self.shape:
                raise StoreError(f"{self.path} was written to after these embeddings were loaded: load them again")
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{self.path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        return np.array(mapped[rows])


def stamp_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Rows(NDArrayOperatorsMixin):
    """(n, d) vectors, in one or several parts, without a copy of the whole.

    A slice of rows or a list of their numbers gives an array of those; in any other use all are joined first, as if
    this were an array.

    Args:
        parts: (n_k, d) each.
        order: (n,) rows of the joined parts, in the order wanted; default all of them.

    >>> rows = Rows([np.zeros((2, 1)), np.ones((3, 1))]).take(np.array([4, 0, 2]))
    >>> len(rows), rows[:2].tolist(), (2 * rows).tolist()
    (3, [[1.0], [0.0]], [[2.0], [0.0], [2.0]])
    """

    def __init__(self, parts: Sequence[Vectors], order: NDArray[np.int64] | None = None) -> None:
        widths = {part.shape[1]: number for number, part in enumerate(parts)}
        if len(widths) != 1:
            listed = ", ".join(f"{width} columns (part {number})" for width, number in widths.items())
            raise InputError(f"vectors in parts must have one width, found {listed or 'no part'}")
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._order = order

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._order is None else len(self._order)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self._parts[0].shape[1]

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._parts[0].dtype

    def take(self, order: NDArray[np.int64]) -> Rows:
        """These rows in another order, or some of them; nothing is read."""
        order = np.asarray(order)
        if order.dtype.kind not in "iu" or (order.size and not 0 <= order.min() <= order.max() < len(self)):
            raise InputError(f"rows to take must be numbers from 0 to {len(self) - 1}")
        return Rows(self._parts, order if self._order is None else self._order[order])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.step in (None, 1):
            start, stop, _ = key.indices(len(self))
            return self._between(start, max(start, stop)) if self._order is None else self._gather(self._order[key])
        numbers = np.asarray(key) if isinstance(key, (list, np.ndarray)) else np.empty(())
        if numbers.ndim == 1 and numbers.dtype.kind == "i":
            numbers = np.where(numbers < 0, numbers + len(self), numbers)
            if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
                raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {len(self)}")
            return self._gather(numbers if self._order is None else self._order[numbers])
        return np.asarray(self)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        return np.asarray(self[:], dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:  # what torch.tensor(rows) and torch.as_tensor(rows) ask for
        return np.asarray(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self[:0].__dlpack_device__()  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(value, Rows) for value in options.get("out", ())):
            return NotImplemented  # what lies on disk is not changed
        joined = (np.asarray(value) if isinstance(value, Rows) else value for value in inputs)
        return getattr(ufunc, method)(*joined, **options)

    def _between(self, start: int, stop: int) -> Floats:
        pieces = [
            part[max(start - first, 0) : min(stop, last) - first]
            for part, first, last in zip(self._parts, self._starts, self._starts[1:], strict=False)
            if first < stop and start < last
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty((0, self.shape[1]), self.dtype)

    def _gather(self, rows: NDArray[np.int64]) -> Floats:
        gathered = np.empty((len(rows), self.shape[1]), self.dtype)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            gathered[mine] = self._parts[owner][rows[mine] - self._starts[owner]]
        return gathered


Vectors = Floats | StoredArray | Rows
