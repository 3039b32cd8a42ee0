"""Whatever a caller has as an array of numpy; torch need not be there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from koda_audit.errors import InputError


def host_array(values: Any, name: str, fault: str = "is no array") -> NDArray[Any]:
    """Anything array-like as an array in main memory; tensors lose their gradient, and bfloat16 becomes float32.

    Raises:
        InputError: masked entries, which numpy would take for values; what cannot be an array, such as lists of unlike
            length, with ``fault`` as what ``name`` is then.

    >>> host_array([1, 2], "labels").tolist()
    [1, 2]
    """
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()
        array: NDArray[Any] = np.asanyarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a list of tensors that require gradients
        raise InputError(f"{name} {fault}: {error}") from error
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise InputError(f"{name} has masked entries: fill them or leave their rows out")
        array = array.data
    return array
