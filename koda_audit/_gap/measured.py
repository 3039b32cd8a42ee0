"""Values and intervals of the metrics of each order, as far as the two sides have them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from koda_audit._gap.centroid import centroid_metrics
from koda_audit._gap.covariances import covariance_metrics
from koda_audit._gap.folds import drawn_groups
from koda_audit._gap.intervals import Limits, bootstrap_limits, jackknife_limits
from koda_audit._gap.means import Means, means
from koda_audit._gap.mmd import median_gamma, mmd_p
from koda_audit._gap.pair_sums import PairSums
from koda_audit._gap.paired import paired_metrics
from koda_audit._gap.pairwise import pair_sums
from koda_audit._gap.sides import Sides
from koda_audit._gap.variants import variant_metrics
from koda_audit._stats.bootstrap import resampled_counts

PAIRWISE_ROWS = 20_000
NEIGHBOURS = 1_000  # pooled rows below which a nearest neighbour says little

Values = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """The options of ``modality_gap`` once rows are checked."""

    normalize: bool
    interval: bool
    variants: bool
    groups: int
    pairwise_rows: int
    seed: int


def measured(sides: Sides, settings: Settings) -> tuple[Values, Limits]:
    """Of each metric that exists its value, and the ends of its interval if asked for."""
    values, limits, of_rows, of_units = _first(sides, settings)
    found, without = covariance_metrics(
        sides, drawn_groups(sides, settings.groups, settings.seed), jackknife=settings.interval and sides.divisible
    )
    values |= found
    limits |= jackknife_limits(found, without)
    if sides.comparable:
        found, pairwise_limits, sums = _pairwise(sides, settings)
        values |= found
        limits |= pairwise_limits
        if settings.variants:
            values |= variant_metrics(sides, of_rows, of_units, sums, settings.seed)
    return values, limits


def first_order(of_rows: Means, of_units: Means) -> dict[str, Tensor]:
    """(B,) each."""
    return centroid_metrics(of_rows) | paired_metrics(of_rows, of_units)


def _first(sides: Sides, settings: Settings) -> tuple[Values, Limits, Means, Means]:
    of_rows = means(sides)
    units = None if settings.normalize else sides.directions()
    of_units = of_rows if units is None else means(units)
    values = {key: value.item() for key, value in first_order(of_rows, of_units).items()}
    if not settings.interval:
        return values, {}, of_rows, of_units
    image = resampled_counts(len(sides.image), seed=[settings.seed, 0])
    text = image if sides.paired else resampled_counts(len(sides.text), seed=[settings.seed, 1])
    drawn = means(sides, image, text)
    of_drawn = first_order(drawn, drawn if units is None else means(units, image, text))
    limits = bootstrap_limits(values, {key: value.cpu().numpy() for key, value in of_drawn.items()}, sides.paired)
    return values, limits, of_rows, of_units


def _pairwise(sides: Sides, settings: Settings) -> tuple[Values, Limits, PairSums]:
    few = sides.drawn(settings.pairwise_rows, settings.seed)
    groups = drawn_groups(few, settings.groups, settings.seed)
    gamma = median_gamma(few, settings.seed)
    sums = pair_sums(few, groups, gamma)
    values = sums.metrics()
    count = len(sums.rows[0]) if settings.interval and few.divisible else 0
    limits = jackknife_limits(values, [sums.metrics(group) for group in range(count)])
    underdetermined = len(few.image) + len(few.text) < NEIGHBOURS
    values["mix_bias_underdetermined"] = float(underdetermined)
    for ratio, key in (("itr", "mix_bias_image"), ("tir", "mix_bias_text")):
        if underdetermined:
            del values[key]
            limits.pop(key, None)
        else:
            values[ratio] = values[key] / (1 - values[key]) if values[key] < 1 else math.inf
    values["mmd2_u_centred_p"] = mmd_p(few, gamma, seed=settings.seed)
    values["pairwise_rows"] = float(max(len(few.image), len(few.text)))
    return values, limits, sums
