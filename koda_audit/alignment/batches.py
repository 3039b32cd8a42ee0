"""Which samples each training step sees: a pure function of seed and step, so that a resumed run needs no state."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from koda_audit.errors import InputError

SHARE = 0.5  # of a batch that comes from the focus; the other half keeps what is known (ours)


class Batches:
    """Batches of rows without replacement: each pass takes all rows once, in another order, and drops an unfilled rest.

    With a ``focus``, such as the samples that discrepancy analysis found, ``share`` of every batch comes from it and
    the rest from all other rows, so that no sample is twice in a batch.

    Args:
        n: rows in all.
        size: rows a batch, from 2.
        seed: of the order.
        focus: rows, or None.
        share: in 0..1.

    Raises:
        InputError: a size or share that cannot be drawn.

    >>> batches = Batches(6, 2, seed=0)
    >>> sorted(row for step in range(3) for row in batches(step).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    def __init__(self, n: int, size: int, seed: int, focus: ArrayLike | None = None, share: float = SHARE) -> None:
        if not 2 <= size <= n:
            raise InputError(f"batch={size} of {n} samples: expected 2 to {n}")
        self.seed = seed
        if focus is None:
            self.parts = [(np.arange(n), size)]
            return
        if not 0 <= share <= 1:
            raise InputError(f"share={share!r}: expected 0 to 1")
        wanted = focus_rows(focus, n)
        held = round(share * size)
        self.parts = [(wanted, held), (np.setdiff1d(np.arange(n), wanted), size - held)]
        for rows, count in self.parts:
            if count > len(rows):
                which = "in the focus" if rows is wanted else "outside the focus"
                raise InputError(f"{count} samples of each batch of {size} cannot come from {len(rows)} {which}")

    def __call__(self, step: int) -> torch.Tensor:
        """(size,) int64 rows of ``step``, from 0."""
        chosen = [_drawn(rows, count, self.seed, part, step) for part, (rows, count) in enumerate(self.parts)]
        return torch.from_numpy(np.concatenate(chosen))

    @property
    def per_epoch(self) -> int:
        """Steps in which every row could have been seen once."""
        return sum(len(rows) for rows, _ in self.parts) // sum(count for _, count in self.parts)


def focus_rows(focus: ArrayLike, n: int) -> NDArray[np.int64]:
    """Sorted distinct rows.

    Raises:
        InputError: none, or numbers that are no rows.

    >>> focus_rows([3, 1, 3], 5).tolist()
    [1, 3]
    """
    rows = np.unique(np.asarray(focus))
    if not rows.size or rows.dtype.kind not in "iu" or not 0 <= rows[0] <= rows[-1] < n:
        raise InputError(f"focus must hold rows from 0 to {n - 1}, at least one")
    return rows.astype(np.int64)


def _drawn(rows: NDArray[np.int64], count: int, seed: int, part: int, step: int) -> NDArray[np.int64]:
    if not count:
        return rows[:0]
    epoch, place = divmod(step, len(rows) // count)
    drawn: NDArray[np.int64] = rows[_order(len(rows), seed, part, epoch)[place * count : (place + 1) * count]]
    return drawn


@lru_cache(maxsize=4)
def _order(n: int, seed: int, part: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, part, epoch]).permutation(n)
