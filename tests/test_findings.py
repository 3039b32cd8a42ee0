"""From directions to findings: splitting, stability on random halves, floors and verdicts."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from koda_audit import Embeddings, find_discrepancies
from koda_audit._kernels.blocks import kernel_blocks
from koda_audit.discrepancy.find import self_excess
from koda_audit.discrepancy.findings import Rule, measures, owned, verdicts
from koda_audit.discrepancy.lobes import Lobe, lobes
from koda_audit.discrepancy.paths import Goal
from koda_audit.discrepancy.search import search
from koda_audit.discrepancy.stability import stability
from koda_audit.errors import InputError

N, LOST = 240, [range(24), range(24, 40)]  # 10 % and 6.7 % of the samples


def two_views(seed: int, lost: list[range], groups: int = 12) -> tuple[Embeddings, Embeddings]:
    """Two noisy views of the same groups; the first groups are unrelated vectors in the second view."""
    random = np.random.default_rng(seed)
    label = np.repeat(np.arange(groups), N // groups)
    label = np.r_[np.zeros(24, int), np.ones(16, int), label[40:]]
    views = []
    for width in (32, 24):
        centres = random.standard_normal((groups, width))
        turned = centres @ np.linalg.qr(random.standard_normal((width, width)))[0]
        pair = [c[label] + 0.6 * random.standard_normal((N, width)) for c in (centres, turned)]
        for rows in lost:
            pair[1][list(rows)] = 1.2 * random.standard_normal((len(rows), width))
        views.append(pair)
    (image, other_image), (text, other_text) = views
    return Embeddings(image, text), Embeddings(other_image, other_text)


def members(found, row):
    return set(found.subsets.query("direction == @row.direction and lobe == @row.lobe").id.astype(int))


def test_lost_groups_are_findings_and_two_views_of_the_same_are_none():
    found = find_discrepancies(*two_views(0, LOST), n_directions=4, floor=0.0)
    sets = [members(found, row) for row in found.frame[found.frame.finding].itertuples()]
    assert len(sets) == 2
    for group in LOST:
        assert max(len(lobe & set(group)) / len(lobe | set(group)) for lobe in sets) > 0.8
    assert found.subsets[found.subsets.finding].groupby(["direction", "lobe"]).ngroups == 2
    null = find_discrepancies(*two_views(1, []), n_directions=4)
    assert not null.frame.finding.any()
    assert null.frame.stability.between(0, 1).all()


def test_the_floor_takes_findings_away():
    models = two_views(0, LOST)
    settings = {"n_directions": 2, "halves": 3}
    free = find_discrepancies(*models, **settings)
    assert free.frame.floor.isna().all()
    held = find_discrepancies(*models, **settings, floor=float(free.frame.excess.max()))
    assert (held.frame.verdict == "within floor").all()
    assert self_excess(models[0], models[0], n_directions=2) == 0
    shaken = Embeddings(models[0].image + 1e-3, models[0].text * 1.001)
    assert 0 <= self_excess(models[0], shaken, n_directions=2) < 1e-3 * free.frame.excess.max()


def test_without_halves_nothing_is_tested():
    found = find_discrepancies(*two_views(0, LOST), n_directions=2, halves=0)
    assert found.frame.stability.isna().all()
    assert set(found.frame.verdict) <= {"not tested", "within floor"}
    assert not found.frame.finding.any()


def test_modality_shares_add_up_to_the_excess():
    target, reference = two_views(0, LOST)
    same_text = Embeddings(reference.image, target.text)
    frame = find_discrepancies(target, same_text, n_directions=2, halves=0).frame
    np.testing.assert_allclose(frame.image_share + frame.text_share, frame.excess, rtol=1e-9, atol=1e-12)
    best = frame.sort_values("excess").iloc[-1]
    assert best.image_share > 0.8 * best.excess


def test_two_groups_at_one_end_are_told_apart():
    random = np.random.default_rng(0)
    centres = 3 * np.eye(4)[[0] * 8 + [1] * 8 + [2] * 104]
    points = torch.from_numpy(centres + 0.2 * random.standard_normal((120, 4)))
    x = np.r_[np.full(16, 0.24), np.full(104, -0.02)]
    part = kernel_blocks("rbf", {"image": points}, {"image": 1.0}).part
    found = lobes((x / np.linalg.norm(x))[:, None], part)
    assert [(lobe.name, sorted(lobe.rows.tolist())) for lobe in found[:2]] == [
        ("positive-a", list(range(8))),
        ("positive-b", list(range(8, 16))),
    ]
    together = kernel_blocks("rbf", {"image": points}, {"image": 30.0}).part  # so wide that all are alike
    assert [lobe.name for lobe in lobes((x / np.linalg.norm(x))[:, None], together)] == ["positive", "negative"]


def test_stability_is_the_mean_best_overlap():
    """A lobe that is the whole of a strong group comes back; samples at random do not. Only the seed decides."""
    target, reference = two_views(0, LOST)
    blocks = [
        kernel_blocks(
            "rbf",
            {"image": torch.from_numpy(model.image), "text": torch.from_numpy(model.text)},
            {"image": 5.0, "text": 4.5},
        )
        for model in (target, reference)
    ]
    random = np.random.default_rng(0)
    rows = (np.array(LOST[0]), random.choice(N, 20, False))
    given = [Lobe(number, "positive", each, np.ones(len(each))) for number, each in enumerate(rows)]
    directions = np.zeros((N, 2))
    goal = Goal(2 / N, None, 4, None, seed=0)
    first, again, other = (
        stability(given, directions, *blocks, goal=g, halves=6) for g in (goal, goal, Goal(2 / N, None, 4, None, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first[0] > 0.75 > 0.3 > first[1]


VERDICTS = [
    (0.1, 0.9, math.nan, "finding"),
    (0.1, 0.75, math.nan, "finding"),
    (0.1, 0.74, math.nan, "unstable"),
    (0.1, math.nan, math.nan, "not tested"),
    (0.1, 0.9, 0.1, "within floor"),
    (0.0, 0.9, math.nan, "within floor"),
    (1e-9, 0.9, math.nan, "within floor"),  # rounding
    (-0.1, 0.9, math.nan, "within floor"),
]


@pytest.mark.parametrize(("excess", "stable", "floor", "verdict"), VERDICTS)
def test_verdicts(excess, stable, floor, verdict):
    lobe = Lobe(0, "positive", np.arange(3), np.ones(3))
    measured, stability = [{"excess": excess, "lobe_coherence_target": 0.2}], np.array([stable])
    (row,) = verdicts(measured, stability, owned([lobe], measured, stability), Rule(floor=floor))
    assert (row["verdict"], row["finding"]) == (verdict, verdict == "finding")


def test_a_sample_belongs_to_the_most_stable_lobe():
    rows = [np.arange(0, 10), np.arange(4, 14), np.arange(20, 30)]
    given = [Lobe(i, "positive", part, np.ones(10)) for i, part in enumerate(rows)]
    measured, stable = [{"excess": 0.1, "lobe_coherence_target": 0.2}] * 3, np.array([0.8, 0.9, 0.8])
    found = verdicts(measured, stable, owned(given, measured, stable), Rule())
    assert [row["own"] for row in found] == [4, 10, 10]
    assert [row["verdict"] for row in found] == ["repeat", "finding", "finding"]


def test_loss_and_excess_from_the_kernels():
    target, reference = (
        kernel_blocks("cosine", {"image": torch.from_numpy(np.random.default_rng(i).standard_normal((30, 4)))}, {})
        for i in range(2)
    )
    lobe = Lobe(0, "positive", np.array([3, 9, 20]), np.array([0.5, 0.4, 0.1]))
    measured = measures(lobe, target, reference)
    w = lobe.weights / np.linalg.norm(lobe.weights)
    held, kept = (w @ blocks.part(torch.from_numpy(lobe.rows)).numpy() @ w for blocks in (target, reference))
    assert measured["excess"] == pytest.approx(held - kept)
    assert measured["loss"] == pytest.approx(1 - kept / held)


def test_so_few_samples_that_halves_have_no_direction():
    random = np.random.default_rng(0)
    models = [Embeddings(random.standard_normal((5, 3))) for _ in range(2)]
    found = find_discrepancies(*models, modality="image", kernel="cosine", n_directions=1)
    assert found.frame.stability.isna().all()
    with pytest.raises(InputError, match="halves is -1: expected a whole number from 0"):
        find_discrepancies(*models, modality="image", kernel="cosine", n_directions=1, halves=-1)


def test_a_lobe_that_was_cut_stands_for_its_whole_group(monkeypatch):
    """Of many samples a drawn part is halved, and few of them are among the heaviest of a large group."""
    monkeypatch.setattr("koda_audit.discrepancy.stability.POOL", 160)
    models = two_views(0, LOST)
    whole = find_discrepancies(*models, n_directions=4).frame
    monkeypatch.setattr("koda_audit.discrepancy.find.search", cut_at(6))
    cut = find_discrepancies(*models, n_directions=4).frame
    assert cut.n.max() == 6
    top = whole.stability.nlargest(2)
    assert top.min() > 0.7
    np.testing.assert_allclose(cut.stability.nlargest(2), top, atol=0.15)


def cut_at(most):
    """``search`` with lobes of at most so many samples."""

    def cut(*models, **settings):
        found = search(*models, **settings)
        short = [replace(lobe, rows=lobe.rows[:most], weights=lobe.weights[:most]) for lobe in found.lobes]
        return replace(found, lobes=short)

    return cut


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"floor": -1.0}, "floor is -1.0: expected a number from 0"),
        ({"floor": math.nan}, "floor is nan"),
        ({"floor": "x"}, "floor is 'x'"),
        ({"min_stability": math.nan}, "min_stability is nan: expected a number from 0 to 1"),
        ({"min_stability": 2}, "min_stability is 2"),
        ({"min_stability": None}, "min_stability is None"),
        ({"min_stability": True}, "min_stability is True"),
        ({"halves": 2**32 - 1}, "halves is 4294967295: expected a whole number from 0 to 10000"),
    ],
)
def test_settings_of_the_rule_are_checked_first(setting, message, monkeypatch):
    monkeypatch.setattr("koda_audit.discrepancy.find.search", None)  # would be called first
    model = Embeddings(np.eye(8))
    with pytest.raises(InputError, match=re.escape(message)):
        find_discrepancies(model, model, modality="image", **setting)


def test_names_of_many_groups_are_letters():
    points = np.repeat(np.eye(32), 5, axis=0)
    x = np.r_[np.full(160, 160**-0.5), np.zeros(640)]
    part = kernel_blocks("cosine", {"image": torch.from_numpy(points)}, {}).part
    names = [lobe.name for lobe in lobes(x[:, None], part)]
    assert len(set(names)) == len(names) > 28
    assert names[25:28] == ["positive-z", "positive-aa", "positive-ab"]


def test_equal_models_up_to_scale_have_no_finding_of_rounding():
    random = np.random.default_rng(9)
    points = random.normal(size=(8, 16))[np.arange(120) % 8] + 0.1 * random.normal(size=(120, 16))
    models = Embeddings(points), Embeddings(3 * points)
    found = find_discrepancies(
        *models, modality="image", kernel="cosine", n_directions=6, epsilon=1.0, rotation="varimax", halves=4
    )
    assert (found.frame.verdict == "within floor").all()


def test_what_nobody_holds_cannot_be_lost():
    points = np.array([[-1, 0], [0, -1], [-1, 0], [0, -1], [0, -1], [1, 0], [1, 0]], dtype=float)
    found = find_discrepancies(
        Embeddings(points), Embeddings(np.eye(7)), modality="image", kernel="cosine", n_directions=5, halves=0
    )
    assert found.frame.loss.isna().any()
    assert found.frame.loss.dropna().between(-1e6, 1).all()
