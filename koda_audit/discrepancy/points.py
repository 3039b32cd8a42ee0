"""Samples as points: what clustering and pictures of groups start from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from koda_audit._arrays import Vectors, chosen
from koda_audit._kernels.table import KERNELS


def kernel_points(
    kernel: str, vectors: Mapping[str, Vectors], sigmas: Mapping[str, float], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(m, D) points of some rows, which lie near one another where the kernel is large.

    For the Gaussian kernel [u / sigma_x ; v / sigma_t]: their distance is all that the kernel depends on. For the
    others the unit vectors of the modalities beside one another: a squared distance is then twice the sum over the
    modalities of 1 - cosine, where the kernel takes a product (ours).

    Args:
        kernel: a name of ``table.KERNELS``.
        vectors: modality -> (n, d).
        sigmas: modality -> width, for "rbf".
        rows: (m,).

    >>> vectors = {"image": torch.tensor([[3.0, 4.0], [0.0, 2.0]]), "text": torch.tensor([[2.0], [5.0]])}
    >>> kernel_points("rbf", vectors, {"image": 2.0, "text": 10.0}, np.array([1])).tolist()
    [[0.0, 1.0, 0.5]]
    >>> kernel_points("cosine", vectors, {}, np.array([0])).round(6).tolist()
    [[0.6, 0.8, 1.0]]
    """
    parts = chosen(vectors, torch.tensor(rows))  # a copy: columns of a frame are read-only, which torch refuses
    return torch.cat(KERNELS[kernel].points(parts, sigmas), dim=1).cpu().numpy()
