"""Agreement under noise against an oracle in numpy, the closed form of two items, and figures of a real CLIP."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from koda_audit._gap.robustness import gap_robustness, quantised
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
C, M, D = 12, 200, 40
GALLERY = RANDOM.normal(size=(C, D)) + 0.5
TRUTH = RANDOM.integers(C, size=M)
QUERIES = GALLERY[TRUTH] + 1.5 * RANDOM.normal(size=(M, D)) - 1.0
PERTURBED = [GALLERY + 0.3 * RANDOM.normal(size=(C, D)) for _ in range(3)]
METRICS = ("euclidean", "cosine", "dot")
ALPHAS = (-0.5, 0.0, 0.5, 1.0, 1.5)


def units(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def nearest(gallery, queries, metric):
    if metric == "euclidean":
        return cdist(queries, gallery, "sqeuclidean").argmin(axis=1)
    return (queries @ (units(gallery) if metric == "cosine" else gallery).T).argmax(axis=1)


def noisy(noise, moved, gallery, trial):
    """The noise of the settings below, written out."""
    if noise == "gaussian":
        return moved + math.sqrt(0.3 / D) * np.random.default_rng([7, trial]).standard_normal((C, D))
    if noise == "perturbed":
        return moved + units(PERTURBED[trial]) - gallery
    edges = np.linspace(moved.min(), moved.max(), 6 + 1)
    return ((edges[:-1] + edges[1:]) / 2)[np.clip(np.digitize(moved, edges) - 1, 0, 5)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("noise", "trials"), [("gaussian", 4), ("quantise", 1), ("perturbed", 3)])
def test_every_figure_is_that_of_an_oracle_with_the_same_draws(noise, trials, metric):
    found = gap_robustness(
        GALLERY,
        QUERIES,
        TRUTH,
        noise,
        total_var=0.3,
        bins=6,
        perturbed=PERTURBED if noise == "perturbed" else None,
        metric=metric,
        alphas=ALPHAS,
        rank=4,
        trials=4,
        seed=7,
    )
    x, y = units(GALLERY), units(QUERIES)
    g = y.mean(axis=0) - x.mean(axis=0)
    v = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:4]
    shift = g - v.T @ (v @ g)
    clean = np.array([nearest(x + alpha * shift, y, metric) for alpha in ALPHAS])
    answers = np.array(
        [[nearest(noisy(noise, x + a * shift, x, trial), y, metric) for a in ALPHAS] for trial in range(trials)]
    )
    np.testing.assert_array_equal(found.clean, clean)
    np.testing.assert_array_equal(found.noisy, answers)
    same, right = (answers == clean).mean(axis=2), (answers == TRUTH).mean(axis=2)
    expected = {
        "alpha": ALPHAS,
        "gap": [np.linalg.norm(g - alpha * shift) for alpha in ALPHAS],
        "clean_kept": (clean == clean[1]).mean(axis=1),
        "agreement": same.mean(axis=0),
        "agreement_se": stats.sem(same) if trials > 1 else np.full(5, np.nan),
        "agreement_gain": (same - same[:, [1]]).mean(axis=0),
        "agreement_gain_se": stats.sem(same - same[:, [1]]) if trials > 1 else np.full(5, np.nan),
        "clean_accuracy": (clean == TRUTH).mean(axis=1),
        "noisy_accuracy": right.mean(axis=0),
        "noisy_accuracy_se": stats.sem(right) if trials > 1 else np.full(5, np.nan),
        "noisy_accuracy_gain": (right - right[:, [1]]).mean(axis=0),
        "noisy_accuracy_gain_se": stats.sem(right - right[:, [1]]) if trials > 1 else np.full(5, np.nan),
    }
    if noise == "quantise":
        expected |= {f"range_{end}": [getattr(x + a * shift, how)() for a in ALPHAS] for end, how in ENDS}
    pd.testing.assert_frame_equal(found.frame, pd.DataFrame(expected), rtol=0, atol=1e-13)
    assert found.settings["trials"] == trials
    assert found.settings["rank"] == 4
    assert found.settings["residual_gap"] == pytest.approx(np.linalg.norm(v @ g), abs=1e-13)
    for number, alpha in enumerate(ALPHAS):
        flips = np.zeros((C, C))
        np.add.at(flips, (np.tile(clean[number], trials), answers[:, number].ravel()), 1)
        listed = found.flips(alpha)
        assert listed["count"].is_monotonic_decreasing
        np.testing.assert_array_equal(flips[listed["clean"], listed["noisy"]], listed["count"])
        assert listed["count"].sum() == flips.sum() == trials * M


ENDS = (("low", "min"), ("high", "max"))


@pytest.mark.parametrize("metric", METRICS)
def test_without_noise_agreement_is_exactly_1(metric):
    for options in ({"total_var": 0.0}, {"noise": "perturbed", "perturbed": GALLERY}):
        frame = gap_robustness(GALLERY, QUERIES, metric=metric, rank=2, trials=3, **options).frame
        assert (frame["agreement"] == 1).all()
        assert (frame["agreement_gain"] == 0).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_clean_answers_are_kept_at_full_rank_and_not_below(metric):
    wide = gap_robustness(GALLERY, QUERIES, metric=metric, alphas=ALPHAS, trials=1).frame
    assert (wide["clean_kept"] == 1).all()
    low = gap_robustness(GALLERY, QUERIES, metric=metric, alphas=ALPHAS, trials=1, rank=0).frame
    assert (low["clean_kept"] < 1).tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("rank", [None, 0, 3])
def test_alpha_has_no_effect_on_dot_products(rank):
    found = gap_robustness(GALLERY, QUERIES, metric="dot", alphas=ALPHAS, total_var=0.5, trials=5, rank=rank)
    assert found.frame["agreement"].between(0.05, 0.95).all()
    assert (found.clean == found.clean[0]).all()
    assert (found.noisy == found.noisy[:, :1]).all()


def test_with_draws_of_its_own_alpha_has_no_effect_on_dot_products_in_distribution():
    """Two seeds, so the draws at alpha 0 and 1 are independent."""
    kept = [
        gap_robustness(GALLERY, QUERIES, metric="dot", alphas=[1.0], total_var=0.3, trials=60, seed=seed).frame.iloc[
            row
        ]
        for seed, row in ((1, 0), (2, 1))
    ]
    difference = kept[0]["agreement"] - kept[1]["agreement"]
    assert difference != 0
    assert abs(difference) < 3 * math.hypot(kept[0]["agreement_se"], kept[1]["agreement_se"])


def answers(gallery, queries, perturbed, metric):
    """(1 + trials, alphas, m): clean, then noisy."""
    found = gap_robustness(
        gallery, queries, noise="perturbed", perturbed=perturbed, metric=metric, alphas=ALPHAS, normalize=False
    )
    return np.concatenate([found.clean[None], found.noisy])


ORDER = RANDOM.permutation(C)
ROTATION = np.linalg.qr(RANDOM.normal(size=(D, D)))[0]
INVARIANCES = {
    "rotation": (lambda rows: rows @ ROTATION, METRICS),
    "scale": (lambda rows: 1e-5 * rows, METRICS),
    "common translation": (lambda rows: rows + 1e3, ["euclidean"]),
}


@pytest.mark.parametrize(
    ("name", "metric"), [(name, metric) for name in INVARIANCES for metric in INVARIANCES[name][1]]
)
def test_invariances(name, metric):
    change = INVARIANCES[name][0]
    usual = answers(GALLERY, QUERIES, PERTURBED, metric)
    found = answers(change(GALLERY), change(QUERIES), [change(rows) for rows in PERTURBED], metric)
    np.testing.assert_array_equal(found, usual)


@pytest.mark.parametrize("metric", METRICS)
def test_permuting_the_gallery_with_its_noise_permutes_the_answers(metric):
    usual = answers(GALLERY, QUERIES, PERTURBED, metric)
    found = answers(GALLERY[ORDER], QUERIES, [rows[ORDER] for rows in PERTURBED], metric)
    np.testing.assert_array_equal(ORDER[found], usual)


@pytest.mark.parametrize("metric", METRICS)
def test_lengths_do_not_matter_once_rows_are_normalised(metric):
    first = gap_robustness(GALLERY, QUERIES, metric=metric, trials=3)
    second = gap_robustness(GALLERY * RANDOM.uniform(0.1, 9, (C, 1)), 7 * QUERIES, metric=metric, trials=3)
    np.testing.assert_array_equal(first.noisy, second.noisy)


def test_draws_depend_on_the_seed_alone():
    frames = [
        gap_robustness(GALLERY, QUERIES, seed=seed, alphas=alphas, total_var=0.3).frame
        for seed, alphas in ((3, [0.5, 1.0]), (3, [1.0]), (4, [1.0]))
    ]
    pd.testing.assert_frame_equal(frames[0].iloc[[0, 2]].reset_index(drop=True), frames[1])
    assert (frames[1]["agreement"] != frames[2]["agreement"]).all()


@pytest.mark.parametrize("total_var", [0.01, 0.04])
def test_two_items_flip_as_a_gaussian_says(total_var):
    """D = |x_1 - y|^2 - |x_2 - y|^2 gets variance 4 s^2 (|x_1 - y|^2 + |x_2 - y|^2) + 4 d s^4; ours, for d large."""
    random = np.random.default_rng(3)
    d = 512
    s = math.sqrt(total_var / d)
    y, first, second = np.linalg.qr(random.normal(size=(d, 3)))[0].T
    x = units(np.array([y + first, y + 1.01 * second]))
    squares = ((x - y) ** 2).sum(axis=1)
    flip = stats.norm.cdf(-abs(squares[0] - squares[1]) / math.sqrt(4 * s**2 * squares.sum() + 4 * d * s**4))
    assert 0.2 < flip < 0.4
    found = gap_robustness(x, y[None], total_var=total_var, trials=10_000).frame.iloc[0]
    assert abs(1 - found["agreement"] - flip) < 3 * math.sqrt(flip * (1 - flip) / 10_000)
    assert found["agreement_se"] == pytest.approx(math.sqrt(flip * (1 - flip) / 10_000), rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_largest_where_an_orthogonal_gap_is_closed(seed):
    random = np.random.default_rng(seed)
    classes = units(random.normal(size=(30, 60)))
    images = units(classes[random.integers(30, size=1000)] + 0.15 * random.normal(size=(1000, 60)))
    gallery, queries = np.c_[classes, np.zeros((30, 1))], np.c_[images, np.full((1000, 1), 1.5)]
    found = gap_robustness(
        gallery, queries, alphas=np.arange(-1, 3.01, 0.25), total_var=1.0, trials=40, rank=29, normalize=False
    )
    best = found.frame.loc[found.frame["agreement"].idxmax()]
    assert 0.75 <= best["alpha"] <= 1.25
    assert best["agreement_gain"] > 5 * best["agreement_gain_se"]


def test_a_gallery_of_full_rank_stays_where_it_is_and_that_is_said():
    found = gap_robustness(np.r_[GALLERY, RANDOM.normal(size=(40, D))], QUERIES, alphas=[0.5, 1.0], trials=2)
    assert not found.settings["movable"]
    assert found.settings["orthogonal_gap"] == 0
    assert found.settings["residual_gap"] == found.settings["gap"] > 0
    assert (found.frame["agreement_gain"] == 0).all()


def test_a_wrong_answer_that_stays_wrong_counts_as_robust():
    frame = gap_robustness(np.eye(3), np.eye(3), truth=[1, 2, 0], total_var=1e-6).frame
    assert (frame["agreement"] == 1).all()
    assert (frame["clean_accuracy"] == 0).all()
    assert (frame["noisy_accuracy"] == 0).all()


def test_any_row_of_the_class_is_right():
    gallery, classes = np.repeat(GALLERY, 2, axis=0) + 0.1 * RANDOM.normal(size=(2 * C, D)), np.repeat(np.arange(C), 2)
    found = gap_robustness(gallery, QUERIES, TRUTH, classes=torch.from_numpy(classes), total_var=0.1)
    assert found.frame["clean_accuracy"][0] == (found.clean[0] // 2 == TRUTH).mean()
    assert found.frame["noisy_accuracy"][1] == pytest.approx((found.noisy[:, 1] // 2 == TRUTH).mean())
    assert (found.frame["noisy_accuracy"] > found.frame["agreement"]).all()  # the other row of a class is near


def test_quantised_values():
    values = torch.linspace(-1, 1, 9, dtype=torch.float64)[None]
    assert quantised(values, 2).tolist() == [[-0.5] * 4 + [0.5] * 5]
    assert (quantised(values, 7) - values).abs().max().item() <= 1 / 7 + 1e-15
    assert torch.equal(quantised(torch.full((2, 2), 0.3), 5), torch.full((2, 2), 0.3))


@pytest.fixture(scope="module")
def clip():
    """(images, texts)."""
    folder = os.environ.get("KODA_AUDIT_FIXTURES")
    if not folder:
        pytest.skip("KODA_AUDIT_FIXTURES names no folder with features_clip.npy")
    return np.load(Path(folder) / "features_clip.npy")


@pytest.mark.parametrize(
    ("c", "queries", "per_coordinate", "expected"),
    [
        (100, 100, 5e-4, {-0.5: 0.541, 0: 0.610, 0.5: 0.655, 1: 0.674, 1.5: 0.662}),
        (100, 500, 5e-4, {0: 0.418}),
        (100, 100, 1e-4, {0: 0.814, 1: 0.851}),
        (10, 500, 0.005 / 512, {0: 0.951, 1: 0.963}),
        (10, 500, 0.022 / 512, {0: 0.898, 1: 0.924}),
        (10, 500, 0.040 / 512, {0: 0.864, 1: 0.899}),
        (10, 500, 0.005, {0: 0.24, 1: 0.27}),
        (10, 500, 0.022, {0: 0.13, 1: 0.14}),
        (10, 500, 0.040, {0: 0.11, 1: 0.12}),
    ],
)
def test_agreement_on_clip(clip, c, queries, per_coordinate, expected):
    images, texts = clip
    found = gap_robustness(texts[:c], images[:queries], total_var=512 * per_coordinate, alphas=list(expected))
    assert found.settings["s"] == pytest.approx(math.sqrt(per_coordinate))
    frame = found.frame.set_index("alpha")
    for alpha, value in expected.items():
        # the other figure is of 20 draws as well, and rounded
        error = math.sqrt(2) * frame["agreement_se"][alpha]
        assert abs(frame["agreement"][alpha] - value) < 3 * error + 0.0005


@pytest.mark.parametrize("bins", [32, 64, 128, 256])
def test_quantised_clip(clip, bins):
    images, texts = clip
    expected = {32: [0.83, 0.88], 64: [0.89, 0.98], 128: [0.97, 0.99], 256: [0.99, 0.99]}[bins]
    found = gap_robustness(texts[:100], images[:100], noise="quantise", bins=bins, alphas=[1.0])
    assert found.frame["agreement"].tolist() == pytest.approx(expected, abs=1e-12)
    if bins == 32:
        every = gap_robustness(texts[:100], images, noise="quantise", bins=bins, alphas=[]).frame
        assert every["agreement"].tolist() == pytest.approx([0.668], abs=1e-12)


ZERO = np.r_[GALLERY[:2], np.zeros((1, D))]
BAD = {
    "gallery rows are 40 wide and query rows 39": {"queries": QUERIES[:, 1:]},
    "gallery row 2 has length 0, so no direction": {"gallery": ZERO},
    "queries row 2 has length 0, so no direction": {"queries": ZERO, "metric": "cosine", "normalize": False},
    "gallery row 2 has length 0": {"gallery": ZERO, "metric": "cosine", "normalize": False, "truth": None},
    r"gallery is not finite: entry \(0, 0\) is nan": {"gallery": np.full((2, D), np.nan)},
    "total_var is -0.1: expected a number from 0": {"total_var": -0.1},
    "total_var is nan": {"total_var": math.nan},
    "total_var is None": {"total_var": None},
    "total_var is 'a'": {"total_var": "a"},
    "bins is 1: expected a whole number from 2": {"noise": "quantise", "bins": 1},
    "bins is 999999999999999999999: expected": {"noise": "quantise", "bins": 999999999999999999999},
    "trials is 0: expected a whole number from 1": {"trials": 0},
    "trials is None": {"trials": None},
    "trials is nan": {"trials": math.nan},
    "trials is 2.0": {"trials": 2.0},
    "seed is -1: expected a whole number from 0": {"seed": -1},
    "seed is None": {"seed": None},
    "seed is 1.5": {"seed": 1.5},
    "seed is 'a'": {"seed": "a"},
    r"perturbed array 1 has shape \(11, 40\): expected that of the gallery, \(12, 40\)": {
        "noise": "perturbed",
        "perturbed": [GALLERY, GALLERY[1:]],
    },
    "perturbed is empty": {"noise": "perturbed", "perturbed": []},
    "perturbed and noise='perturbed' belong together": {"perturbed": GALLERY},
    "truth of query 5 is 12: expected a gallery row, 0 to 11": {"truth": np.where(np.arange(M) == 5, 12, 0)},
    "truth of query 0 is 1: expected one of the classes": {"truth": np.ones(M, int), "classes": np.zeros(C, int)},
    r"truth has shape \(3,\) and dtype int64: expected \(200,\), a whole number per query": {"truth": [0, 1, 2]},
    "truth has masked entries": {"truth": np.ma.masked_equal(TRUTH, 3)},
    r"classes has shape \(12,\) and dtype float64": {"classes": np.zeros(C)},
    r"alpha is inf: expected a number from -1e\+06 to 1e\+06": {"alphas": [math.inf]},
    r"alpha is 1e\+200": {"alphas": [1e200], "noise": "quantise"},
    "alpha is 'a'": {"alphas": ["a"]},
    "alphas is 1.0: expected a list": {"alphas": 1.0},
    "alphas is None": {"alphas": None},
    r"gallery row 0 has 1e\+160 as its largest entry: expected 1e-75 to 1e\+75": {
        "gallery": np.full((C, D), 1e160),
        "normalize": False,
    },
    "unknown noise 'gausian': did you mean 'gaussian'": {"noise": "gausian"},
    "unknown metric 'l2'": {"metric": "l2"},
    "unknown metric 'None'": {"metric": None},
    "unknown noise '3'": {"noise": 3},
    "rank is -1": {"rank": -1},
    "rank is 'a'": {"rank": "a"},
    "rank is True": {"rank": True},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_in_one_sentence(message):
    options = {"gallery": GALLERY, "queries": QUERIES, "truth": TRUTH, **BAD[message]}
    with pytest.raises(InputError, match=f"^{message}") as error:
        gap_robustness(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("noise", ["gaussian", "quantise"])
def test_an_alpha_changes_nothing_of_another(metric, noise):
    """However far one of them moves the rows, and whether they come from a list or a generator."""
    options = {"truth": TRUTH, "noise": noise, "metric": metric, "total_var": 0.1, "trials": 3}
    alone = gap_robustness(GALLERY, QUERIES, alphas=[1], **options).frame
    both = gap_robustness(GALLERY, QUERIES, alphas=iter([1, 1e6]), **options).frame
    assert both["alpha"].tolist() == [0, 1, 1e6]
    pd.testing.assert_frame_equal(both[:2], alone, rtol=0, atol=0)
    if noise == "gaussian":
        assert (both["clean_kept"] == 1).all()
        assert (both["agreement"] < 1).all()


def test_lengths_do_not_matter_however_far_from_1():
    plain = gap_robustness(GALLERY, QUERIES, trials=2).frame
    for scale in (1e-200, 1e200):
        pd.testing.assert_frame_equal(gap_robustness(GALLERY * scale, QUERIES / scale, trials=2).frame, plain)


def test_flips_of_an_alpha_that_was_not_measured():
    with pytest.raises(InputError, match=r"alpha 0.3 was not measured: choose one of \[0.0, 0.5, 1.0\]"):
        gap_robustness(GALLERY, QUERIES, trials=1).flips(0.3)
