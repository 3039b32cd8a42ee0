"""The one place where whatever a caller has becomes a float64 tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from koda_audit.errors import InputError


def matrix(values: Any, name: str) -> Tensor:
    """A finite (rows, columns) float64 tensor, on the device where ``values`` lie.

    Args:
        values: (rows, columns) tensor, array, frame or nested list of real numbers; it is not changed.
        name: what the caller calls it, for the message.

    Raises:
        InputError: not a matrix, empty, not real numbers, not finite.

    >>> matrix([[1, 2], [3, 4]], "A").dtype
    torch.float64
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
        numeric = not tensor.is_complex() and tensor.dtype != torch.bool
        kind = str(tensor.dtype)
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise InputError(f"{name} is not a matrix: {error}") from error
        numeric, kind = array.dtype.kind in "fiu", str(array.dtype)
        tensor = torch.from_numpy(np.array(array, dtype=np.float64)) if numeric else torch.empty(array.shape)
    if not numeric:
        raise InputError(f"{name} has dtype {kind}: expected real numbers")
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}: expected (rows, columns), neither of them 0")
    tensor = tensor.to(torch.float64)
    if not torch.isfinite(tensor).all():
        row, column = (int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
        raise InputError(f"{name} is not finite: entry ({row}, {column}) is {tensor[row, column].item()}")
    return tensor
