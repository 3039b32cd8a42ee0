"""The metrics of the modality gap against oracles in NumPy, SciPy and scikit-learn, and what leaves them unchanged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gap_oracle import oracle, units
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist, pdist
from sklearn.linear_model import RidgeClassifier as SklearnRidge

from koda_audit._gap import pairwise
from koda_audit._gap.by_group import modality_gap_by_group
from koda_audit._gap.centroid import gap_top_dims
from koda_audit._gap.folds import gaussians
from koda_audit._gap.metrics import modality_gap
from koda_audit._gap.separability import RIDGE, RidgeClassifier, accuracy
from koda_audit._gap.sides import sides
from koda_audit._gap.table import METRICS, VARIANTS
from koda_audit.errors import InputError


def cones(n, d, seed, gap=1.0, spread=0.4):
    """Two cones around a common direction: shared content and a residual of each side, both anisotropic, and a gap
    orthogonal to all of them; (n, d) each, not normalised."""
    random = np.random.default_rng(seed)
    scales = np.append(np.arange(1, d) ** -0.5, 0.0)
    shared = random.normal(size=(n, d)) * scales
    image, text = (shared + spread * random.normal(size=(n, d)) * scales for _ in range(2))
    image[:, -1], text[:, -1] = gap, -gap
    image[:, 0] += 1
    text[:, 0] += 1
    return image, text


def rotation(d, seed=0):
    return stats.ortho_group(d, seed=seed).rvs()


IMAGE, TEXT = cones(60, 7, seed=0)
MANY = cones(600, 7, seed=1, gap=0.3)  # for what needs 1,000 pooled rows


@pytest.mark.parametrize("rows", [50, 1024])
def test_every_metric_is_that_of_whole_matrices(rows, monkeypatch):
    monkeypatch.setattr(pairwise, "ROWS", rows)
    found, expected = modality_gap(*MANY), oracle(*MANY)
    apart = {"linear_sep", "linear_sep_underdetermined", "mmd2_u_centred_p", "mix_bias_underdetermined"}
    assert set(METRICS) - set(expected) == apart | {"pairwise_rows"}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-9), key


def test_the_raw_gap_splits_exactly():
    for seed in range(5):
        gap = modality_gap(*cones(40, 9, seed))
        parts = gap["centroid_gap"] ** 2 + gap["dist_gap_paired"] ** 2
        assert gap["raw_gap_rms"] ** 2 == pytest.approx(parts, rel=1e-14)
        assert gap["raw_gap_rms"] ** 2 == pytest.approx(2 * (1 - gap["pair_cosine"]), rel=1e-14)
        assert gap["alignment"] == pytest.approx(gap["raw_gap_rms"] ** 2, rel=1e-15)


SIDED = {key for key in METRICS if key.endswith(("_image", "_text"))}
PAIRED = {key for key, metric in METRICS.items() if metric.pairs} | {"uniformity_cross", "mmd2_u_centred_p"}
BASIS = {"gap_top2_share"}
DRAWN = {"linear_sep", "mmd2_u_centred_p"}  # depend on which rows are drawn together
TRANSLATES = {
    *("dist_gap_paired", "dist_gap_rel", "frechet_cov", "energy_centred", "mmd2_u_centred", "mmd2_u_centred_p"),
    *(f"{key}_{side}" for key in ("effective_dim", "participation_ratio", "uniformity") for side in ("image", "text")),
}
SCALELESS = {
    *("mean_cosine", "gap_top2_share", "pair_cosine", "dist_gap_rel", "rmg", "mmd2_u_centred", "itr", "tir"),
    *(
        f"{key}_{side}"
        for key in ("effective_dim", "participation_ratio", "gap_dir_var", "mix_bias")
        for side in ("image", "text")
    ),
}
ORDER = np.random.default_rng(5).permutation(600)
SHIFT = np.random.default_rng(6).normal(size=7)

# name: (image, text) -> (image, text), options, metrics that stay, metrics that must not
CASES = {
    "exchange": (lambda x, y: (y, x), {}, set(METRICS) - SIDED - {"itr", "tir"}, set()),
    "common rotation": (lambda x, y: (x @ rotation(7), y @ rotation(7)), {}, set(METRICS) - BASIS, BASIS),
    "order of pairs": (lambda x, y: (x[ORDER], y[ORDER]), {}, set(METRICS) - DRAWN, set()),
    "order of one side": (
        lambda x, y: (x, y[ORDER]),
        {},
        set(METRICS) - PAIRED - DRAWN,
        {"raw_gap_rms", "dist_gap_paired", "rmg", "uniformity_cross"},
    ),
    "translation of one side": (
        lambda x, y: (x, y + SHIFT),
        {"normalize": False},
        TRANSLATES,
        {"centroid_gap", "raw_gap_rms", "rmg", "energy", "gap_dir_var_image"},
    ),
    "common translation": (
        lambda x, y: (x + SHIFT, y + SHIFT),
        {"normalize": False},
        set(METRICS) - {"mean_cosine", "mean_length_image", "mean_length_text", "rmg", "pair_cosine"},
        {"rmg", "pair_cosine"},
    ),
    "common scale": (lambda x, y: (3 * x, 3 * y), {"normalize": False}, SCALELESS, {"centroid_gap", "energy"}),
    "lengths": (lambda x, y: (x * np.arange(1, 601)[:, None], y * 1e-3), {}, set(METRICS), set()),
}


@pytest.mark.parametrize("case", CASES)
def test_what_leaves_a_metric_unchanged(case):
    change, options, same, other = CASES[case]
    before, after = modality_gap(*MANY, **options), modality_gap(*change(*MANY), **options)
    for key in same:
        assert after[key] == pytest.approx(before[key], rel=1e-8, abs=1e-8, nan_ok=True), key
    for key in other:
        assert abs(after[key] - before[key]) > 1e-3, key


def test_exchange_exchanges_the_sides():
    there, back = modality_gap(*MANY), modality_gap(*MANY[::-1])
    assert there["itr"] == pytest.approx(back["tir"])
    for key in SIDED:
        name, side = key.rsplit("_", 1)
        assert there[key] == pytest.approx(back[f"{name}_{'text' if side == 'image' else 'image'}"]), key


def test_rows_twice_change_only_what_counts_rows():
    before, after = modality_gap(*MANY), modality_gap(*(np.repeat(values, 2, axis=0) for values in MANY))
    for key in ("centroid_gap", "raw_gap_rms", "dist_gap_paired", "dist_gap_rel", "energy", "energy_centred"):
        assert after[key] == pytest.approx(before[key], rel=1e-9, abs=1e-10), key  # equal rows, off by rounding
    for key in ("effective_dim_image", "participation_ratio_text", "gap_dir_var_image"):
        assert after[key] == pytest.approx(before[key], rel=1e-9), key
    assert after["frechet_cov"] == pytest.approx(before["frechet_cov"] * (599 / 600) * (1200 / 1199), rel=1e-8)
    assert after["mix_bias_image"] == after["mix_bias_text"] == 1  # each row has a copy in its own modality


def test_equal_sides_have_no_gap():
    gap = modality_gap(MANY[0], MANY[0])
    for key in ("centroid_gap", "raw_gap_rms", "dist_gap_paired", "dist_gap_rel", "rmg", "frechet_mean"):
        assert gap[key] == 0, key
    for key in ("frechet_cov", "energy", "energy_centred", "mix_bias_image", "mix_bias_text", "itr"):
        assert gap[key] == pytest.approx(0, abs=1e-7), key
    assert gap["energy_centred"] >= -1e-15
    assert gap["pair_cosine"] == 1
    assert gap["linear_sep"] == pytest.approx(0.5, abs=1e-12)
    assert gap["mmd2_u_centred"] < 0
    assert gap["mmd2_u_centred_p"] == 1
    assert math.isnan(gap["gap_dir_var_image"])


def test_uncorrelated_sides_have_a_relative_gap_of_one():
    random = np.random.default_rng(0)
    gap = modality_gap(random.normal(size=(4000, 5)), random.normal(size=(4000, 5)), pairwise_rows=100)
    assert gap["dist_gap_rel"] == pytest.approx(1, abs=0.03)
    assert modality_gap(IMAGE, -IMAGE)["dist_gap_rel"] == pytest.approx(2)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 10**6))
def test_bounds_hold_for_any_rows(n, d, seed):
    random = np.random.default_rng(seed)
    image, text = random.normal(size=(2, n, d)) + random.normal(size=(2, 1, d))
    for key, estimate in modality_gap(image, text, interval=True, variants=True).items():
        metric = METRICS.get(key) or VARIANTS[key]
        for value in estimate:
            assert math.isnan(value) or metric.low is None or value >= metric.low - 1e-9, key
            assert math.isnan(value) or metric.high is None or value <= metric.high + 1e-9, key
        assert math.isnan(estimate.low) == math.isnan(estimate.high), key


def test_the_ridge_classifier_is_that_of_sklearn():
    image, text = MANY[0][:300], MANY[1][:200]
    both = sides(image, text)
    ours = RidgeClassifier.fit(gaussians(both))
    rows = np.concatenate([units(image), units(text)])
    target = np.repeat([1, -1], [300, 200])
    gap = units(image).mean(axis=0) - units(text).mean(axis=0)
    trace = units(image).var(axis=0).sum() + units(text).var(axis=0).sum() + gap @ gap / 2
    theirs = SklearnRidge(alpha=RIDGE * trace / 7 * 500 / 2, class_weight="balanced").fit(rows, target)
    predicted = torch.cat([ours.predict(both.image), ours.predict(both.text)]).numpy()
    assert predicted == pytest.approx(theirs.decision_function(rows), abs=1e-9)
    hits = theirs.predict(rows) == target
    assert accuracy(ours, both) == pytest.approx((hits[:300].mean() + hits[300:].mean()) / 2)


def test_separability_is_held_out():
    random = np.random.default_rng(0)
    apart = modality_gap(random.normal(size=(200, 20)), random.normal(size=(200, 20)))
    assert apart["linear_sep"] == pytest.approx(0.5, abs=0.1)
    few = modality_gap(random.normal(size=(40, 20)), random.normal(size=(40, 20)))
    assert math.isnan(few["linear_sep"])
    assert few["linear_sep_underdetermined"] == 1
    assert few["mix_bias_underdetermined"] == 1
    assert math.isnan(few["mix_bias_image"])


def test_the_dimensions_of_the_gap():
    image, text = cones(100, 6, seed=2)
    dims, values = gap_top_dims(image, text, count=3)
    gap = units(image).mean(axis=0) - units(text).mean(axis=0)
    assert dims.tolist() == np.argsort(-abs(gap))[:3].tolist()
    assert values == pytest.approx(gap[dims])
    with pytest.raises(InputError, match=r"image rows are 6 wide, text rows 5"):
        gap_top_dims(image, text[:, :5])


def test_variants():
    found = modality_gap(IMAGE, TEXT, variants=True)
    x, y = units(IMAGE), units(TEXT)
    between, own = (1 - (x * y).sum(axis=1)).mean(), [pdist(z, "cosine").mean() for z in (x, y)]
    diagonal = [cdist(z, z, "cosine").mean() for z in (x, y)]
    distance = np.linalg.norm(x - y, axis=1).mean()
    square = found["centroid_gap"] ** 2
    expected = {
        "centroid_gap_sq": square,
        "centroid_gap_sq_per_dim": square / 7,
        "centroid_gap_of_directions": np.linalg.norm(units(x.mean(axis=0)[None]) - units(y.mean(axis=0)[None])),
        "rmg_sum": between / (between + sum(own)),
        "rmg_with_diagonal": between / (between + sum(diagonal) / 2),
        "rmg_euclidean": distance / (distance + (pdist(x).mean() + pdist(y).mean()) / 2),
        "rmg_centroid": math.sqrt(square / ((x.var(axis=0).sum() + y.var(axis=0).sum()) / 2)),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value), key
    assert set(found) == {*METRICS, *VARIANTS}
    assert not set(METRICS) & set(VARIANTS)
    assert found["linear_sep_accuracy_80_20"] == 1
    assert 0.9 < found["linear_sep_one_minus_mse_70_30"] < 1


@pytest.mark.parametrize("normalize", [True, False])
def test_groups_are_gaps_of_their_pairs(normalize):
    labels = np.array(["b", "a", "c", "single"])[np.arange(60) % 3]
    labels[-1] = "single"
    frame = modality_gap_by_group(IMAGE, TEXT, labels, normalize=normalize)
    assert frame.index.tolist() == ["a", "b", "c", "single"]
    assert frame.n.tolist() == [20, 20, 19, 1]
    for label in "abc":
        whole = modality_gap(IMAGE[labels == label], TEXT[labels == label], normalize=normalize)
        for key in set(frame.columns) - {"n"}:
            assert frame.loc[label, key] == pytest.approx(whole[key]), (label, key)
    assert frame.loc["single", "raw_gap_rms"] > 0
    assert np.isnan(frame.loc["single", "rmg"])
    with pytest.raises(InputError, match=r"labels are of several types \(int, str\)"):
        modality_gap_by_group(IMAGE, TEXT, np.array([1, "a"] * 30, dtype=object))
    for wrong in (labels[:5], [*labels[:59], None], [*labels[:59], float("nan")], np.zeros((60, 2))):
        with pytest.raises(InputError, match=r"60 pairs: expected one a pair, none missing"):
            modality_gap_by_group(IMAGE, TEXT, wrong)
