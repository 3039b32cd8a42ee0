"""Intervals, paired tests and Holm, against scipy, brute force and simulation."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from koda_audit._stats.chance import chance_level
from koda_audit._stats.clusters import mean_interval, per_image, resampled_means, standard_error
from koda_audit._stats.evidence import Evidence, beyond, exact, holm_levels, share, stated, stated_difference
from koda_audit._stats.paired import fall_evidence, hits_lost, mean_evidence, sign_flip_p_value
from koda_audit._stats.prediction import explained
from koda_audit.errors import InputError

ROUNDS = 4000


def flips(lost, gained, n):
    before = np.array([1] * lost + [0] * gained + [1] * (n - lost - gained), dtype=float)
    after = np.array([0] * lost + [1] * gained + [1] * (n - lost - gained), dtype=float)
    return before, after, np.arange(n)


@pytest.mark.parametrize(("lost", "gained", "n"), [(5, 0, 100), (9, 3, 50), (40, 22, 1000), (300, 240, 5000)])
def test_without_a_tolerance_it_is_exact_mcnemar(lost, gained, n):
    found = fall_evidence(*flips(lost, gained, n))
    assert found.method == "exact McNemar"
    assert found.estimate == pytest.approx((lost - gained) / n, abs=1e-15)
    assert found.p_value(0.0) == pytest.approx(
        stats.binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue, rel=1e-9
    )


@pytest.mark.parametrize("level", [0.2, 0.05, 0.01, 1e-4])
def test_the_bound_of_a_fall_is_above_0_exactly_where_mcnemar_rejects(level):
    for lost, gained in product(range(25), repeat=2):
        p = stats.binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue if lost + gained else 1.0
        assert (hits_lost(lost, gained, 60, level) > 1e-12) == (p < level * (1 - 1e-9)), (lost, gained)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 400), st.floats(1e-6, 0.4), st.floats(1.05, 2))
def test_the_bound_rises_with_the_level_and_stays_below_the_estimate(lost, gained, rest, level, factor):
    n = lost + gained + rest
    low, high = (hits_lost(lost, gained, n, each) for each in (level, min(level * factor, 0.5)))
    assert -1 <= low <= high + 1e-12
    assert high <= (lost - gained) / n + 1e-12


@pytest.mark.parametrize("n", [100, 400, 2000])
@pytest.mark.parametrize(
    ("fall", "changed"), [(0, 0.02), (0, 0.2), (0.01, 0.01), (0.01, 0.05), (0.05, 0.05), (0.05, 0.2), (0.5, 0.5)]
)
def test_the_bound_of_a_fall_keeps_its_level(n, fall, changed):
    """Also where all changes are losses: there the conditional bound alone would be beyond the truth up to 44 %."""
    shares = [(changed + fall) / 2, (changed - fall) / 2, 1 - changed]
    drawn = Counter(map(tuple, np.random.default_rng([n, 1]).multinomial(n, shares, ROUNDS)[:, :2].tolist()))
    bound = lru_cache(maxsize=None)(hits_lost)
    for level in (0.05, 0.005):
        wrong = sum(count for (b, c), count in drawn.items() if beyond(bound(b, c, n, level), fall))
        assert wrong <= stats.binom.ppf(0.9999, ROUNDS, level)


def clustered(seed, images=120, effect=0.0, spread=0.15):
    """Five hits an image that hang together, before and after; the chance of a hit falls by ``effect``."""
    random = np.random.default_rng(seed)
    ease = np.clip(random.normal(0.5, 0.3, images), 0.05, 0.95)
    shift = random.normal(0, spread, images)
    image = np.repeat(np.arange(images), 5)
    before = random.random(5 * images) < np.clip(ease + shift, 0, 1)[image]
    after = random.random(5 * images) < np.clip(ease - shift, 0, 1)[image] - effect
    return before.astype(float), after.astype(float), image


def test_queries_of_one_image_are_drawn_together():
    """Where an image changes as a whole, the error is that of images: sqrt(5) times that of single queries."""
    before, after = (np.repeat(part[0], 5) for part in np.split(np.random.default_rng(0).integers(0, 2, (2, 200)), 2))
    image = np.repeat(np.arange(200), 5)
    found = fall_evidence(before, after, image)
    alone = fall_evidence(before, after, np.arange(1000))
    assert found.method == "paired bootstrap over images"
    assert found.error / alone.error == pytest.approx(5**0.5, rel=0.02)
    assert found.estimate == pytest.approx(alone.estimate)


def test_the_paired_bootstrap_keeps_its_level_and_finds_a_true_fall():
    level, rounds = 0.05, 300
    none = [fall_evidence(*clustered(seed), draws=999).bound(level) > 0 for seed in range(rounds)]
    true = [fall_evidence(*clustered(seed, effect=0.12), draws=999).bound(level) > 0 for seed in range(60)]
    assert sum(none) <= stats.binom.ppf(0.9999, rounds, level)
    assert sum(none) >= 3  # a bound that never speaks would keep any level
    assert np.mean(true) > 0.8


def test_few_changed_images_do_not_fool_the_bootstrap():
    """Three images that lost one query each, none that gained: 1/8, and the percentile alone is surer than 1/20."""
    image = np.repeat(np.arange(200), 2)
    before, after = np.ones(400), np.ones(400)
    after[[0, 10, 20]] = 0
    sums, sizes = per_image(before - after, image)
    assert np.quantile(resampled_means(sums, sizes), 0.05) > 0
    found = fall_evidence(before, after, image)
    assert found.bound(0.05) == 0
    assert found.p_value(0.0) == pytest.approx(1 / 8, abs=0.02)


def test_the_sign_flip_test_is_mcnemar_for_single_hits():
    sums = np.array([1.0] * 14 + [-1.0] * 5 + [0.0] * 80)
    expected = stats.binomtest(14, 19, 0.5, alternative="greater").pvalue
    assert sign_flip_p_value(sums, draws=40_000) == pytest.approx(expected, rel=0.1)


def test_the_sign_flip_test_is_scipys_permutation_test():
    sums = np.round(np.random.default_rng(3).normal(0.2, 1, 12) * 3)
    found = stats.permutation_test((sums,), np.sum, permutation_type="samples", alternative="greater")
    assert sign_flip_p_value(sums, draws=40_000) == pytest.approx(found.pvalue, rel=0.1)


def test_drawing_kinds_is_drawing_images():
    random = np.random.default_rng(0)
    sums, sizes = random.integers(0, 3, 80).astype(float), random.integers(2, 4, 80).astype(float)
    drawn = random.integers(0, 80, (20_000, 80))
    plain = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    found = resampled_means(sums, sizes, 20_000)
    assert stats.ks_2samp(plain, found).pvalue > 1e-3
    assert standard_error(sums, sizes) == pytest.approx(plain.std(), rel=0.03)


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap():
    values, image = np.random.default_rng(1).integers(0, 2, 300).astype(float), np.arange(300)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    assert mean_interval(values, image) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_a_share_has_the_interval_of_clopper_and_pearson():
    for hits in (0, 1, 37, 99, 100):
        interval = stats.binomtest(hits, 100, alternative="greater").proportion_ci(0.95, "exact")
        assert share(hits, 100).bound(0.05) == pytest.approx(interval.low, abs=1e-12)
    assert share(37, 100).p_value(0.3) == pytest.approx(stats.binomtest(37, 100, 0.3, "greater").pvalue, rel=1e-9)
    assert mean_evidence(np.repeat([1.0, 0.0], [37, 63]), np.arange(100)).bound(0.05) == share(37, 100).bound(0.05)


def test_images_that_are_all_alike_are_not_taken_for_certain():
    found = mean_evidence(np.ones(9), np.repeat(np.arange(3), 3))
    assert (found.estimate, found.n) == (1.0, 3)
    assert found.bound(0.05) == pytest.approx(0.05 ** (1 / 3))


def test_the_mean_of_clusters_keeps_its_level():
    rounds, wrong = 300, 0
    for seed in range(rounds):
        random = np.random.default_rng([seed, 5])
        image = np.repeat(np.arange(150), 3)
        hits = random.random(450) < random.beta(2, 2, 150)[image]
        wrong += mean_evidence(hits.astype(float), image, draws=999).bound(0.05) > 0.5
    assert 3 <= wrong <= stats.binom.ppf(0.9999, rounds, 0.05)


@pytest.mark.parametrize("level", [0.1, 0.05, 0.01])
def test_p_value_and_bound_say_the_same(level):
    each = (
        fall_evidence(*flips(30, 12, 400)),
        fall_evidence(*clustered(4, effect=0.1)),
        share(80, 100),
        stated(1.0, 0.9, 1.2),
        stated_difference((1.0, 0.9, 1.2), (0.8, 0.7, 0.85)),
    )
    for found in each:
        at = found.bound(level)
        assert found.p_value(at + 1e-9) > level * (1 - 1e-6)
        assert found.p_value(at - 1e-6) <= level * (1 + 1e-6)


def test_p_values_are_cut_at_both_ends():
    assert stated(1.0, 0.99, 1.01).p_value(0.0) == 1e-12
    assert stated(1.0, 0.9, 1.1).p_value(2.0) == 1.0
    assert exact(3.0).p_value(2.0) is None


def test_stated_intervals_give_the_normal_bounds():
    half = stats.norm.ppf(0.975)
    assert stated(2.0, 2 - half, 2 + half).bound(0.05) == pytest.approx(2 - stats.norm.ppf(0.95))
    found = stated_difference((2.0, 2 - 3 * half, 2 + half), (1.0, 1 - half, 1 + 4 * half))
    assert found.error == pytest.approx(5.0)  # the sides that matter: 3 below the left, 4 above the right
    assert found.bound(0.05) == pytest.approx(1 - 5 * stats.norm.ppf(0.95))
    # an estimate outside of its interval is replaced by the middle
    assert stated(1.0, 0.0, 0.5).bound(0.025) == pytest.approx(0.0)
    assert stated(2.0, 2.0, 2.0).bound is None
    assert stated_difference((2.0, 2.0, 2.0), (1.0, 1.0, 1.0)).bound is None


@pytest.mark.parametrize(("n", "error"), [(400, 0.0), (400, 0.01), (2000, 0.004)])
def test_a_fall_of_the_smallest_detectable_size_is_found_four_times_in_five(n, error):
    """Losses on top of as many changes both ways as make this error."""
    changed = error**2 * n
    smallest = Evidence(0.0, None, error, n, "").smallest_detectable(0.0, 0.05)
    shares = [changed / 2 + smallest, changed / 2, 1 - changed - smallest]
    drawn = np.random.default_rng(0).multinomial(n, shares, ROUNDS)
    bound = lru_cache(maxsize=None)(hits_lost)
    power = np.mean([bound(b, c, n, 0.05) > 0 for b, c, _ in drawn.tolist()])
    assert 0.7 < power < 0.9  # 0.8 by the normal distribution; few changes make the exact test a little weaker


def holm_by_closure(p_values, level):
    """Holm is Bonferroni on every intersection: a hypothesis falls where all sets that hold it fall."""
    k = len(p_values)
    sets = [chosen for size in range(1, k + 1) for chosen in combinations(range(k), size)]
    falls = {chosen: min(p_values[i] for i in chosen) * len(chosen) <= level for chosen in sets}
    return [all(falls[chosen] for chosen in sets if i in chosen) for i in range(k)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.001, 0.004, 0.01, 0.012, 0.02, 0.024, 0.04, 0.2, 1.0]), min_size=1, max_size=6))
def test_holm_is_closed_bonferroni(p_values):
    levels = holm_levels(p_values, [0.05] * len(p_values))
    assert [p <= each for p, each in zip(p_values, levels, strict=True)] == holm_by_closure(p_values, 0.05)
    assert all(0.05 / len(p_values) <= each <= 0.05 for each in levels)


def test_holm_with_levels_of_their_own():
    p_values, levels = [0.001, 0.02, 0.03], [0.05, 0.01, 0.2]
    held = [p <= each for p, each in zip(p_values, holm_levels(p_values, levels), strict=True)]
    assert held == [holm_by_closure(p_values, level)[i] for i, level in enumerate(levels)]


CHANCE = [
    ("acc1", {"classes": 10}, 0.1),
    ("aligned_acc5", {"classes": 3}, 1.0),
    ("mean_per_class_recall", {"classes": 4}, 0.25),
    ("image_retrieval_recall@5", {"gallery": 50}, 0.1),
    ("image_retrieval_recall@10", {"gallery": 5}, 1.0),
    ("text_retrieval_recall@2", {"gallery": 4, "right": 2}, 1 - 1 / 6),
    ("text_retrieval_recall@2", {"gallery": 4, "right": [2, 0]}, (1 - 1 / 6) / 2),
    ("acc1", {}, None),
    ("ari", {"classes": 10}, None),
    ("recall@x", {"gallery": 5}, None),
]


@pytest.mark.parametrize(("metric", "known", "expected"), CHANCE)
def test_chance_levels(metric, known, expected):
    assert chance_level(metric, **known) == (None if expected is None else pytest.approx(expected))


def test_chance_of_recall_is_what_random_orders_give():
    random = np.random.default_rng(0)
    hits = [(random.permutation(20)[:3] < 5).any() for _ in range(20_000)]  # 5 of 20 are right, 3 are looked at
    assert chance_level("text_retrieval_recall@3", gallery=20, right=5) == pytest.approx(np.mean(hits), abs=0.015)


def models(count=8, seed=0, noise=0.3):
    random = np.random.default_rng(seed)
    gap = np.repeat(random.normal(size=count), 3) + random.normal(0, 0.2, 3 * count)
    return pd.DataFrame(
        {
            "model": np.repeat([f"m{i}" for i in range(count)], 3),
            "gap": gap,
            "acc1": 2 - 0.5 * gap + np.repeat(random.normal(0, noise, count), 3),
            "constant": 0.1 + 0.2,
        }
    )


def test_explained_variance_is_that_of_the_straight_line():
    table = models()
    found = explained(table, ["gap"], ["acc1", "constant"])
    line = stats.linregress(table["gap"], table["acc1"])
    first = found.iloc[0]
    assert first.r2 == pytest.approx(line.rvalue**2)
    assert first.slope == pytest.approx(line.slope)
    assert (first.n, first.models) == (24, 8)
    assert 0 <= first.low < first.r2 < first.high <= 1
    assert found.iloc[1][["r2", "slope", "low", "high"]].isna().all()


def test_the_interval_is_over_models_and_not_over_their_alignments():
    table = models(noise=0.5)
    one = explained(table, ["gap"], ["acc1"]).iloc[0]
    alone = explained(table.assign(model=[str(i) for i in range(24)]), ["gap"], ["acc1"]).iloc[0]
    assert one.high - one.low > 1.3 * (alone.high - alone.low)
    draws = [table[table.model == f"m{i}"] for i in range(8)]
    random = np.random.default_rng(0)
    plain = []
    for _ in range(1500):
        again = pd.concat([draws[i] for i in random.integers(0, 8, 8)])
        plain.append(np.corrcoef(again["gap"], again["acc1"])[0, 1] ** 2)
    assert (one.low, one.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.05)


def test_too_few_points_or_models_have_no_number():
    table = models()
    few = explained(table.head(7), ["gap"], ["acc1"]).iloc[0]
    assert np.isnan(few.r2)
    assert few.n == 7
    four = explained(table.head(12), ["gap"], ["acc1"]).iloc[0]
    assert four.r2 > 0
    assert np.isnan(four.low)
    table.loc[:17, "acc1"] = np.nan  # not measured
    assert explained(table, ["gap"], ["acc1"]).iloc[0].n == 6
    with pytest.raises(InputError, match="no column recall"):
        explained(table, ["gap"], ["recall"])
