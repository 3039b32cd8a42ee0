"""Evaluations: ties, invariances, other libraries as oracles, and what bad input is told."""

from __future__ import annotations

import math
import os
import warnings
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, average_precision_score, balanced_accuracy_score, v_measure_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import normalize

from koda_audit import Embeddings
from koda_audit._stats.jackknife import jackknife_interval
from koda_audit._stats.paired import fall_evidence
from koda_audit.errors import InputError
from koda_audit.evaluation import clustering
from koda_audit.evaluation.classification import average_precision, zeroshot_classification
from koda_audit.evaluation.clustering import joint_clustering
from koda_audit.evaluation.probe import SWEEP, linear_probe
from koda_audit.evaluation.ranks import expected_hits, mutual_ranks, ranks
from koda_audit.evaluation.retrieval import zeroshot_retrieval
from koda_audit.evaluation.scores import Outcomes, paired_change, per_class, per_image
from koda_audit.evaluation.selection import image_caption_selection
from koda_audit.evaluation.side_effects import class_bias, decisions, gini, normalised_entropy, zeroshot_side_effects
from koda_audit.evaluation.tasks import evaluate

N, C, D = 48, 6, 8
RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.normal(size=(C, D))
LABELS = RANDOM.integers(C, size=N)
FLAGS = np.eye(C, dtype=int)[LABELS] | (RANDOM.random((N, C)) < 0.1)
IMAGE = CLASSES[LABELS] + RANDOM.normal(size=(N, D))
TEXT = IMAGE + 0.7 * RANDOM.normal(size=(N, D))
ROTATION = np.linalg.qr(RANDOM.normal(size=(D, D)))[0]
ORDER = RANDOM.permutation(N // 2).repeat(2) * 2 + np.tile([0, 1], N // 2)  # samples change places two by two
LENGTHS = RANDOM.uniform(0.1, 10, size=(N, 1))

# of image (N, D), text (N, D), labels (N,) and classes (C, D)
MEASURES = {
    "classification": lambda x, y, labels, t: zeroshot_classification(x, t, labels),
    "several labels": lambda x, y, labels, t: zeroshot_classification(x, t, np.eye(C, dtype=int)[labels]),
    "retrieval": lambda x, y, labels, t: zeroshot_retrieval(x, y),
    "several captions": lambda x, y, labels, t: zeroshot_retrieval(t, y, labels, at=[1, 2, 20]),
    "selection": lambda x, y, labels, t: image_caption_selection(x, y, N // 2),
    "probe": lambda x, y, labels, t: linear_probe(x, labels, y, labels, C=1.0),
    "clustering": lambda x, y, labels, t: joint_clustering(x, y, clusters=1),
    "side effects": lambda x, y, labels, t: zeroshot_side_effects(x, t, labels, labels),
}


def units(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("name", MEASURES)
def test_what_changes_nothing(name):
    measure = MEASURES[name]
    expected = measure(IMAGE, TEXT, LABELS, CLASSES).values
    others = {
        "order of samples": measure(IMAGE[ORDER], TEXT[ORDER], LABELS[ORDER], CLASSES),
        "lengths": measure(LENGTHS * IMAGE, LENGTHS[::-1] * TEXT, LABELS, LENGTHS[:C] * CLASSES),
        "lengths far from 1": measure(1e200 * LENGTHS * IMAGE, 1e-200 * TEXT, LABELS, 1e-300 * CLASSES),
        "rotation of both sides": measure(IMAGE @ ROTATION, TEXT @ ROTATION, LABELS, CLASSES @ ROTATION),
        "tensors": measure(*map(torch.tensor, (IMAGE, TEXT, LABELS, CLASSES))),
    }
    for change, found in others.items():
        assert found.values == pytest.approx(expected, abs=1e-9), change


@pytest.mark.parametrize("name", MEASURES)
def test_values_are_the_means_of_their_outcomes(name):
    found = MEASURES[name](IMAGE, TEXT, LABELS, CLASSES)
    for metric, outcomes in found.outcomes.items():
        assert found.values[metric] == pytest.approx(outcomes.values.mean(), abs=1e-15)
        if "per_class" not in metric:  # that one is weighted
            assert set(np.unique(outcomes.values)) <= {0, 1}  # nothing is left to chance without ties
        assert outcomes.values.shape == outcomes.image.shape
        assert outcomes.image.max() < N


@pytest.mark.parametrize("name", MEASURES)
def test_every_number_that_chance_has_a_part_in_has_an_interval(name):
    found = MEASURES[name](IMAGE, TEXT, LABELS, CLASSES)
    bare = set(found.values) - set(found.outcomes) - set(found.intervals)
    assert bare <= {"probe_C", "probe_converged"}
    for metric, (low, high) in found.intervals.items():
        assert low <= found.values[metric] <= high


def test_intervals_of_what_is_no_mean_are_those_without_each_group():
    """Fewer samples than groups: one at a time, by scikit-learn."""
    rows = np.arange(18)
    nearest = (units(IMAGE) @ units(CLASSES).T).argmax(axis=1)[rows]
    found = zeroshot_classification(IMAGE[rows], CLASSES, LABELS[rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that only the predictions have
        rest = [balanced_accuracy_score(np.delete(LABELS[rows], row), np.delete(nearest, row)) for row in rows]
    expected = jackknife_interval(found.values["mean_per_class_recall"], rest)
    assert found.intervals["mean_per_class_recall"] == pytest.approx(expected, abs=1e-12)
    several = zeroshot_classification(IMAGE[rows], CLASSES, FLAGS[rows])
    scores = units(IMAGE[rows]) @ units(CLASSES).T
    rest = [
        average_precision_score(np.delete(FLAGS[rows], row, axis=0), np.delete(scores, row, axis=0)) for row in rows
    ]
    expected = jackknife_interval(several.values["mean_average_precision"], rest)
    assert several.intervals["mean_average_precision"] == pytest.approx(expected, abs=1e-12)


def test_an_interval_of_precision_takes_for_given_which_classes_occur():
    """A class without images counts 0; that the last image of one may be left out says nothing of the model."""
    flags = np.eye(C, dtype=int)[np.maximum(LABELS, 1)]
    flags[0] = np.eye(C, dtype=int)[0]  # the only one
    found = zeroshot_classification(CLASSES[flags.argmax(axis=1)], CLASSES, flags)
    assert found.values["mean_average_precision"] == 1
    assert found.intervals["mean_average_precision"] == pytest.approx((1, 1), abs=1e-12)
    absent = zeroshot_classification(CLASSES[LABELS], np.vstack([CLASSES, -CLASSES[:1]]), np.eye(C + 1)[LABELS])
    assert absent.values["mean_average_precision"] == pytest.approx(C / (C + 1))


def test_the_interval_of_a_mean_over_classes_covers_it():
    """Weighted hits of classes of 160, 30 and 10 vary by far more than what they add up to."""
    random, labels, covered, widths = np.random.default_rng(0), np.repeat([0, 1, 2], [160, 30, 10]), 0, []
    recalls = np.array([0.9, 0.7, 0.6])
    for _ in range(400):
        found = per_class("recall", (random.random(200) < recalls[labels]).astype(float), labels)
        low, high = found.intervals["recall"]
        covered += low <= recalls.mean() <= high
        widths.append((high - low) / 2)
    assert 0.88 <= covered / 400 <= 0.98
    exact = math.sqrt((recalls * (1 - recalls) / [160, 30, 10]).sum()) / 3
    assert np.mean(widths) == pytest.approx(1.96 * exact, rel=0.15)


def test_images_that_two_models_treat_alike_add_nothing_to_the_difference_of_a_mean_over_classes():
    labels = np.repeat([0, 1], [40, 10])
    before, after = np.ones(50), np.ones(50)
    after[45:] = 0
    one, two = (per_class("recall", hits, labels).outcomes["recall"].values for hits in (before, after))
    assert np.flatnonzero(one - two).tolist() == [45, 46, 47, 48, 49]
    assert (one - two).mean() == pytest.approx(0.25)
    found = fall_evidence(one, two, np.arange(50))
    assert found.p_value(0.0) == pytest.approx(1 / 2**5, abs=0.01)  # as McNemar's, by draws


def test_the_change_of_one_query_an_image_is_that_of_students_paired_test():
    before, after = (np.random.default_rng(seed).integers(2, size=50).astype(float) for seed in (1, 2))
    interval = stats.ttest_rel(after, before).confidence_interval()
    expected = (after - before).mean(), interval.low, interval.high
    np.testing.assert_allclose(paired_change(per_image(before), per_image(after)), expected, atol=1e-14)


def test_queries_of_one_image_count_as_one():
    """Five equal captions say no more than one; independent ones would shrink the interval by the root of five."""
    change, captions = np.random.default_rng(0).normal(size=40), np.arange(40).repeat(5)
    one = paired_change(per_image(np.zeros(40)), per_image(change))
    five = paired_change(Outcomes(np.zeros(200), captions), Outcomes(change[captions], captions))
    np.testing.assert_allclose(five, one, atol=1e-14)
    assert np.isnan(paired_change(Outcomes(np.zeros(2), captions[:2]), Outcomes(np.ones(2), captions[:2]))[1])


def test_intervals_of_the_change_cover_it():
    random, covered = np.random.default_rng(0), 0
    owner = np.arange(60).repeat(random.integers(1, 4, size=60))
    for _ in range(400):
        values = (random.normal(size=60)[owner] + random.normal(size=len(owner)) > 0.5).astype(float)
        _, low, high = paired_change(Outcomes(np.full(len(owner), 0.5), owner), Outcomes(values, owner))
        covered += low <= stats.norm.sf(0.5, scale=2**0.5) - 0.5 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("block", [1, 5, 2048])
def test_ranks_of_both_ways_are_those_of_either(block):
    x, y = (torch.from_numpy(units(rows)) for rows in (TEXT[:20], IMAGE))
    x[7], y[3] = y[5], y[5]  # ties on either side
    sought, back = x[:, 0].clone(), y[:, 1].clone()
    products = x @ y.T
    sought[7], back[3] = products[7, 5], products[7, 3]
    there, again = mutual_ranks(x, sought, y, back, block)
    for found, values, given_ in ((there, sought, products), (again, back, products.T)):
        assert found[0].tolist() == (given_ > values[:, None] + 1e-12).sum(dim=1).tolist()
        assert found[1].tolist() == ((given_ - values[:, None]).abs() <= 1e-12).sum(dim=1).tolist()
    for way, one in zip((there, again), (ranks(x, sought, y, block), ranks(y, back, x, block)), strict=True):
        assert all(torch.equal(*pair) for pair in zip(way, one, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 7), st.data())
def test_expected_hits_are_those_of_all_orders_of_equals(nearer, tied, k, data):
    right = data.draw(st.integers(0, tied))
    orders = list(permutations([True] * right + [False] * (tied - right)))
    brute = np.mean([any(order[: max(k - nearer, 0)]) for order in orders])
    counts = torch.tensor([[nearer], [tied], [right]], dtype=torch.float64)
    assert expected_hits(counts[0], counts[1], k, counts[2]) == pytest.approx(brute, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_average_precision_is_that_of_all_orders_of_equals(samples):
    def of(order):
        places = np.flatnonzero([relevant for _, relevant in order]) + 1
        return np.mean(np.arange(1, len(places) + 1) / places) if len(places) else 0.0

    brute = np.mean([of(sorted(order, key=lambda sample: -sample[0])) for order in permutations(samples)])
    scores, relevant = map(np.array, zip(*samples, strict=True))
    assert average_precision(scores.astype(float), relevant) == pytest.approx(brute, abs=1e-12)


def test_average_precision_is_scikit_learns():
    scores = units(IMAGE) @ units(CLASSES).T
    found = zeroshot_classification(IMAGE, CLASSES, FLAGS).values["mean_average_precision"]
    assert found == pytest.approx(average_precision_score(FLAGS, scores, average="macro"), abs=1e-12)


def test_equal_candidates_share_the_hits():
    equal = np.ones((4, 2))
    found = zeroshot_retrieval(equal, np.ones((8, 2)), np.repeat(np.arange(4), 2), at=[1, 3, 4]).values
    assert [found[f"image_retrieval_recall@{k}"] for k in (1, 3, 4)] == pytest.approx([1 / 4, 3 / 4, 1])
    assert [found[f"text_retrieval_recall@{k}"] for k in (1, 3)] == pytest.approx([1 / 4, 1 - 6 * 5 * 4 / (8 * 7 * 6)])
    found = zeroshot_classification(np.ones((6, 2)), np.ones((10, 2)), np.arange(6)).values
    assert found == pytest.approx({"acc1": 0.1, "acc5": 0.5, "mean_per_class_recall": 0.1})
    found = zeroshot_classification(np.ones((6, 2)), np.ones((3, 2)), np.tile([[1, 0, 0], [0, 1, 0]], (3, 1)))
    a = average_precision(np.zeros(6), np.tile([True, False], 3))
    assert found.values["mean_average_precision"] == pytest.approx(2 * a / 3)
    found = image_caption_selection(np.ones((5, 2)), np.ones((10, 2)), 5).values
    assert found == pytest.approx({"image_acc": 1, "text_acc": 1 / 2, "acc": 1 / 2})
    assert decisions(np.ones((3, 2)), np.ones((4, 2))).tolist() == [0, 0, 0]


def test_retrieval_beyond_the_gallery_and_without_a_caption():
    found = zeroshot_retrieval(IMAGE, TEXT[:5], [3, 3, 7, 0, 9], at=[1000])
    assert found.values == {"image_retrieval_recall@1000": 1.0, "text_retrieval_recall@1000": 4 / N}
    assert np.flatnonzero(found.outcomes["text_retrieval_recall@1000"].values).tolist() == [0, 3, 7, 9]
    assert found.outcomes["image_retrieval_recall@1000"].image.tolist() == [3, 3, 7, 0, 9]


@pytest.mark.parametrize("penalty", [0.5, 20.0])
def test_the_probe_is_scikit_learns_on_unit_rows(penalty):
    found = linear_probe(IMAGE, LABELS, TEXT, LABELS, C=penalty)
    predicted = LogisticRegression(C=penalty).fit(normalize(IMAGE), LABELS).predict(normalize(TEXT))
    assert 0.3 < found.values["probe_accuracy"] < 1
    assert found.outcomes["probe_accuracy"].values.tolist() == (predicted == LABELS).tolist()
    expected = balanced_accuracy_score(LABELS, predicted)
    assert found.values["probe_mean_per_class_recall"] == pytest.approx(expected)
    assert found.values["probe_C"] == penalty


def test_the_probe_chooses_its_penalty_on_held_out_training_images():
    image, labels = np.tile(IMAGE, (3, 1)) + RANDOM.normal(size=(3 * N, D)), np.tile(LABELS, 3)
    fit, held, fit_labels, held_labels = train_test_split(
        normalize(image), labels, test_size=0.2, stratify=labels, random_state=3
    )
    accuracies = [LogisticRegression(C=C, max_iter=1000).fit(fit, fit_labels).score(held, held_labels) for C in SWEEP]
    best = SWEEP[int(np.argmax(accuracies))]
    found = linear_probe(image, labels, TEXT, LABELS, seed=3)
    assert min(accuracies) < max(accuracies)
    assert found.values == linear_probe(image, labels, TEXT, LABELS, C=best).values


def test_clusters_that_are_classes():
    image, text = 9 * np.eye(C, D)[LABELS] + IMAGE, 9 * np.eye(C, D)[LABELS] + TEXT
    renamed = (LABELS + 2) % C
    for labels in (LABELS, renamed):
        found = joint_clustering(image, text, labels).values
        assert found == pytest.approx(
            {"ari": 1, "nmi": 1, "homogeneity": 1, "v_measure": 1, "pair_together": 1, "modality_purity": 0.5}
        )
    # not 0: the two rows of a pair have one label and lie together
    at_random = [joint_clustering(image, text, np.random.default_rng(s).permutation(LABELS)).values for s in range(20)]
    assert np.mean([values["ari"] for values in at_random]) == pytest.approx(C / (2 * N), abs=0.015)


def test_clusters_that_are_modalities():
    gap = np.eye(1, D) * 50
    found = joint_clustering(IMAGE + gap, TEXT - gap, LABELS % 2).values
    assert found["pair_together"] == 0
    assert found["modality_purity"] == 1
    assert found["ari"] == pytest.approx(0, abs=0.02)


def test_clustering_protocols(monkeypatch):
    calls = []

    class KMeans(clustering.KMeans):
        def __init__(self, **options):
            calls.append(options)
            super().__init__(**options)

    monkeypatch.setattr(clustering, "KMeans", KMeans)
    found = joint_clustering(IMAGE, TEXT, LABELS, protocol="grassucci2026").values
    joint_clustering(IMAGE, TEXT, LABELS, clusters=4, seed=5)
    joint_clustering(IMAGE, TEXT, LABELS)
    assert calls == [
        {"n_clusters": 10, "n_init": 1, "random_state": 0},
        {"n_clusters": 4, "n_init": 10, "random_state": 5},
        {"n_clusters": C, "n_init": 10, "random_state": 0},
    ]
    rows = np.concatenate([units(IMAGE), units(TEXT)])
    clusters = clustering.KMeans(n_clusters=10, random_state=0).fit_predict(rows)
    assert found["ari"] == pytest.approx(adjusted_rand_score(np.tile(LABELS, 2), clusters))
    assert found["v_measure"] == pytest.approx(v_measure_score(np.tile(LABELS, 2), clusters))
    assert found["nmi"] == pytest.approx(found["v_measure"])
    assert found["pair_together"] == np.mean(clusters[:N] == clusters[N:])
    shares = [
        max(np.mean(np.flatnonzero(clusters == c) < N), np.mean(np.flatnonzero(clusters == c) >= N)) for c in clusters
    ]
    assert found["modality_purity"] == pytest.approx(np.mean(shares))


def test_gini_and_entropy_of_known_counts():
    assert gini([4, 0, 0, 0]) == pytest.approx(3 / 4)
    assert gini([1, 2, 3, 4]) == pytest.approx(0.25)
    counts = RANDOM.integers(1, 50, size=9)
    apart = np.abs(counts[:, None] - counts).mean() / (2 * counts.mean())  # half the relative mean difference
    assert gini(counts) == pytest.approx(apart)
    assert math.isnan(gini([0, 0]))
    assert normalised_entropy([2, 2, 2]) == pytest.approx(1)
    assert normalised_entropy([1, 3]) == pytest.approx(-(math.log2(1 / 4) / 4 + 3 * math.log2(3 / 4) / 4))


def test_side_effects_are_those_of_the_decisions():
    found = zeroshot_side_effects(IMAGE, CLASSES, LABELS, before=LABELS)
    nearest = (units(IMAGE) @ units(CLASSES).T).argmax(axis=1)
    assert decisions(IMAGE, CLASSES).tolist() == nearest.tolist()
    counts = np.bincount(nearest, minlength=C)
    assert found.values["prediction_gini"] == pytest.approx(gini(counts))
    assert found.values["prediction_entropy"] == pytest.approx(stats.entropy(counts, base=C))
    assert found.values["label_gini"] == pytest.approx(gini(np.bincount(LABELS, minlength=C)))
    assert found.values["changed_decisions"] == pytest.approx(np.mean(nearest != LABELS))
    assert found.outcomes["changed_decisions"].values.tolist() == (nearest != LABELS).tolist()
    several = zeroshot_side_effects(IMAGE, CLASSES, FLAGS).values
    assert several["label_gini"] == pytest.approx(gini(FLAGS.sum(axis=0)))
    assert "changed_decisions" not in several


def test_moving_both_sides_along_the_gap_adds_the_class_bias():
    x, t = units(IMAGE), units(CLASSES)
    gap, a = x.mean(axis=0) - t.mean(axis=0), 0.3
    added = (x - a * gap) @ (t + a * gap).T - x @ t.T
    bias = class_bias(IMAGE, CLASSES)
    assert added - added.mean(axis=1, keepdims=True) == pytest.approx(np.tile(a * (bias - bias.mean()), (N, 1)))
    assert zeroshot_side_effects(IMAGE, CLASSES).values["class_bias_spread"] == pytest.approx(np.std(bias))


STORED = Embeddings(IMAGE, TEXT, labels=LABELS, class_text=CLASSES)


def test_tasks_are_their_functions(tmp_path):
    STORED.save(tmp_path)
    loaded = Embeddings.load(tmp_path)  # vectors stay on disk, as float32
    others = {"linear_probe": {"train": STORED, "C": 1.0}, "joint_clustering": {"clusters": 1}}
    for task, name in {
        "zeroshot_classification": "classification",
        "zeroshot_retrieval": "retrieval",
        "joint_clustering": "clustering",
    }.items():
        expected = MEASURES[name](IMAGE, TEXT, LABELS, CLASSES).values
        assert evaluate(STORED, task, **others.get(task, {})).values.items() >= expected.items()
        assert evaluate(loaded, task, **others.get(task, {})).values == pytest.approx(
            evaluate(STORED, task, **others.get(task, {})).values
        )
    found = evaluate(STORED, "linear_probe", train=STORED, C=1.0).values
    assert found == linear_probe(IMAGE, LABELS, IMAGE, LABELS, C=1.0).values
    changed = evaluate(STORED, "side_effects", unaligned=Embeddings(TEXT, labels=LABELS, class_text=CLASSES)).values
    assert changed == zeroshot_side_effects(IMAGE, CLASSES, LABELS, decisions(TEXT, CLASSES)).values
    assert evaluate(STORED, "side_effects", unaligned=loaded).values["changed_decisions"] == 0


def test_joint_clustering_of_class_prompts_and_of_images_with_one_label_among_several():
    prompts = Embeddings(IMAGE, labels=LABELS, class_text=CLASSES)
    expected = joint_clustering(IMAGE, CLASSES[LABELS], LABELS)
    assert evaluate(prompts, "joint_clustering").values == expected.values
    several = Embeddings(IMAGE, TEXT, labels=FLAGS)
    lone = np.flatnonzero(FLAGS.sum(axis=1) == 1)
    found = evaluate(several, "joint_clustering", protocol="grassucci2026")
    expected = joint_clustering(IMAGE[lone], TEXT[lone], LABELS[lone], protocol="grassucci2026")
    assert 10 < len(lone) < N
    assert found.values == expected.values
    assert found.outcomes["pair_together"].image.tolist() == lone.tolist()


def test_recall_of_real_clip_features():
    folder = os.environ.get("KODA_AUDIT_FIXTURES")
    if not folder:
        pytest.skip("KODA_AUDIT_FIXTURES names no folder with features_clip.npy")
    image, text = np.load(Path(folder) / "features_clip.npy")
    found = zeroshot_retrieval(image, text).values
    assert [found[f"text_retrieval_recall@{k}"] for k in (1, 5, 10)] == [0.552, 0.808, 0.892]
    assert [found[f"image_retrieval_recall@{k}"] for k in (1, 5, 10)] == [0.506, 0.766, 0.862]
    # without a move the modalities never share a cluster
    assert joint_clustering(image, text, clusters=10).values == {"pair_together": 0, "modality_purity": 1}


ZERO = np.vstack([IMAGE[:1], np.zeros((1, D)), IMAGE[2:]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zeroshot_retrieval(IMAGE, TEXT[:, :3]), r"image has 8 columns and text has 3: .* one model"),
        (lambda: zeroshot_retrieval(ZERO, TEXT), "row 1 of image is zero"),
        (lambda: zeroshot_retrieval(IMAGE, np.full((N, D), np.nan)), "text is not finite"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT[:5]), "5 texts for 48 images: say with text_image"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT[:1], [N]), r"text_image must lie in 0\.\.47, found 48\.\.48"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT, at=[0]), "k is 0: expected a whole number from 1"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT, at=[1.5]), "k is 1.5"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT, at=[math.nan]), "k is nan"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT, at=["1"]), "k is '1'"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT, at=[True]), "k is True"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT, at=[]), "at is empty: recall needs at least one k"),
        (lambda: zeroshot_retrieval(IMAGE, TEXT, at=5), "at is 5: expected a list"),
        (lambda: zeroshot_retrieval(np.ma.masked_less(IMAGE, 0), TEXT), "image has masked entries"),
        (lambda: zeroshot_classification(IMAGE, CLASSES, np.ma.masked_equal(LABELS, 1)), "labels has masked entries"),
        (
            lambda: zeroshot_classification(IMAGE, CLASSES, LABELS + 0j),
            "labels must be whole numbers, found complex128",
        ),
        (lambda: zeroshot_classification(IMAGE, CLASSES, LABELS + 1), r"labels lie in 1\.\.6: .* 0\.\.5"),
        (lambda: zeroshot_classification(IMAGE, CLASSES, LABELS[:4]), r"shape \(4,\) for 48 images"),
        (lambda: zeroshot_classification(IMAGE, CLASSES, 2 * FLAGS), r"zeros and ones of shape \(48, 6\)"),
        (lambda: zeroshot_classification(IMAGE, CLASSES, LABELS / 3), "labels must be whole numbers"),
        (lambda: image_caption_selection(IMAGE, TEXT, 5), "48 images and 48 captions of 5 instances"),
        (lambda: image_caption_selection(IMAGE, TEXT, 0), "of 0 instances"),
        (lambda: linear_probe(IMAGE, 0 * LABELS, TEXT, LABELS), "train_labels hold a single class"),
        (lambda: linear_probe(IMAGE, LABELS, TEXT, LABELS[:2]), r"test_labels of shape \(2,\)"),
        (lambda: image_caption_selection(IMAGE, TEXT, 1.5), "instances is 1.5: expected a whole number"),
        (lambda: linear_probe(IMAGE, LABELS, TEXT, LABELS, seed=-1), "seed is -1: expected a whole number"),
        (lambda: linear_probe(IMAGE, LABELS, TEXT, LABELS, C="a"), "C is 'a': expected a number from 0"),
        (lambda: joint_clustering(IMAGE, TEXT, LABELS, seed="a"), "seed is 'a': expected a whole number"),
        (lambda: joint_clustering(IMAGE, TEXT, clusters=1.5), "clusters is 1.5: expected a whole number"),
        (lambda: joint_clustering(IMAGE, TEXT, LABELS, protocol=["a"]), "unknown protocol"),
        (lambda: evaluate(STORED, None), "unknown evaluation 'None'"),
        (lambda: evaluate(STORED, "zeroshot_classification", device="foo"), "device is 'foo': expected 'cpu'"),
        (lambda: evaluate(STORED, "linear_probe", train=None), "train is of type NoneType: expected koda_audit.Emb"),
        (lambda: evaluate(IMAGE, "zeroshot_retrieval"), "embeddings is of type ndarray"),
        (lambda: evaluate(STORED, "image_caption_selection", images_per_instance=1.5), "images_per_instance is 1.5"),
        (lambda: linear_probe(IMAGE, LABELS, TEXT, LABELS, C=0), "C is 0: expected a positive number"),
        (
            lambda: linear_probe(IMAGE[:9], range(9), TEXT, LABELS),
            r"too few training images to choose C .* give more, or C",
        ),
        (lambda: joint_clustering(IMAGE, TEXT[:5], LABELS), "48 images and 5 texts: expected one text an image"),
        (lambda: joint_clustering(IMAGE, TEXT), "no number of clusters for 96 rows"),
        (lambda: joint_clustering(IMAGE, TEXT, clusters=97), "97 clusters for 96 rows"),
        (lambda: joint_clustering(IMAGE, TEXT, LABELS, clusters=0), "0 clusters for 96 rows"),
        (lambda: joint_clustering(IMAGE, TEXT, LABELS, protocol="grasucci"), "did you mean 'grassucci2026'"),
        (lambda: zeroshot_side_effects(IMAGE, CLASSES[:1]), "a single class"),
        (lambda: zeroshot_side_effects(IMAGE, CLASSES, before=LABELS[:3]), r"before of shape \(3,\)"),
        (lambda: evaluate(STORED, "zeroshot_retreival"), "unknown evaluation .* did you mean 'zeroshot_retrieval'"),
        (lambda: evaluate(Embeddings(IMAGE), "zeroshot_retrieval"), "has no text: embed a dataset with captions"),
        (lambda: evaluate(Embeddings(IMAGE, TEXT), "side_effects"), "has no class_text: embed a dataset with classes"),
        (lambda: evaluate(STORED, "linear_probe", train=Embeddings(IMAGE)), "has no labels"),
        (lambda: evaluate(STORED, "linear_probe"), "linear_probe: missing a required argument: 'train'"),
        (lambda: evaluate(STORED, "joint_clustering", k=2), "joint_clustering: got an unexpected keyword argument 'k'"),
        (lambda: evaluate(Embeddings(IMAGE), "joint_clustering"), "has no text"),
        (
            lambda: evaluate(Embeddings(IMAGE, labels=FLAGS, class_text=CLASSES), "joint_clustering"),
            "has no text: embed a dataset with captions",
        ),
        (
            lambda: evaluate(Embeddings(IMAGE, TEXT, labels=np.ones((N, 2))), "joint_clustering"),
            "no image of .* has exactly one label",
        ),
        (
            lambda: evaluate(Embeddings(IMAGE, TEXT[:5], text_image=range(5)), "image_caption_selection"),
            "images have 0 to 1 captions: selection needs as many captions an image",
        ),
        (lambda: evaluate(STORED, "image_caption_selection", images_per_instance=5), "no whole number of instances"),
        (
            lambda: evaluate(STORED, "side_effects", unaligned=STORED.aligned_to(STORED.ids[::-1])),
            "other samples, or another order",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
