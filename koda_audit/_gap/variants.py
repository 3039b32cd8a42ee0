"""Other definitions in use under the names of our metrics: never the canonical key, so that no two are confused."""

from __future__ import annotations

import math

import numpy as np

from koda_audit._gap.folds import gaussians
from koda_audit._gap.means import Means
from koda_audit._gap.pair_sums import PairSums
from koda_audit._gap.paired import rmg_parts
from koda_audit._gap.separability import RidgeClassifier, accuracy
from koda_audit._gap.sides import Sides

SPLITS = {"80_20": 0.8, "70_30": 0.7, "10_90": 0.1}  # part of the rows that is fitted on


def variant_metrics(sides: Sides, means: Means, units: Means, sums: PairSums, seed: int) -> dict[str, float]:
    """The named variants of one table row each (``table.VARIANTS``); sides must be as wide as each other.

    RMG from 1 - cos instead of (1 - cos)/2 is the same number, as the factor cancels; so there is no variant of it.
    """
    between, image, text = (part.item() for part in rmg_parts(units))
    n, m = means.n, means.m
    square = ((means.image - means.text) ** 2).sum().item()
    lengths = [mean.norm().item() for mean in (means.image, means.text)]
    cosine = (means.image * means.text).sum().item() / math.prod(lengths) if all(lengths) else math.nan
    spread = (means.image_spread + means.text_spread).item()
    raw, (x, y) = means.raw.item(), sums.mean_distances()
    found = {
        "centroid_gap_sq": square,
        "centroid_gap_sq_per_dim": square / sides.image.shape[1],
        "centroid_gap_of_directions": math.sqrt(max(2 - 2 * cosine, 0)),
        "rmg_sum": _share(between, image + text),
        "rmg_with_diagonal": _share(between, (image * (n - 1) / n + text * (m - 1) / m) / 2),
        "rmg_euclidean": _share(raw, (x + y) / 2),
        "rmg_centroid": math.sqrt(square / (spread / 2)) if spread > 0 else math.nan,
    }
    for name, share in SPLITS.items():
        found[f"linear_sep_accuracy_{name}"], found[f"linear_sep_one_minus_mse_{name}"] = holdout(sides, share, seed)
    return found


def holdout(sides: Sides, share: float, seed: int) -> tuple[float, float]:
    """Accuracy, and 1 - mean squared error for targets 0 and 1, on the rows left of a fit on ``share`` of them.

    Whatever the number of rows a dimension; nan where fewer than 2 rows of a side could be fitted on, or none be left.
    """
    fitted, held = [], []
    for rows in (len(sides.image), len(sides.text)):
        order = np.random.default_rng([seed, rows]).permutation(rows)
        fitted.append(order[: round(share * rows)])
        held.append(order[round(share * rows) :])
    if min(map(len, fitted)) < 2 or not all(map(len, held)):
        return math.nan, math.nan
    classifier, rest = RidgeClassifier.fit(gaussians(sides.chosen(*fitted))), sides.chosen(*held)
    errors = (1 - classifier.predict(rest.image)) ** 2 / 4, (1 + classifier.predict(rest.text)) ** 2 / 4
    return accuracy(classifier, rest), 1 - ((errors[0].mean() + errors[1].mean()) / 2).item()


def _share(between: float, within: float) -> float:
    return between / (between + within) if between + within != 0 else math.nan
