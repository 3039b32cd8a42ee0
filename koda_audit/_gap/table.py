"""What each key of ``modality_gap`` means."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Order = Literal["first", "second", "pairwise"]
Limit = float | None


@dataclass(frozen=True)
class GapMetric:
    """One number of ``modality_gap``; read it beside its null.

    Attributes:
        definition: in one line; x, y the two rows of a pair, X, Y any image and text, S covariances, g the gap.
        low, high: of its range, for rows of length 1; None where there is no bound.
        order: made of means over rows ("first"), of covariances ("second"), of pairs of rows ("pairwise").
        pairs: whether it needs them; nan without.
        equal_widths: whether it needs them; nan without.
        interval: whether it has one.
        null: whether two halves of one modality have it too.
        better: "up" or "down"; None for a number that is no merit.
    """

    key: str
    definition: str
    low: Limit
    high: Limit
    order: Order
    pairs: bool = False
    equal_widths: bool = True
    interval: bool = True
    null: bool = True
    better: Literal["up", "down"] | None = None


def _metrics(order: Order, *rows: tuple[str, str, Limit, Limit], **fields: Any) -> list[GapMetric]:
    return [GapMetric(*row, order, **fields) for row in rows]


def _sides(key: str, definition: str, low: Limit, high: Limit) -> list[tuple[str, str, Limit, Limit]]:
    return [(f"{key}_{name}", f"{definition}, {name}s", low, high) for name in ("image", "text")]


def _by_key(*parts: list[GapMetric]) -> MappingProxyType[str, GapMetric]:
    return MappingProxyType({metric.key: metric for part in parts for metric in part})


METRICS = _by_key(
    _metrics(
        "first",
        ("centroid_gap", "|mean x - mean y|", 0, 2),
        ("centroid_gap_sq_unbiased", "|mean x - mean y|^2 - tr S_x/n - tr S_y/m", None, 4),
        ("frechet_mean", "|mean x - mean y|^2: the mean term of the Fréchet distance", 0, 4),
        ("mean_cosine", "cosine of mean x and mean y", -1, 1),
        ("gap_top2_share", "share of |g|^2 in its two largest dimensions", 0, 1),
    ),
    _metrics("first", *_sides("mean_length", "|mean z|", 0, 1), equal_widths=False, null=False),
    _metrics(
        "first",
        ("centroid_gap_sq_unbiased_paired", "|mean x - mean y|^2 - tr Cov(x - y)/n", None, 4),
        ("raw_gap_rms", "sqrt(mean |x - y|^2)", 0, 2),
        ("raw_gap_mean", "mean |x - y|", 0, 2),
        ("alignment", "mean |x - y|^2 (Wang and Isola, ICML 2020)", 0, 4),
        ("pair_cosine", "mean cos(x, y)", -1, 1),
        ("dist_gap_paired", "sqrt(mean |(x - mean x) - (y - mean y)|^2) (ours)", 0, 2),
        ("dist_gap_rel", "dist_gap_paired^2 / (tr S_x + tr S_y) (ours)", 0, 2),
        ("rmg", "m / (m + (a + b)/2) of mean (1 - cos)/2: m of x and y, a of X and X', b of Y and Y'", 0, 1),
        pairs=True,
    ),
    _metrics(
        "second",
        ("frechet_cov", "tr(S_x + S_y - 2 (S_x^.5 S_y S_x^.5)^.5)", 0, None),
        *_sides("gap_dir_var", "variance along g / (tr S/d)", 0, None),
        ("linear_sep", "held-out accuracy of a ridge classifier of the modality; chance .5", 0, 1),
    ),
    _metrics(
        "second",
        *_sides("effective_dim", "exp of the entropy of the normalised singular values of centred z", 1, None),
        *_sides("participation_ratio", "(tr S)^2 / tr S^2", 1, None),
        equal_widths=False,
        null=False,
    ),
    _metrics(
        "second",
        ("linear_sep_underdetermined", "1 where linear_sep is nan: fewer than 5 rows a dimension to fit on", 0, 1),
        interval=False,
        null=False,
    ),
    _metrics(
        "pairwise",
        ("energy", "2 E|X - Y| - E|X - X'| - E|Y - Y'|", 0, 4),
        ("energy_centred", "energy of the centred sides", 0, None),
        ("mmd2_u_centred", "MMD^2 of the centred sides: RBF of the median width, U-statistic", None, 2),
        ("uniformity_cross", "log mean exp(-2 |X - Y|^2) of an image and a text that are no pair", -8, 0),
        ("uniformity_joint", "log mean exp(-2 |z - z'|^2), both sides pooled", -8, 0),
        *_sides("mix_bias", "share whose nearest pooled neighbour has their own modality", 0, 1),
    ),
    _metrics(
        "pairwise",
        ("itr", "p / (1 - p), p = mix_bias_image (arXiv 2505.03703)", 0, None),
        ("tir", "p / (1 - p), p = mix_bias_text (arXiv 2505.03703)", 0, None),
        interval=False,
    ),
    _metrics("pairwise", *_sides("uniformity", "log mean exp(-2 |z - z'|^2)", -8, 0), null=False),
    _metrics(
        "pairwise",
        ("mmd2_u_centred_p", "permutation p-value of mmd2_u_centred, on at most 1,000 rows a side", 0, 1),
        ("mix_bias_underdetermined", "1 where mix_bias, itr, tir are nan: fewer than 1,000 pooled rows", 0, 1),
        ("pairwise_rows", "rows of the larger side that all pairwise metrics are made on", 2, None),
        interval=False,
        null=False,
    ),
)

# other definitions in use under the names of ours
VARIANTS = _by_key(
    _metrics(
        "first",
        ("centroid_gap_sq", "centroid gap as |g|^2", 0, 4),
        ("centroid_gap_sq_per_dim", "centroid gap as |g|^2/d, a mean squared error (CLIP-Refine, CVPR 2025)", 0, None),
        ("centroid_gap_of_directions", "centroid gap as the distance of the normalised means", 0, 2),
        ("rmg_centroid", "centroid gap / sqrt((tr S_x + tr S_y)/2)", 0, None),
        interval=False,
        null=False,
    ),
    _metrics(
        "first",
        ("rmg_sum", "RMG without the half: m / (m + a + b)", 0, 1),
        ("rmg_with_diagonal", "RMG with each row also paired with itself in a and b", 0, 1),
        pairs=True,
        interval=False,
        null=False,
    ),
    _metrics(
        "pairwise",
        ("rmg_euclidean", "RMG of distances instead of (1 - cos)/2", 0, 1),
        pairs=True,
        interval=False,
        null=False,
    ),
    _metrics(
        "second",
        *(
            row
            for split in ("80_20", "70_30", "10_90")
            for row in (
                (f"linear_sep_accuracy_{split}", f"accuracy of one split {split}, however few the rows", 0, 1),
                (f"linear_sep_one_minus_mse_{split}", f"1 - MSE of one split {split}, targets 0 and 1", None, 1),
            )
        ),
        interval=False,
        null=False,
    ),
)
