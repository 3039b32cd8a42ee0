"""What is asked of the arrays that are evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._kernels.directions import directions
from koda_audit.embeddings.checks import whole_numbers
from koda_audit.errors import InputError
from koda_audit.evaluation.ranks import BLOCK


def unit_rows(**vectors: Any) -> tuple[Tensor, ...]:
    """Each (rows, d) as unit rows, float64, on the device of the first, so that inner products are cosines.

    Raises:
        InputError: no matrix of finite numbers, a zero row, widths that differ.

    >>> [units.tolist() for units in unit_rows(image=[[3, 4]], text=[[0, 2]])]
    [[[0.6, 0.8]], [[0.0, 1.0]]]
    """
    found: list[Tensor] = []
    for name, values in vectors.items():
        rows = matrix(values, name)
        if found and rows.shape[1] != found[0].shape[1]:
            widths = f"{next(iter(vectors))} has {found[0].shape[1]} columns and {name} has {rows.shape[1]}"
            raise InputError(f"{widths}: cosines need vectors of one width, from both towers of one model")
        zero = ~rows.any(dim=1)
        if zero.any():
            raise InputError(f"row {int(zero.nonzero()[0, 0])} of {name} is zero, so it has no cosine: leave it out")
        rows = rows.to(found[0].device) if found else rows
        if isinstance(values, Tensor) and values.dtype == rows.dtype:
            rows = rows.clone()  # it is the caller's
        for part in torch.split(rows, BLOCK):  # in place: beside many captions there may be no room for as many again
            part.copy_(directions(part, name))
        found.append(rows)
    return tuple(found)


def one_label_each(labels: ArrayLike, n: int, classes: int | None = None, name: str = "labels") -> NDArray[np.int64]:
    """(n,) class indices from 0, below ``classes`` where that is known.

    Raises:
        InputError: anything else.
    """
    found = whole_numbers(labels, name)
    if found.shape != (n,):
        raise InputError(f"{name} of shape {found.shape} for {n} images: expected ({n},), one class index an image")
    if found.min() < 0 or (classes is not None and found.max() >= classes):
        most = "0 or more" if classes is None else f"0..{classes - 1}"
        raise InputError(f"{name} lie in {found.min()}..{found.max()}: expected class indices in {most}")
    return found


def several_labels(labels: ArrayLike, n: int, classes: int) -> NDArray[np.int64]:
    """(n, classes) zeros and ones.

    Raises:
        InputError: anything else.
    """
    found = whole_numbers(labels, "labels")
    if found.shape != (n, classes) or not np.isin(found, (0, 1)).all():
        raise InputError(f"labels of shape {found.shape}: expected zeros and ones of shape ({n}, {classes})")
    return found
