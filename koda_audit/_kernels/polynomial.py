"""The exact polynomial kernel of one or both modalities, and with degree 1 and no offset the cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor

from koda_audit._kernels.directions import directions
from koda_audit.errors import InputError

DEGREE = 3
OFFSET = 1.0


def polynomial_points(vectors: Mapping[str, Tensor], offset: float = OFFSET) -> tuple[Tensor, ...]:
    """What ``polynomial`` needs of some samples: ``directions`` of each modality.

    Args:
        vectors: modality -> (n, d) raw vectors of the same samples. Unlike the other kernels the polynomial depends on
            their scale, which sets the share of the constant; d is the number of columns.
        offset: c, not negative; 0 leaves powers of the cosine.

    Raises:
        InputError: a vector of length 0 with offset 0.
    """
    return tuple(directions(values, name, offset) for name, values in vectors.items())


def polynomial(p: Sequence[Tensor], q: Sequence[Tensor], degree: int = DEGREE) -> Tensor:
    """The product over modalities of normalised polynomials, of points of a and of b samples: (a, b).

        k(x, y) = (x'y/d + c)^p,    K(x, y) = k(x, y) / sqrt(k(x, x) k(y, y)) = cos([x ; sqrt(cd)], [y ; sqrt(cd)])^p

    The left form with p = 3, c = 1 is the teacher's kernel in KUEA (ICML 2025, arXiv 2506.02557). The right one is
    ours, and keeps its digits where the p-th power of a squared length would overflow. Whole powers of a positive
    semidefinite kernel are positive semidefinite (Schur), and so is the product over modalities. p = 1 and c = 0 is the
    cosine, whose entries may be negative: samples that belong together are then those whose rows correlate. Embeddings
    of a model lie in a cone, where all cosines are large; a caller who wants the cone gone subtracts the mean first.

    >>> import torch
    >>> points = polynomial_points({"image": torch.tensor([[1.0], [2.0]])})
    >>> polynomial(points, points, degree=2).round(decimals=6).tolist()
    [[1.0, 0.9], [0.9, 1.0]]
    """
    return math.prod(a @ b.T for a, b in zip(p, q, strict=True)) ** degree


def check_polynomial(degree: Any, offset: Any) -> None:
    """Raises InputError where the form would not be a kernel.

    >>> check_polynomial(3, 1.0)
    """
    if not isinstance(degree, Integral) or isinstance(degree, bool) or degree < 1:
        raise InputError(f"degree is {degree!r}: expected a whole number from 1")
    if not isinstance(offset, (int, float)) or not 0 <= offset < math.inf:
        raise InputError(f"offset is {offset!r}: expected a number that is not negative")
