"""The gap between the two rows of a pair, and what part of it the centroids make."""

from __future__ import annotations

from torch import Tensor

from koda_audit._gap.means import Means


def paired_metrics(means: Means, units: Means) -> dict[str, Tensor]:
    """The metrics that need pairs, (B,) each.

    By Pythagoras, raw_gap_rms^2 = centroid_gap^2 + dist_gap_paired^2: the squared distance of a pair is that of the
    centroids plus what is left once each side is centred. TPC-CMA (arXiv 2604.00279) names a centroid gap, a
    distribution gap ("remaining after aligning" the centroids) and a raw gap, but does not publish the formulas of the
    last two; this choice is ours.

    RMG (Schrodi et al., ICLR 2025) is m / (m + (a + b)/2), with m the mean of (1 - cos)/2 over pairs and a, b its means
    over two different rows of a side. On directions those are n/(n - 1) times half the spread, so no pair is formed.

    Args:
        means: of the rows.
        units: of the rows divided by their length; the same object where they have length 1.

    >>> from koda_audit._gap.means import means
    >>> from koda_audit._gap.sides import sides
    >>> found = means(sides([[1, 0], [0, 1]], [[0, 1], [-1, 0]]))  # a quarter turn
    >>> {key: round(value.item(), 3) for key, value in paired_metrics(found, found).items() if key != "alignment"}
    {'raw_gap_rms': 1.414, 'raw_gap_mean': 1.414, 'pair_cosine': 0.0, 'dist_gap_paired': 1.0, 'dist_gap_rel': 1.0, \
'rmg': 0.5}
    """
    between, image, text = rmg_parts(units)
    centred = means.centred_square.clamp(min=0)
    return {
        "raw_gap_rms": means.raw_square.sqrt(),
        "raw_gap_mean": means.raw,
        "alignment": means.raw_square,
        "pair_cosine": 1 - units.raw_square / 2,
        "dist_gap_paired": centred.sqrt(),
        "dist_gap_rel": centred / (means.image_spread + means.text_spread),
        "rmg": between / (between + (image + text) / 2),
    }


def rmg_parts(units: Means) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) means of (1 - cos)/2: over pairs, over two different images, over two different texts."""
    n, m = units.freedom
    return (
        units.raw_square / 4,
        units.image_spread.clamp(min=0) * (units.n / n / 2),
        units.text_spread.clamp(min=0) * (units.m / m / 2),
    )
