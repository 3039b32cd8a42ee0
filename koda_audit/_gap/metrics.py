"""All metrics of the modality gap at once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, overload

from koda_audit._gap.intervals import Estimate, Limits, nearest_null
from koda_audit._gap.measured import PAIRWISE_ROWS, Settings, measured
from koda_audit._gap.sides import sides
from koda_audit._gap.table import METRICS, VARIANTS
from koda_audit._options import whole_number
from koda_audit._stats.jackknife import GROUPS


@overload
def modality_gap(
    image: Any,
    text: Any,
    *,
    paired: bool | None = ...,
    normalize: bool = ...,
    interval: Literal[False] = ...,
    variants: bool = ...,
    groups: int = ...,
    pairwise_rows: int = ...,
    seed: int = ...,
) -> dict[str, float]: ...


@overload
def modality_gap(
    image: Any,
    text: Any,
    *,
    paired: bool | None = ...,
    normalize: bool = ...,
    interval: Literal[True],
    variants: bool = ...,
    groups: int = ...,
    pairwise_rows: int = ...,
    seed: int = ...,
) -> dict[str, Estimate]: ...


def modality_gap(
    image: Any,
    text: Any,
    *,
    paired: bool | None = None,
    normalize: bool = True,
    interval: bool = False,
    variants: bool = False,
    groups: int = GROUPS,
    pairwise_rows: int = PAIRWISE_ROWS,
    seed: int = 0,
) -> Any:
    """How far apart images and texts of one model lie: every key of ``table.METRICS``.

    The squared distance of a pair splits exactly (Pythagoras): raw_gap_rms^2 = centroid_gap^2 + dist_gap_paired^2.
    TPC-CMA (arXiv 2604.00279) speaks of a raw, a centroid and a distribution gap and does not publish its distribution
    gap; ours is a stated choice, and ``energy_centred``, ``mmd2_u_centred`` and ``frechet_cov`` are the other reading,
    distances of the two centred distributions that ignore the pairs.

    A number that does not exist is nan: what needs pairs without them; what needs rows of equal width without them;
    ``linear_sep`` with fewer than 5 d rows to fit on, and ``mix_bias``, ``itr`` and ``tir`` with fewer than 1,000
    pooled rows (``linear_sep_underdetermined`` and ``mix_bias_underdetermined`` are 1 then); a ratio 0/0, as of equal
    rows. Fewer rows than columns make ``frechet_cov`` mostly bias and shorten ``effective_dim``.

    Args:
        image: (n, d) vectors of real numbers; a float64 copy is made.
        text: (m, d); row i belongs to image i where sides are paired.
        paired: None: where n = m.
        normalize: divide rows by their length first, in float64.
        interval: give an ``Estimate`` for each key, (value, low, high, null).
            First-order metrics have the basic bootstrap over pairs (over each side without pairs), 1,000 draws. It
            takes off the bias of the plug-in, so ``centroid_gap`` of few samples may lie above its own interval.
            Second-order and pairwise metrics have a delete-a-group jackknife, which leaves bias in; pairwise ones keep
            bandwidth and neighbours of all rows in it, and move the centroids to first order.
            The null is the metric between two random halves of one modality, paired as they fall: of the images for a
            key ``_image`` and itr, of the texts for ``_text`` and tir, and for any other key that of the two which
            lies nearer to the value, the harder to stand out from. Halves have half of the rows, so bias that falls
            with n is twice as large in them.
            low and high are nan for itr and tir (theirs follow from mix_bias), for flags, variants and p-values, for
            that of the two unbiased squares which the sides do not fit (the paired one without pairs, the other with
            them), and where samples are too few; null is nan for what a side has alone, and for flags, variants and
            p-values.
        variants: add ``table.VARIANTS``, other definitions in use under the same names.
        groups: of the jackknife, and folds of ``linear_sep``; fewer where they would have less than 2 rows.
        pairwise_rows: rows a side, drawn with ``seed``, for metrics of the order "pairwise": their cost grows with the
            square. All rows up to 20,000 by default; the key ``pairwise_rows`` tells. The nulls take half as many.
            ``mix_bias`` of a part of the rows is not that of all: neighbours lie farther off.
        seed: of every draw.

    Raises:
        InputError: not two finite real matrices of at least 2 rows each, a row that is zero, pairs asked for where n
            and m differ, fewer than 2 groups or 4 pairwise rows.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> concept = random.normal(size=(50, 4))
    >>> image, text = np.hstack([concept, np.full((50, 1), 2.0)]), np.hstack([concept, np.full((50, 1), -2.0)])
    >>> gap = modality_gap(image, text)
    >>> round(gap["raw_gap_rms"] ** 2 - gap["centroid_gap"] ** 2 - gap["dist_gap_paired"] ** 2, 12) == 0
    True
    >>> modality_gap(image, text, interval=True)["centroid_gap"].null < 0.5 < gap["centroid_gap"]
    True
    """
    whole_number(groups, "groups", least=2)
    whole_number(pairwise_rows, "pairwise_rows", least=4)
    whole_number(seed, "seed")
    checked = sides(image, text, normalize, paired)
    settings = Settings(normalize, interval, variants, groups, pairwise_rows, seed)
    values, limits = measured(checked, settings)
    keys = [*METRICS, *(VARIANTS if variants else ())]
    if not interval:
        return {key: values.get(key, math.nan) for key in keys}

    plain = replace(settings, interval=False, variants=False, pairwise_rows=pairwise_rows // 2)
    nulls = {}
    for name in ("image", "text"):
        nulls[name] = measured(checked.halved(name, seed), plain)[0] if checked.divisible else {}
    return {key: _estimate(key, values.get(key, math.nan), limits, nulls, normalize) for key in keys}


def _estimate(key: str, value: float, limits: Limits, nulls: dict[str, dict[str, float]], normalized: bool) -> Estimate:
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    metric = METRICS.get(key) or VARIANTS[key]
    low, high = limits.get(key, (math.nan, math.nan)) if metric.interval else (math.nan, math.nan)
    low, high = (_clipped(end, metric.low, metric.high if normalized else None) for end in (low, high))
    if not metric.null:
        return Estimate(value, low, high, math.nan)
    image, text = (nulls[name].get(key, math.nan) for name in ("image", "text"))
    if key == "itr" or key.endswith("_image"):
        return Estimate(value, low, high, image)
    if key == "tir" or key.endswith("_text"):
        return Estimate(value, low, high, text)
    return Estimate(value, low, high, nearest_null(value, image, text))


def _clipped(end: float, low: float | None, high: float | None) -> float:
    end = end if low is None else max(end, low)  # nan stays
    return end if high is None else min(end, high)
