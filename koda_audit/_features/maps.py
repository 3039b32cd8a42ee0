"""What all feature maps have in common."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from koda_audit._kernels.directions import common_rows
from koda_audit._kernels.rbf import MODALITIES
from koda_audit.errors import InputError

DTYPES = (torch.float32, torch.float64)


class FeatureMap(Protocol):
    """A fixed function of a sample's vectors; rows of a chunk do not see each other."""

    @property
    def width(self) -> int:
        """Columns of the features."""

    def __call__(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Features (n, width) of modality -> (n, d) vectors, in the map's dtype and on its device."""


def check_inputs(input_widths: Mapping[str, int], dtype: torch.dtype) -> None:
    """Raises InputError for modalities, columns or a dtype no map can be made for.

    >>> check_inputs({"image": 512, "text": 512}, torch.float32)
    """
    if set(input_widths) not in [set(names) for names in MODALITIES.values()]:
        raise InputError(f"modalities are {sorted(input_widths)}: expected 'image', 'text' or both")
    for name, columns in input_widths.items():
        check_count(f"number of {name} columns", columns)
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype}: expected torch.float32 or torch.float64")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises InputError where ``value`` is not a whole number from ``least``.

    >>> check_count("seed", 0, least=0)
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {value!r}: expected a whole number from {least}")


def check_vectors(vectors: Mapping[str, Tensor], input_widths: Mapping[str, int]) -> None:
    """Raises InputError where ``vectors`` are not what the map was made for.

    >>> check_vectors({"image": torch.ones(2, 5)}, {"image": 5})
    """
    if set(vectors) != set(input_widths):
        raise InputError(f"the feature map was made for {sorted(input_widths)}: got vectors of {sorted(vectors)}")
    for name, columns in input_widths.items():
        shape = tuple(vectors[name].shape)
        if len(shape) != 2 or shape[1] != columns:
            raise InputError(f"the feature map was made for {name} vectors of {columns} columns: got shape {shape}")
    common_rows(vectors)


def generator(seed: int, name: str) -> np.random.Generator:
    """A modality's own stream of random numbers: independent of the other's, and the same with and without it.

    Numbers are drawn by NumPy on the CPU, row by row, so that the device does not matter, and a map with more rows of
    random numbers begins with those of a smaller one.

    >>> bool(generator(0, "image").random() == generator(0, "text").random())
    False
    """
    return np.random.default_rng([int(seed), MODALITIES["joint"].index(name)])
