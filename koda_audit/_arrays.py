"""The one place where whatever a caller has becomes a float64 tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from koda_audit._host_arrays import host_array
from koda_audit.errors import InputError


def matrix(values: Any, name: str) -> Tensor:
    """A finite (rows, columns) float64 tensor, on the device where ``values`` lie.

    Args:
        values: (rows, columns) tensor, array, frame or nested list of real numbers; it is not changed.
        name: what the caller calls it, for the message.

    Raises:
        InputError: not a matrix, empty, not real numbers, not finite, masked.

    >>> matrix([[1, 2], [3, 4]], "A").dtype
    torch.float64
    """
    if isinstance(values, Tensor):
        kinds = {
            "meta": values.is_meta,
            "nested": values.is_nested,
            "sparse": values.layout != torch.strided,
            "quantised": values.is_quantized,
        }
        strange = [kind for kind, is_one in kinds.items() if is_one]
        if strange:
            raise InputError(f"{name} is a {strange[0]} tensor: expected a dense one")
        tensor = values.detach()
        numeric = not tensor.is_complex() and tensor.dtype != torch.bool
        kind = str(tensor.dtype)
    else:
        array = host_array(values, name, "is not a matrix")
        numeric, kind = array.dtype.kind in "fiu", str(array.dtype)
        with np.errstate(over="ignore"):  # what a wider float has beyond float64 is found below
            tensor = torch.from_numpy(np.array(array, dtype=np.float64)) if numeric else torch.empty(array.shape)
    if not numeric:
        raise InputError(f"{name} has dtype {kind}: expected real numbers")
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}: expected (rows, columns), neither of them 0")
    tensor = tensor.to(torch.float64)
    if not all(torch.isfinite(end) for end in tensor.aminmax()):  # one pass, and nothing of the size of the tensor
        row, column = (int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
        raise InputError(f"{name} is not finite: entry ({row}, {column}) is {tensor[row, column].item()}")
    return tensor


def choose_device(device: str | torch.device | None) -> torch.device:
    """``device``, or CUDA where there is one.

    Raises:
        InputError: no such device, or one without float64.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"device is {device!r}: expected 'cpu', 'cuda' or 'cuda:N'") from error
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device is '{chosen}': expected 'cpu' or 'cuda', which compute in float64")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device is '{chosen}', but torch finds {torch.cuda.device_count()} CUDA devices: use 'cpu'")
    return chosen


class Vectors(Protocol):
    """(n, d) of which a part is had by indexing rows: a Tensor, or what reads it from disk.

    ``shape`` is (n, d).
    """

    @property
    def shape(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class OnDevice:
    """Rows of ``values``, anything array-like with numpy's indexing, as float64 on ``device`` when they are indexed."""

    values: Any
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape
        return rows, columns

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        part = self.values[rows.cpu().numpy() if isinstance(rows, Tensor) else rows]
        return torch.from_numpy(np.array(part, dtype=np.float64)).to(self.device)


def chosen(vectors: Mapping[str, Vectors], rows: slice | Tensor) -> dict[str, Tensor]:
    """The same rows of each modality.

    >>> chosen({"image": torch.arange(6.0).reshape(3, 2)}, slice(1, 2))
    {'image': tensor([[2., 3.]])}
    """
    return {name: values[rows] for name, values in vectors.items()}
