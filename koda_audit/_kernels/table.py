"""All kernels under their names, called alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from koda_audit._kernels.cosine import cosine_gram
from koda_audit._kernels.polynomial import DEGREE, OFFSET, polynomial_gram
from koda_audit._kernels.rbf import rbf_gram, scaled_points
from koda_audit.errors import InputError

# degree and offset of the kernels that are powers of an inner product
POWERS = MappingProxyType({"cosine": (1, 0.0), "polynomial": (DEGREE, OFFSET)})
Gram = Callable[[Mapping[str, Tensor], Mapping[str, float]], Tensor]


@dataclass(frozen=True)
class Kernel:
    """``gram(vectors, sigmas)`` is the (n, n) matrix K/n of modality -> (n, d) vectors; its trace is 1.

    ``has_bandwidth`` says whether ``sigmas`` (modality -> width) are needed; where not, they must be empty.
    """

    gram: Gram
    has_bandwidth: bool


def no_bandwidth(name: str, sigmas: Mapping[str, float]) -> None:
    """Raises InputError where widths are given to a kernel that would not use them.

    >>> no_bandwidth("cosine", {})
    """
    if sigmas:
        raise InputError(f"the {name} kernel has no bandwidth: give no sigmas, got {dict(sigmas)}")


def _rbf(vectors: Mapping[str, Tensor], sigmas: Mapping[str, float]) -> Tensor:
    return rbf_gram(scaled_points(vectors, sigmas))


def _cosine(vectors: Mapping[str, Tensor], sigmas: Mapping[str, float]) -> Tensor:
    no_bandwidth("cosine", sigmas)
    return cosine_gram(vectors)


def _polynomial(vectors: Mapping[str, Tensor], sigmas: Mapping[str, float]) -> Tensor:
    no_bandwidth("polynomial", sigmas)
    return polynomial_gram(vectors)


KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {"rbf": Kernel(_rbf, True), "cosine": Kernel(_cosine, False), "polynomial": Kernel(_polynomial, False)}
)
