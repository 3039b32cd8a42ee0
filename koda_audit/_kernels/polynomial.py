"""The exact polynomial kernel of one or both modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from torch import Tensor

from koda_audit._kernels.directions import common_rows, cosines, directions
from koda_audit.errors import InputError

DEGREE = 3
OFFSET = 1.0


def polynomial_gram(vectors: Mapping[str, Tensor], degree: int = DEGREE, offset: float = OFFSET) -> Tensor:
    """K/n with the product over modalities of normalised polynomials: (n, n), positive semidefinite, trace 1.

        k(x, y) = (x'y/d + c)^p,    K(x, y) = k(x, y) / sqrt(k(x, x) k(y, y)) = cos([x ; sqrt(cd)], [y ; sqrt(cd)])^p

    The left form with p = 3, c = 1 is the teacher's kernel in KUEA (ICML 2025, arXiv 2506.02557). The right one is
    ours, and keeps its digits where the p-th power of a squared length would overflow. Whole powers of a positive
    semidefinite kernel are positive semidefinite (Schur), and so is the product over modalities.

    Args:
        vectors: modality -> (n, d) raw vectors of the same samples. Unlike the other kernels this one depends on their
            scale, which sets the share of the constant; d is the number of columns.
        degree: p, a whole number from 1.
        offset: c, not negative; 0 leaves powers of the cosine.

    Raises:
        InputError: a value out of range, numbers of rows that differ, a vector of length 0 with offset 0.

    >>> import torch
    >>> polynomial_gram({"image": torch.tensor([[1.0], [2.0]])}, degree=2).round(decimals=6).tolist()
    [[0.5, 0.45], [0.45, 0.5]]
    """
    check_polynomial(degree, offset)
    n = common_rows(vectors)
    factors = [cosines(directions(values, name, offset)) for name, values in vectors.items()]
    return math.prod(factors[1:], start=factors[0]).pow_(degree).div_(n)


def check_polynomial(degree: Any, offset: Any) -> None:
    """Raises InputError where the form would not be a kernel.

    >>> check_polynomial(3, 1.0)
    """
    if not isinstance(degree, Integral) or isinstance(degree, bool) or degree < 1:
        raise InputError(f"degree is {degree!r}: expected a whole number from 1")
    if not isinstance(offset, (int, float)) or not 0 <= offset < math.inf:
        raise InputError(f"offset is {offset!r}: expected a number that is not negative")
