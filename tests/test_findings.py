"""From groups to findings: what kernels say about a group, floors, and verdicts."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from koda_audit import Embeddings, find_discrepancies
from koda_audit._kernels.blocks import Blocks
from koda_audit._kernels.table import kernel_blocks
from koda_audit.discrepancy import findings
from koda_audit.discrepancy.find import self_excess
from koda_audit.discrepancy.findings import Rule, evenly, held_apart, measures, verdicts
from koda_audit.discrepancy.groups import Group
from koda_audit.discrepancy.pool import Pool
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.stability import Tested as Stable
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


def sets(found: Discrepancies) -> list[set[int]]:
    """The samples of each finding."""
    chosen = found.subsets[found.subsets.finding.astype(bool)]
    return [set(part.id.astype(int)) for _, part in chosen.groupby("group")]


def test_lost_groups_are_findings_and_two_views_of_the_same_are_none() -> None:
    found = find_discrepancies(*two_views(0, LOST), n_directions=4, floor=0.0)
    assert len(sets(found)) == 2
    for group in LOST:
        assert max(len(part & set(group)) / len(part | set(group)) for part in sets(found)) > 0.8
    null = find_discrepancies(*two_views(1, []), n_directions=4)
    assert not null.groups.finding.any()
    assert null.groups.stability.between(0, 1).all()


def test_the_floor_takes_findings_away() -> None:
    models = two_views(0, LOST)
    settings: dict[str, Any] = {"n_directions": 2, "halves": 3}
    free = find_discrepancies(*models, **settings)
    assert free.groups.floor.isna().all()
    held = find_discrepancies(*models, **settings, floor=float(free.groups.excess.max()))
    assert (held.groups.verdict == "within floor").all()
    assert (held.groups.floor == free.groups.excess.max()).all()
    assert self_excess(models[0], models[0], n_directions=2) == 0
    shaken = Embeddings(models[0].image + 1e-3, models[0].text * 1.001)  # type: ignore[operator]
    assert 0 <= self_excess(models[0], shaken, n_directions=2) < 1e-3 * free.groups.excess.max()


def test_self_excess_is_the_largest_excess_of_the_groups() -> None:
    models = two_views(0, LOST)
    for settings in ({"n_directions": 3}, {"n_directions": 3, "modality": "image", "seed": 2}):
        found = find_discrepancies(*models, **settings, halves=0)  # type: ignore[arg-type]
        assert self_excess(*models, **settings) == pytest.approx(found.groups.excess.max())


def test_without_halves_nothing_is_tested() -> None:
    found = find_discrepancies(*two_views(0, LOST), n_directions=2, halves=0)
    assert found.groups.stability.isna().all()
    assert set(found.groups.verdict) == {"not tested"}
    assert not found.groups.finding.any()
    assert not found.groups.near.any()


def test_modality_shares_add_up_to_the_excess() -> None:
    target, reference = two_views(0, LOST)
    same_text = Embeddings(reference.image, target.text)
    frame = find_discrepancies(target, same_text, n_directions=2, halves=0).groups
    np.testing.assert_allclose(frame.image_share + frame.text_share, frame.excess, rtol=1e-9, atol=1e-12)
    best = frame.sort_values("excess").iloc[-1]
    assert best.image_share > 0.8 * best.excess


APART = {"excess": 0.1, "coherence_target": 0.2, "separation": 0.8, "retention": 0.1}
VERDICTS: list[tuple[dict[str, float], str]] = [  # what differs from a finding of stability .9; the word
    ({}, "finding"),
    ({"stability": 0.7}, "finding"),
    ({"separation": 0.3, "retention": 0.5}, "finding"),
    ({"retention": -3.0}, "finding"),
    ({"floor": 0.09}, "finding"),
    ({"stability": 0.69}, "unstable"),
    ({"stability": 0.9, "min_stability": 0.91}, "unstable"),
    ({"stability": math.nan}, "not tested"),
    ({"again": True}, "repeat"),
    ({"again": True, "stability": 0.1}, "repeat"),
    ({"again": True, "stability": math.nan}, "repeat"),
    ({"retention": 0.51}, "kept"),
    ({"retention": math.nan}, "kept"),
    ({"retention": 0.51, "again": True, "stability": 0.1}, "kept"),
    ({"separation": 0.29}, "not apart"),
    ({"separation": math.nan}, "not apart"),
    ({"separation": -math.inf, "retention": math.nan}, "not apart"),
    ({"separation": 0.29, "retention": 0.51, "again": True, "stability": math.nan}, "not apart"),
    ({"excess": 0.0}, "within floor"),
    ({"excess": -0.1}, "within floor"),
    ({"excess": 1e-7}, "within floor"),  # rounding: a millionth of the coherence
    ({"floor": 0.1}, "within floor"),
    ({"floor": 0.1, "separation": 0.0, "retention": 9.0, "again": True, "stability": math.nan}, "within floor"),
]


@pytest.mark.parametrize(("change", "verdict"), VERDICTS)
def test_the_first_reason_that_applies_is_the_verdict(change: dict[str, float], verdict: str) -> None:
    given = {"stability": 0.9, "floor": math.nan, "min_stability": 0.7, "again": False, **APART, **change}
    # in the second of two columns, beside a group that fails in all
    overlaps = np.full((4, 2), [0.0, given["stability"]])
    rule = Rule(given["min_stability"], given["floor"])
    (row,) = verdicts([given], Stable(2, np.eye(2), overlaps), np.array([True, bool(given["again"])]), [1], rule)
    assert (row["verdict"], row["finding"]) == (verdict, verdict == "finding")
    assert row["floor"] == pytest.approx(given["floor"], nan_ok=True)
    assert row["stability"] == pytest.approx(given["stability"], nan_ok=True)
    assert row["near"] is False  # halves that agree leave no error


@pytest.mark.parametrize(
    ("middle", "change", "near"),
    [
        (0.7, {}, True),
        (0.66, {}, True),
        (0.74, {}, True),
        (0.64, {}, False),
        (0.76, {}, False),
        (0.7, {"retention": 0.9}, False),  # what more halves cannot make a finding is not near to one
        (0.7, {"separation": 0.0}, False),
        (0.7, {"excess": 0.0}, False),
        (0.7, {"again": True}, False),
    ],
)
def test_near_is_within_two_standard_errors(middle: float, change: dict[str, float], near: bool) -> None:
    """Sixteen halves at the middle plus and minus .1: an error of .1 / sqrt(15) = .0258."""
    overlaps = middle + 0.1 * np.repeat([-1.0, 1.0], 8)[:, None]
    given = {**APART, **change}
    again = np.array([bool(given.get("again", False))])
    (row,) = verdicts([given], Stable(1, np.eye(1), overlaps), again, [0], Rule())
    assert row["stability_error"] == pytest.approx(0.1 / 15**0.5)
    assert row["near"] == near
    if row["verdict"] in ("finding", "unstable"):
        assert row["finding"] == (row["stability"] >= 0.7)


def test_verdicts_follow_the_columns_of_their_groups() -> None:
    """The second column has no group."""
    tested = Stable(3, np.eye(3), np.array([[0.9, 0.1, 0.2], [0.9, 0.1, 0.3]]))
    rows = verdicts([APART, APART], tested, np.zeros(3, bool), [0, 2], Rule())
    assert [row["verdict"] for row in rows] == ["finding", "unstable"]
    assert [row["stability"] for row in rows] == pytest.approx([0.9, 0.25])


def blocks(n: int, kernel: str = "cosine") -> tuple[Blocks, Blocks]:
    first, second = (
        kernel_blocks(
            kernel,
            {"image": torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 4)))},
            {"image": 2.0} if kernel == "rbf" else {},
        )
        for seed in range(2)
    )
    return first, second


def full(side: Blocks) -> NDArray[np.float64]:
    """K with k(x, x) = 1."""
    matrix: NDArray[np.float64] = side.matrix().numpy() * side.n
    return matrix


@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_measures_are_those_of_the_whole_matrices(kernel: str) -> None:
    target, reference = blocks(30, kernel)
    rows, weights = np.array([3, 9, 20, 1]), np.array([0.5, 0.4, 0.1, 0.05])
    measured = measures(rows, weights, target, reference)
    w = np.zeros(30)
    w[rows] = weights / np.linalg.norm(weights)
    held, kept = (w @ full(side) @ w / 30 for side in (target, reference))
    assert (measured["coherence_target"], measured["coherence_reference"]) == pytest.approx((held, kept))
    assert measured["excess"] == pytest.approx(held - kept)
    assert measured["loss"] == pytest.approx(1 - kept / held)
    i, j = np.triu_indices(4, 1)
    for side, name in ((target, "similarity_target"), (reference, "similarity_reference")):
        assert measured[name] == pytest.approx(full(side)[rows[i], rows[j]].mean())
    scaled = measures(rows, 7 * weights, target, reference)
    assert scaled == pytest.approx(measured)


def test_measures_of_a_large_group_are_those_of_every_kth_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """By weight, so that light and heavy samples are both there: 3 % off at most."""
    target, reference = blocks(900, "rbf")
    random = np.random.default_rng(2)
    rows = random.permutation(900)[:600]
    weights = np.sort(random.gamma(2.0, size=600))[::-1].copy()
    whole = measures(rows, weights, target, reference)
    monkeypatch.setattr(findings, "PAIRS_OF", 150)
    part = measures(rows, weights, target, reference)
    for name in ("coherence_target", "coherence_reference", "similarity_target", "similarity_reference"):
        assert part[name] == pytest.approx(whole[name], rel=0.03)
        assert part[name] != whole[name]


@pytest.mark.parametrize(
    ("m", "count"), [(1, 1), (999, 999), (1_000, 1_000), (1_001, 501), (2_000, 1_000), (10_001, 910)]
)
def test_at_most_a_thousand_samples_stand_for_a_group(m: int, count: int) -> None:
    assert len(range(m)[evenly(m)]) == count <= 1_000


def test_separation_of_all_samples_and_of_a_pool_beside_the_group() -> None:
    target, reference = blocks(40, "rbf")
    groups = [Group(np.array([5, 1, 30, 12]), np.ones(4), 1.0), Group(np.arange(3), np.ones(3), 1.0)]
    for pooled in (np.random.default_rng(3).permutation(40), np.array([39, 2, 8, 1, 17, 30, 25])):
        found = held_apart(groups, Pool.of(pooled, target, reference), target, reference)
        for group, row in zip(groups, found, strict=True):
            others = np.setdiff1d(pooled, group.rows)
            i, j = np.triu_indices(len(group.rows), 1)
            (within, across), (kept, beyond) = (
                (full(side)[group.rows[i], group.rows[j]].mean(), full(side)[np.ix_(group.rows, others)].mean())
                for side in (target, reference)
            )
            assert row["separation"] == pytest.approx(1 - across / within)
            assert row["retention"] == pytest.approx((kept - beyond) / (within - across))


def test_groups_of_more_samples_than_the_pool_are_findings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves are drawn from 160 of 240 samples; groups are those of all."""
    models = two_views(0, LOST)
    whole = find_discrepancies(*models, n_directions=4)
    monkeypatch.setattr("koda_audit.discrepancy.pool.POOL", 160)
    drawn = find_discrepancies(*models, n_directions=4)
    assert len(sets(whole)) == len(sets(drawn)) == 2
    for group in LOST:
        assert max(len(part & set(group)) / len(part | set(group)) for part in sets(drawn)) > 0.8
    assert drawn.groups.stability.nlargest(2).min() > 0.7


def test_so_few_samples_that_halves_have_no_direction() -> None:
    random = np.random.default_rng(0)
    models = [Embeddings(random.standard_normal((5, 3))) for _ in range(2)]
    settings: dict[str, Any] = {"modality": "image", "kernel": "cosine", "n_directions": 1}
    found = find_discrepancies(*models, **settings)
    assert not found.groups.finding.astype(bool).any()
    with pytest.raises(InputError, match="halves is -1: expected a whole number from 0"):
        find_discrepancies(*models, **settings, halves=-1)


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
def test_settings_of_the_rule_are_checked_first(
    setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koda_audit.discrepancy.find.search", None)  # would be called first
    model = Embeddings(np.eye(8))
    with pytest.raises(InputError, match=re.escape(message)):
        find_discrepancies(model, model, modality="image", **setting)


@pytest.mark.parametrize("epsilon", [None, 1.0])
def test_equal_models_up_to_scale_have_no_finding_of_rounding(epsilon: float | None) -> None:
    random = np.random.default_rng(9)
    points = random.normal(size=(8, 16))[np.arange(120) % 8] + 0.1 * random.normal(size=(120, 16))
    found = find_discrepancies(
        Embeddings(points),
        Embeddings(3 * points),
        modality="image",
        kernel="cosine",
        n_directions=6,
        epsilon=epsilon,
        halves=4,
    )
    assert set(found.groups.verdict) <= {"within floor"}
    assert len(found.groups) > 0 or epsilon is None


def test_what_nobody_holds_cannot_be_lost() -> None:
    target = kernel_blocks("cosine", {"image": torch.tensor([[1.0, 0], [-1, 0], [0, 1]], dtype=torch.float64)}, {})
    reference = kernel_blocks("cosine", {"image": torch.eye(3, dtype=torch.float64)}, {})
    measured = measures(np.array([0, 1]), np.array([1.0, 1.0]), target, reference)
    assert measured["coherence_target"] == pytest.approx(0, abs=1e-15)
    assert math.isnan(measured["loss"])
