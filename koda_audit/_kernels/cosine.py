"""The exact cosine kernel of one or both modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from koda_audit._kernels.directions import common_rows, cosines, directions


def cosine_gram(vectors: Mapping[str, Tensor]) -> Tensor:
    """K/n with K_ij = product over modalities of u_i'u_j / (|u_i| |u_j|): (n, n), positive semidefinite, trace 1.

    Entries may be negative: samples that belong together are then those whose rows correlate. Embeddings of a model
    lie in a cone, where all cosines are large; the vectors are taken as they come, and a caller who wants the cone gone
    subtracts the mean over all samples first, since no chunk of rows knows it.

    Args:
        vectors: modality -> (n, d) raw vectors of the same samples.

    Raises:
        InputError: numbers of rows that differ, a vector of length 0.

    >>> import torch
    >>> cosine_gram({"image": torch.tensor([[1.0, 0.0], [3.0, 4.0]])}).round(decimals=6).tolist()
    [[0.5, 0.3], [0.3, 0.5]]
    """
    n = common_rows(vectors)
    factors = [cosines(directions(values, name)) for name, values in vectors.items()]
    return math.prod(factors[1:], start=factors[0]).div_(n)
