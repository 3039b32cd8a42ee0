"""The gap between the two centroids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._gap.means import Means
from koda_audit._gap.sides import sides
from koda_audit._options import whole_number
from koda_audit.errors import InputError


def centroid_metrics(means: Means) -> dict[str, Tensor]:
    """``centroid_gap`` and its relatives, (B,) each; nan where the sides differ in width.

    The squared gap of n and m samples is too large by tr S_x/n + tr S_y/m where sides are drawn independently, and by
    tr Cov(x - y)/n where pairs are drawn. The two unbiased forms take that off, and may be negative.

    >>> from koda_audit._gap.means import means
    >>> found = centroid_metrics(means(sides([[1, 0], [1, 0]], [[0, 1], [0, 1]])))
    >>> round(found["frechet_mean"].item(), 12)
    2.0
    """
    image_length, text_length = (torch.linalg.vector_norm(mean, dim=1) for mean in (means.image, means.text))
    found = {"mean_length_image": image_length, "mean_length_text": text_length}
    if means.image.shape != means.text.shape:
        return found
    gap = means.image - means.text
    square = (gap * gap).sum(dim=1)
    n, m = means.freedom
    largest = gap.abs().topk(min(2, gap.shape[1]), dim=1).values
    return {
        **found,
        "mean_cosine": (means.image * means.text).sum(dim=1) / (image_length * text_length),
        "centroid_gap": square.sqrt(),
        "frechet_mean": square,
        "centroid_gap_sq_unbiased": square - means.image_spread / n - means.text_spread / m,
        "centroid_gap_sq_unbiased_paired": square - means.centred_square / n,
        "gap_top2_share": (largest * largest).sum(dim=1) / square,
    }


def gap_top_dims(
    image: Any, text: Any, count: int = 4, *, normalize: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The dimensions in which the centroids differ most, and by how much, largest first.

    A few dimensions carry most of the gap of CLIP (Schrodi et al., ICLR 2025). They depend on the basis: a rotation
    common to both sides changes them, and no other metric of the gap but ``gap_top2_share``.

    Args:
        image: (n, d).
        text: (m, d).
        count: dimensions, at most d.
        normalize: divide rows by their length first.

    Returns:
        (count,) numbers of dimensions from 0, and (count,) entries of the image centroid less the text centroid.

    Raises:
        InputError: as ``modality_gap``; widths that differ.

    >>> gap_top_dims([[1, 0, 0], [1, 0, 0]], [[0, 1, 0], [0.6, 0.8, 0]], count=2)
    (array([1, 0]), array([-0.9,  0.7]))
    """
    whole_number(count, "count", least=1)
    checked = sides(image, text, normalize)
    if not checked.comparable:
        raise InputError(f"image rows are {checked.image.shape[1]} wide, text rows {checked.text.shape[1]}: no gap")
    gap = checked.image.mean(dim=0) - checked.text.mean(dim=0)
    dims = gap.abs().argsort(descending=True, stable=True)[:count]
    return dims.cpu().numpy(), gap[dims].cpu().numpy()
