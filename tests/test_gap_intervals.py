"""Intervals cover what they should, nulls are those of halves, and every draw has a seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from koda_audit._gap.centroid import centroid_metrics
from koda_audit._gap.folds import drawn_groups
from koda_audit._gap.intervals import bootstrap_limits
from koda_audit._gap.means import means
from koda_audit._gap.measured import Settings, first_order, measured
from koda_audit._gap.metrics import modality_gap
from koda_audit._gap.mmd import median_gamma, mmd_p
from koda_audit._gap.pairwise import pair_sums
from koda_audit._gap.sides import sides
from koda_audit._gap.table import METRICS
from koda_audit._stats.bootstrap import basic_interval, resampled_counts
from koda_audit._stats.jackknife import jackknife_interval

RANDOM = np.random.default_rng(3)
CONTENT = RANDOM.normal(size=(520, 6))
IMAGE, TEXT = (CONTENT + RANDOM.normal(size=(520, 6)) + shift for shift in (0.5, 0.0))


def test_resampled_counts_are_draws_with_replacement():
    counts = resampled_counts(200, draws=3000, seed=1)
    assert (counts.sum(axis=1) == 200).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(200), abs=0.1)
    assert counts.var(axis=0).mean() == pytest.approx(1 - 1 / 200, rel=0.02)
    assert not np.array_equal(counts, resampled_counts(200, draws=3000, seed=2))


def test_the_bootstrap_is_that_of_rows_drawn_again():
    both = sides(IMAGE, TEXT)
    counts = resampled_counts(520, draws=4, seed=0)
    weighed = first_order(found := means(both, counts, counts), found)
    for draw in range(4):
        rows = np.repeat(np.arange(520), counts[draw])
        again = means(both.chosen(rows, rows))
        for key, value in first_order(again, again).items():
            assert weighed[key][draw].item() == pytest.approx(value.item(), rel=1e-10), key


def test_without_pairs_each_side_is_drawn_by_itself():
    both = sides(IMAGE, TEXT[:300])
    image, text = resampled_counts(520, draws=2, seed=0), resampled_counts(300, draws=2, seed=1)
    weighed = centroid_metrics(means(both, image, text))
    for draw in range(2):
        rows = [np.repeat(np.arange(len(counts[draw])), counts[draw]) for counts in (image, text)]
        again = centroid_metrics(means(both.chosen(*rows)))
        for key in ("centroid_gap", "centroid_gap_sq_unbiased", "mean_cosine"):
            assert weighed[key][draw].item() == pytest.approx(again[key].item()), key


@pytest.mark.parametrize("gap", [0.0, 0.5, 3.0])
def test_the_interval_of_the_centroid_gap_covers_it(gap):
    covered, trials = 0, 150
    for seed in range(trials):
        random = np.random.default_rng(seed)
        image, text = random.normal(size=(2, 60, 8))
        image[:, 0] += gap
        both, counts = sides(image, text, normalize=False), resampled_counts(60, seed=[seed, 0])
        value, drawn = (centroid_metrics(means(both, of, of)) for of in (None, counts))
        limits = bootstrap_limits(
            {key: of.item() for key, of in value.items()}, {key: of.numpy() for key, of in drawn.items()}, paired=False
        )
        low, high = limits["centroid_gap"]
        assert limits["frechet_mean"] == limits["centroid_gap_sq_unbiased"]
        covered += low <= gap <= high
    assert covered / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_jackknife_of_centred_pairs_is_that_of_leaving_rows_out():
    """To first order in how the centroids move; the bandwidth is held."""
    random = np.random.default_rng(0)
    image, text = random.exponential(size=(2, 400, 5))
    both = sides(image, text**1.5, normalize=False)
    groups, gamma = drawn_groups(both, 20, seed=0), median_gamma(both)
    sums, none = pair_sums(both, groups, gamma), np.zeros(380, dtype=int)
    quick = [sums.metrics(group) for group in range(20)]
    exact = []
    for group in range(20):
        rest = both.chosen(*(np.flatnonzero(numbers != group) for numbers in groups))
        exact.append(pair_sums(rest, (none, none), gamma).metrics())
    for key in ("energy", "uniformity_image", "uniformity_cross", "uniformity_joint"):
        assert [of[key] for of in quick] == pytest.approx([of[key] for of in exact], rel=1e-9), key
    for key in ("energy_centred", "mmd2_u_centred"):
        widths = [np.ptp(jackknife_interval(0.0, [of[key] for of in some])) for some in (quick, exact)]
        assert widths[0] == pytest.approx(widths[1], rel=0.05), key


def test_intervals_of_covariances_are_a_jackknife():
    found = modality_gap(IMAGE, TEXT, interval=True)
    groups, _ = drawn_groups(sides(IMAGE, TEXT), 20, seed=0)
    rest = [modality_gap(IMAGE[groups != group], TEXT[groups != group], pairwise_rows=4) for group in range(20)]
    for key in ("frechet_cov", "effective_dim_image", "participation_ratio_text", "gap_dir_var_image"):
        expected = jackknife_interval(found[key].value, [of[key] for of in rest])
        assert (found[key].low, found[key].high) == pytest.approx(expected, rel=1e-6), key


def test_the_null_is_the_metric_of_halves():
    found = modality_gap(IMAGE, TEXT, interval=True)
    both, plain = sides(IMAGE, TEXT), Settings(True, False, False, 20, 10_000, 0)
    image, text = (measured(both.halved(name, seed=0), plain)[0] for name in ("image", "text"))
    for key, estimate in found.items():
        if not METRICS[key].null:
            assert math.isnan(estimate.null), key
        elif key.endswith("_image"):
            assert estimate.null == pytest.approx(image.get(key, math.nan), nan_ok=True), key
        elif key.endswith("_text"):
            assert estimate.null == pytest.approx(text.get(key, math.nan), nan_ok=True), key
    value = found["frechet_cov"].value
    assert found["frechet_cov"].null == min(
        (image["frechet_cov"], text["frechet_cov"]), key=lambda null: abs(null - value)
    )
    rows = both.halved("image", seed=0)
    assert len(rows.image) == len(rows.text) == 260
    assert not (rows.image[:, None] == rows.text).all(dim=2).any()


def test_values_do_not_depend_on_intervals_and_draws_depend_on_the_seed():
    found, again, other = (modality_gap(IMAGE, TEXT, interval=True, seed=seed) for seed in (0, 0, 1))
    plain = modality_gap(IMAGE, TEXT)
    for key, estimate in found.items():
        assert estimate.value == pytest.approx(plain[key], rel=1e-12, nan_ok=True), key
        assert estimate == pytest.approx(again[key], rel=0, abs=0, nan_ok=True), key
    for key in ("centroid_gap", "frechet_cov", "energy_centred"):
        assert found[key].low != other[key].low, key
        assert found[key].null != other[key].null, key


def test_the_permutation_test_holds_its_level_and_finds_a_difference():
    values = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        image, text = random.normal(size=(2, 40, 3))
        both = sides(image, text, normalize=False, paired=seed % 2 == 0)
        values.append(mmd_p(both, median_gamma(both), permutations=99, seed=seed))
    assert np.mean(np.array(values) <= 0.1) < 0.1 + 3 * math.sqrt(0.09 / 60)
    assert 0.5 < np.mean(values) < 0.9
    for paired in (True, False):
        wide = sides(random.normal(size=(60, 3)), 3 * random.normal(size=(60, 3)), normalize=False, paired=paired)
        assert mmd_p(wide, median_gamma(wide), permutations=99) == 0.01


def test_unbiased_gaps_are_zero_on_average():
    found = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        content = random.normal(size=(30, 4))
        image, text = (content + random.normal(size=(30, 4)) for _ in range(2))
        metrics = centroid_metrics(means(sides(image, text, normalize=False)))
        apart = centroid_metrics(means(sides(image, random.normal(size=(20, 4)) * 2, normalize=False)))
        found.append([metrics["centroid_gap_sq_unbiased_paired"].item(), apart["centroid_gap_sq_unbiased"].item()])
    error = np.std(found, axis=0) / math.sqrt(300)
    assert (abs(np.mean(found, axis=0)) < 3 * error).all()


def test_pairwise_metrics_of_many_rows_are_made_on_some():
    found = modality_gap(IMAGE, TEXT, pairwise_rows=100)
    assert found["pairwise_rows"] == 100
    assert found["mix_bias_underdetermined"] == 1
    drawn = np.random.default_rng([0, 520]).choice(520, 100, replace=False)
    some = modality_gap(IMAGE[drawn], TEXT[drawn])
    for key in ("energy", "uniformity_cross", "mmd2_u_centred"):
        assert found[key] == pytest.approx(some[key]), key
    assert found["centroid_gap"] != pytest.approx(some["centroid_gap"])


def test_the_basic_interval_of_a_mean_is_its_normal_one():
    random = np.random.default_rng(0)
    low, high = basic_interval(5.0, 5 + random.normal(size=200_000))
    assert (low, high) == pytest.approx((5 - 1.96, 5 + 1.96), abs=0.02)


def test_a_tensor_on_any_device_is_taken():
    found = modality_gap(torch.tensor(IMAGE), torch.tensor(TEXT), interval=True)
    assert found["rmg"] == pytest.approx(modality_gap(IMAGE, TEXT, interval=True)["rmg"])


@pytest.mark.parametrize("paired", [True, False])
def test_of_the_two_unbiased_squares_the_one_that_fits_has_an_interval(paired):
    random = np.random.default_rng(0)
    image = random.normal(size=(80, 6)) + 1
    gap = modality_gap(image, image + 0.3 * random.normal(size=(80, 6)) + 0.2, paired=paired, interval=True)
    fits, other = ("_paired", "") if paired else ("", "_paired")
    low, high = gap[f"centroid_gap_sq_unbiased{fits}"][1:3]
    assert low <= gap[f"centroid_gap_sq_unbiased{fits}"].value <= high
    assert math.isnan(gap[f"centroid_gap_sq_unbiased{other}"].low)
