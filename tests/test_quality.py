"""What models do on a group, against a brute-force oracle in numpy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from koda_audit import Embeddings
from koda_audit.discrepancy import quality
from koda_audit.discrepancy.quality import answers, group_quality
from koda_audit.errors import InputError

N = 60
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(N, 6))
TEXT = IMAGE + RANDOM.normal(size=(N, 6))
MEMBERS = pd.DataFrame({"group": [1] * 8 + [2] * 5, "row": [*range(8), 50, 4, 9, 33, 2]})


def units(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def of(frame, measure, model="target", group=1):
    chosen = frame[(frame.measure == measure) & (frame.model == model)]
    chosen = chosen[chosen.group.isna() if group is None else chosen.group == group]
    assert len(chosen) == 1
    return chosen.iloc[0]


def brute_force(image, text, rows, k):
    """Share of rows whose own text is among the k nearest, without ties."""
    order = np.argsort(-units(image) @ units(text).T, axis=1)[:, :k]
    return np.mean([row in order[row] for row in rows])


@pytest.mark.parametrize("block", [7, 1000])
def test_recall_is_that_of_sorting(block, monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", block)
    found = group_quality(Embeddings(IMAGE, TEXT), Embeddings(TEXT, IMAGE), MEMBERS)
    for group, rows in ((1, range(8)), (2, [50, 4, 9, 33, 2]), (None, range(N))):
        for k in (1, 5, 10):
            there, back = brute_force(IMAGE, TEXT, rows, k), brute_force(TEXT, IMAGE, rows, k)
            assert of(found, f"image_to_text_recall@{k}", "target", group).value == pytest.approx(there)
            assert of(found, f"text_to_image_recall@{k}", "target", group).value == pytest.approx(back)
            assert of(found, f"image_to_text_recall@{k}", "reference", group).value == pytest.approx(back)
    assert not (found.measure == "zeroshot_accuracy").any()
    whole = of(found, "pair_cosine", group=None)
    assert whole.group is None
    assert whole.n == N


def test_the_interval_of_a_cosine_ends_where_cosines_do():
    turned = Embeddings(np.eye(2), [[1.0, 0.0], [0.0, -1.0]])
    members = pd.DataFrame({"group": 1, "row": [0, 1]})
    cosine = of(group_quality(turned, turned, members), "pair_cosine")
    assert (cosine.value, cosine.low, cosine.high) == (0, -1, 1)


def test_intervals_are_student_and_wilson():
    found = group_quality(Embeddings(IMAGE, TEXT), Embeddings(IMAGE, TEXT), MEMBERS)
    cosines = (units(IMAGE) * units(TEXT)).sum(axis=1)[:8]
    cosine = of(found, "pair_cosine")
    assert cosine.value == pytest.approx(cosines.mean())
    expected = stats.t.interval(0.95, 7, loc=cosines.mean(), scale=stats.sem(cosines))
    assert (cosine.low, cosine.high) == pytest.approx(expected)
    recall = of(found, "text_to_image_recall@5", group=None)
    share, z = recall.value, stats.norm.ppf(0.975)
    middle = (share + z**2 / (2 * N)) / (1 + z**2 / N)
    half = z / (1 + z**2 / N) * math.sqrt(share * (1 - share) / N + z**2 / (4 * N**2))
    assert (recall.low, recall.high) == pytest.approx((middle - half, middle + half))


def test_equal_candidates_share_the_hits():
    text = TEXT.copy()
    text[[0, 1, 2]] = text[0]  # one caption three times
    image = text.copy()
    found = group_quality(Embeddings(image, text), Embeddings(3 * image, 0.1 * text), MEMBERS.head(2))
    for model in ("target", "reference"):
        first = of(found, "image_to_text_recall@1", model)
        assert first.value == pytest.approx(1 / 3)
        assert first.low == pytest.approx(stats.binomtest(0, 2).proportion_ci(method="wilson").low)
        assert first.high == pytest.approx(stats.binomtest(1, 2).proportion_ci(method="wilson").high)
        assert of(found, "image_to_text_recall@5", model).value == 1


def test_zero_shot_is_the_nearest_prompt():
    labels, prompts = RANDOM.integers(4, size=N), RANDOM.normal(size=(4, 6))
    model = Embeddings(IMAGE, labels=labels, class_text=prompts)
    found = group_quality(model, model, MEMBERS)
    right = (units(IMAGE) @ units(prompts).T).argmax(axis=1) == labels
    assert of(found, "zeroshot_accuracy").value == pytest.approx(right[:8].mean())
    assert of(found, "zeroshot_accuracy", group=None).value == pytest.approx(right.mean())
    expected = (units(IMAGE) * units(prompts)[labels]).sum(axis=1)
    assert of(found, "pair_cosine", group=None).value == pytest.approx(expected.mean())
    assert set(found.measure) == {"pair_cosine", "zeroshot_accuracy"}
    equal = Embeddings(IMAGE, labels=labels, class_text=np.ones((4, 6)))
    assert of(group_quality(equal, equal, MEMBERS), "zeroshot_accuracy").value == pytest.approx(0.25)


@pytest.mark.parametrize(
    "model",
    [
        Embeddings(IMAGE),
        Embeddings(IMAGE, RANDOM.normal(size=(N, 4))),
        Embeddings(IMAGE, TEXT[:9], text_image=range(9)),
        Embeddings(IMAGE, labels=np.eye(N, 4, dtype=int), class_text=TEXT[:4]),
    ],
    ids=["no texts", "other widths", "some texts", "several labels"],
)
def test_what_is_not_defined_has_no_row(model):
    found = group_quality(model, Embeddings(IMAGE, TEXT), MEMBERS)
    assert set(found.model) == {"reference"}
    assert group_quality(model, model, MEMBERS).columns.tolist() == list(quality.COLUMNS)


def test_the_whole_set_is_drawn_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "QUERIES", 20)
    Embeddings(IMAGE, TEXT).save(tmp_path)
    stored = Embeddings.load(tmp_path)  # vectors stay on disk
    frames = [group_quality(stored, stored, MEMBERS, seed) for seed in (0, 0, 1)]
    assert of(frames[0], "pair_cosine", group=None).n == 20
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert of(frames[0], "pair_cosine", group=None).value != of(frames[2], "pair_cosine", group=None).value
    assert of(frames[0], "pair_cosine").value == of(frames[2], "pair_cosine").value


def test_no_groups_and_groups_of_one():
    model = Embeddings(IMAGE, TEXT)
    assert group_quality(model, model, MEMBERS.head(0)).group.isna().all()
    lone = of(group_quality(model, model, MEMBERS.head(1)), "pair_cosine")
    assert math.isnan(lone.low)
    with pytest.raises(InputError, match="another order"):
        group_quality(model, Embeddings(IMAGE, TEXT, ids=[str(i) for i in range(N)][::-1]), MEMBERS)


def test_answers_are_the_nearest_prompts_counted():
    prompts = np.eye(4)
    image = prompts[[0, 0, 0, 1, 1, 2, 3, 3]] + 0.1 * RANDOM.normal(size=(8, 4))
    model = Embeddings(image, class_text=prompts, class_names=list("abcd"))
    assert answers(model, np.arange(8)) == "a 38%, b 25%, d 25%"  # of equals the first
    assert answers(model, np.arange(8), most=1) == "a 38%"
    assert answers(model, np.array([5, 6])) == "c 50%, d 50%"
    assert answers(Embeddings(image, class_text=prompts), np.array([6])) == "3 100%"
    assert answers(Embeddings(image), np.arange(8)) is None
    assert answers(Embeddings(image, class_text=np.eye(5)), np.arange(8)) is None
