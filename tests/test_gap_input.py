"""What is no gap is refused in one sentence, or has a value that is defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from koda_audit._gap.metrics import modality_gap
from koda_audit._gap.table import METRICS
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(2, 30, 4))


def changed(row, value):
    values = X.astype(np.asarray(value).dtype)
    values[row] = value
    return values


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        (X[:1], Y, "1 image rows and 30 text rows: a gap needs at least 2 of each"),
        (X, Y[:1], "30 image rows and 1 text rows: a gap needs at least 2 of each"),
        (X[:0], Y, r"image has shape \(0, 4\): expected \(rows, columns\), neither of them 0"),
        (X[0], Y, r"image has shape \(4,\)"),
        (changed(7, 0.0), Y, "image row 7 has length 0, so no direction: leave it out"),
        (X, changed(3, 0.0), "text row 3 has length 0"),
        (changed(7, np.nan), Y, r"image is not finite: entry \(7, 0\) is nan"),
        (X, changed(5, np.inf), r"text is not finite: entry \(5, 0\) is inf"),
        (X.astype(complex), Y, "image has dtype complex128: expected real numbers"),
        (X, Y.astype(object), "text has dtype object: expected real numbers"),
        (X > 0, Y, "image has dtype bool"),
        (torch.eye(4).to_sparse(), Y, "image is a sparse tensor"),
        (np.ma.masked_less(X, 0), Y, "image has masked entries: fill them or leave their rows out"),
        (np.full((30, 4), np.longdouble("1e400")), Y, r"image is not finite: entry \(0, 0\) is inf"),
    ],
)
def test_bad_rows_are_refused(image, text, message, normalize):
    with pytest.raises(InputError, match=message):
        modality_gap(image, text, normalize=normalize)


@pytest.mark.filterwarnings("ignore")  # of torch, that these are old or new
@pytest.mark.parametrize("kind", ["quantised", "nested"])
def test_tensors_of_a_strange_kind_are_refused(kind):
    if kind == "nested":
        image = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    else:
        image = torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8)
    with pytest.raises(InputError, match=f"image is a {kind} tensor: expected a dense one"):
        modality_gap(image, Y)


@pytest.mark.parametrize("scale", [1e-200, 1e100, 1e200])
def test_rows_of_any_length_have_directions_and_raw_rows_need_digits(scale):
    assert modality_gap(X * scale, Y) == pytest.approx(modality_gap(X, Y), nan_ok=True)
    with pytest.raises(InputError, match=r"image row 0 has .* as its largest entry: expected 1e-75 to 1e\+75"):
        modality_gap(X * scale, Y, normalize=False)


@pytest.mark.parametrize("scale", [1e-74, 1e74])
def test_raw_rows_within_bounds_have_numbers(scale):
    raw, plain = modality_gap(X * scale, Y * scale, normalize=False), modality_gap(X, Y, normalize=False)
    for key in ("rmg", "effective_dim_image", "linear_sep", "gap_dir_var_text", "dist_gap_rel"):
        assert raw[key] == pytest.approx(plain[key], nan_ok=True), key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paired": True, "text": Y[:20]}, "30 image rows and 20 text rows are no pairs: give one text an image"),
        *(({"groups": groups}, "groups is .*: expected a whole number from 2") for groups in (1, 2.5, None, "3")),
        *(({"pairwise_rows": rows}, "pairwise_rows is .*: expected a whole number") for rows in (3, 7.5, None)),
        *(({"seed": seed}, "seed is .*: expected a whole number from 0") for seed in (-1, None, 1.5, math.nan, "a")),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        modality_gap(**{"image": X, "text": Y, **options})


@pytest.mark.parametrize("options", [{"text": Y[:20]}, {"text": Y, "paired": False}])
def test_without_pairs_what_needs_them_is_nan(options):
    gap = modality_gap(X, **options, interval=True, variants=True)
    for key, metric in METRICS.items():
        assert math.isnan(gap[key].value) == (
            metric.pairs or key.startswith(("mix_bias_i", "mix_bias_t")) or key in ("itr", "tir")
        ), key
    assert not math.isnan(gap["centroid_gap"].low)
    assert math.isnan(gap["rmg_sum"].value)
    assert all(math.isnan(part) for part in gap["raw_gap_rms"])
    everything = modality_gap(X, Y, paired=False)["uniformity_cross"]
    assert everything != modality_gap(X, Y)["uniformity_cross"]


def test_of_unequal_widths_each_side_has_its_own_numbers():
    gap = modality_gap(X, Y[:, :3], interval=True, variants=True)
    for key, metric in METRICS.items():
        assert math.isnan(gap[key].value) == metric.equal_widths, key
        assert math.isnan(gap[key].low) == metric.equal_widths, key
    assert gap["effective_dim_text"].value == pytest.approx(modality_gap(Y[:, :3], X[:, :3])["effective_dim_image"])


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("interval", [False, True])
def test_few_rows_have_values(n, interval):
    gap = modality_gap(X[:n], Y[:n], interval=interval, variants=True)
    value = gap["centroid_gap"].value if interval else gap["centroid_gap"]
    assert value == pytest.approx(modality_gap(X[:n], Y[:n])["centroid_gap"])
    if interval:
        assert math.isnan(gap["frechet_cov"].low) == (n < 4)
        assert math.isnan(gap["centroid_gap"].null) == (n < 4)


def test_rows_that_are_all_equal_have_defined_values():
    gap = modality_gap(np.tile(X[0], (600, 1)), np.tile(Y[0], (600, 1)), interval=True, variants=True)
    distance = np.linalg.norm(X[0] / np.linalg.norm(X[0]) - Y[0] / np.linalg.norm(Y[0]))
    for key in ("centroid_gap", "raw_gap_mean", "raw_gap_rms"):
        assert gap[key][:3] == pytest.approx((distance,) * 3), key
    for key in ("dist_gap_paired", "frechet_cov", "energy_centred", "uniformity_image"):
        assert gap[key].value == pytest.approx(0, abs=1e-7), key
    assert gap["rmg"].value == pytest.approx(1)
    assert gap["linear_sep"].value == gap["mix_bias_image"].value == 1


def test_two_point_masses_have_no_ratio_and_no_bandwidth():
    """Whether the rows of a side are equal, or differ by rounding once they are divided by their lengths."""
    for lengths in (np.ones((30, 1)), RANDOM.uniform(0.1, 10, (30, 1))):
        gap = modality_gap(lengths * X[0], lengths * Y[0])
        for key in ("mmd2_u_centred", "mmd2_u_centred_p", "dist_gap_rel"):
            assert math.isnan(gap[key]), key
        assert gap["rmg"] == 1


def test_constant_columns_and_equal_sides_of_equal_rows():
    constant = np.hstack([X, np.ones((30, 2))]), np.hstack([Y, np.ones((30, 2))])
    gap = modality_gap(*constant, normalize=False)
    assert gap["frechet_cov"] == pytest.approx(modality_gap(X, Y, normalize=False)["frechet_cov"])
    assert gap["effective_dim_image"] == pytest.approx(modality_gap(X, Y, normalize=False)["effective_dim_image"])
    same = modality_gap(np.ones((30, 4)), np.ones((30, 4)), interval=True, variants=True)
    for key in ("dist_gap_rel", "rmg", "gap_top2_share", "gap_dir_var_image", "mmd2_u_centred", "effective_dim_text"):
        assert math.isnan(same[key].value), key
    assert same["linear_sep"].value == 0.5
    assert same["centroid_gap"] == (0, 0, 0, 0)


def test_input_is_not_changed():
    tensor, array = torch.tensor(X), Y.copy()
    modality_gap(tensor, array, interval=True, variants=True)
    assert torch.equal(tensor, torch.tensor(X))
    assert (array == Y).all()
