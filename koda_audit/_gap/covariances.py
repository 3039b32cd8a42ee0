"""All metrics of the second order, and the same without each group of rows."""

from __future__ import annotations

import numpy as np

from koda_audit._gap.dimension import effective_dim, gap_dir_var, participation_ratio
from koda_audit._gap.folds import Gaussians, Groups, folds, gaussians
from koda_audit._gap.frechet import frechet_cov
from koda_audit._gap.separability import ROWS_PER_DIMENSION, RidgeClassifier, accuracy
from koda_audit._gap.sides import Sides

Without = list[dict[str, float]]


def covariance_metrics(sides: Sides, groups: Groups, jackknife: bool) -> tuple[dict[str, float], Without]:
    """The metrics of all rows, and (if ``jackknife``) of all rows but each group's.

    ``linear_sep`` is the mean, over the groups, of the accuracy on a group of a classifier fitted on all others. It is
    nan, and ``linear_sep_underdetermined`` 1, where those others have fewer than 5 rows a dimension.
    """
    found, without = _of(gaussians(sides)), []
    width = sides.image.shape[1]
    fitted_on = sum(len(numbers) - np.bincount(numbers).max() for numbers in groups)
    determined = sides.comparable and fitted_on >= ROWS_PER_DIMENSION * width
    hits = []
    if jackknife or determined:
        for rest, part in folds(sides, groups):
            if jackknife:
                without.append(_of(rest))
            if determined:
                hits.append(accuracy(RidgeClassifier.fit(rest), part))
    if sides.comparable:
        found["linear_sep_underdetermined"] = float(not determined)
    if determined:
        found["linear_sep"] = float(np.mean(hits))
        for group, metrics in enumerate(without):
            metrics["linear_sep"] = float(np.mean(np.delete(hits, group)))
    return found, without


def _of(gaussians: Gaussians) -> dict[str, float]:
    image, text = gaussians
    found = {}
    for name, side in (("image", image), ("text", text)):
        found[f"effective_dim_{name}"] = effective_dim(side.covariance)
        found[f"participation_ratio_{name}"] = participation_ratio(side.covariance)
    if len(image.mean) == len(text.mean):
        gap = image.mean - text.mean
        found["gap_dir_var_image"] = gap_dir_var(image.covariance, gap)
        found["gap_dir_var_text"] = gap_dir_var(text.covariance, gap)
        found["frechet_cov"] = frechet_cov(image.covariance, text.covariance)
    return found
