"""The samples that groups are tested on, and what the two kernels say about sets of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from koda_audit._kernels.table import kernel_blocks
from koda_audit.discrepancy import pool as pools
from koda_audit.discrepancy.pool import Pool, drawn, is_lost

Floats = NDArray[np.float64]
N = 60


def gaussian(points: Floats, width: float) -> Floats:
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    return np.exp(-squares / (2 * width**2))


def made(seed: int = 0) -> tuple[Pool, NDArray[np.float32]]:
    """Two random kernels, and sets of 2 to 30 samples that overlap."""
    random = np.random.default_rng(seed)
    target, reference = (gaussian(random.standard_normal((N, 4)), 1.5) for _ in range(2))
    marks = np.zeros((N, 5), np.float32)
    for column, size in zip(marks.T, (2, 3, 8, 15, 30), strict=True):
        column[random.choice(N, size, False)] = 1
    return Pool(np.arange(N), target, reference), marks


def test_what_is_drawn_depends_on_the_ids_and_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "POOL", 40)
    ids = [f"sample {number}" for number in range(300)]
    order = np.random.default_rng(0).permutation(300)
    first, other = drawn(ids), drawn([ids[row] for row in order])
    assert [ids[row] for row in first] == [ids[order[row]] for row in other]
    assert len(set(first.tolist())) == 40
    assert len({tuple(drawn(ids, seed)) for seed in range(5)}) == 5
    # the first of them do not change where others are added, as long as they stay among the first
    more = drawn([*ids, *(f"other {number}" for number in range(300))])
    kept = [row for row in more if row < 300]
    assert kept == first.tolist()[: len(kept)]


def test_up_to_two_thousand_samples_all_are_drawn() -> None:
    assert sorted(drawn([str(row) for row in range(2_000)]).tolist()) == list(range(2_000))
    assert len(drawn([str(row) for row in range(2_001)])) == 2_000
    assert drawn(["\udcff", "ä", ""]).tolist() != []  # names of files need not be text


def test_every_sample_is_as_likely() -> None:
    """In 400 draws of a third, each of 30 samples 133 times, give or take four standard errors of 9.4."""
    ids = [str(row) for row in range(30)]
    counts = np.zeros(30)
    for seed in range(400):
        counts[drawn(ids, seed)[:10]] += 1
    assert np.abs(counts - 400 / 3).max() <= 4 * np.sqrt(400 * 2 / 9)


def test_kernels_of_the_pool_are_those_of_its_samples() -> None:
    random = np.random.default_rng(1)
    sides = [torch.from_numpy(random.standard_normal((30, 3))) for _ in range(2)]
    rows = np.array([4, 0, 29, 11])
    pool = Pool.of(rows, *(kernel_blocks("rbf", {"image": values}, {"image": 2.0}) for values in sides))
    for kernel, values in zip((pool.target, pool.reference), sides, strict=True):
        np.testing.assert_allclose(kernel, gaussian(values.numpy()[rows], 2.0), atol=1e-12)


def slow_apart(kernel: Floats, rows: list[int]) -> tuple[float, float]:
    """Mean kernel of pairs within a set, and of pairs with one sample outside, by two loops."""
    within = [kernel[i, j] for i in rows for j in rows if i != j]
    across = [kernel[i, j] for i in rows for j in range(len(kernel)) if j not in rows]
    return float(np.mean(within)), float(np.mean(across))


@pytest.mark.parametrize("seed", range(3))
def test_separation_and_retention_are_means_over_pairs(seed: int) -> None:
    pool, marks = made(seed)
    separation, retention = pool.apart(marks)
    for place, column in enumerate(marks.T):
        rows = np.flatnonzero(column).tolist()
        within, across = slow_apart(pool.target, rows)
        kept, beyond = slow_apart(pool.reference, rows)
        assert separation[place] == pytest.approx(1 - across / within)
        assert retention[place] == pytest.approx((kept - beyond) / (within - across))


def test_a_reference_that_is_the_target_keeps_all_and_one_of_noise_nothing() -> None:
    pool, marks = made()
    assert Pool(pool.rows, pool.target, pool.target).apart(marks)[1] == pytest.approx(np.ones(5))
    assert Pool(pool.rows, pool.target, np.eye(N)).apart(marks)[1] == pytest.approx(np.zeros(5))


def test_the_order_of_samples_and_groups_does_not_matter() -> None:
    pool, marks = made()
    random = np.random.default_rng(2)
    rows, groups = random.permutation(N), random.permutation(5)
    other = Pool(pool.rows, *(kernel[np.ix_(rows, rows)] for kernel in (pool.target, pool.reference)))
    for mine, theirs in zip(pool.apart(marks), other.apart(marks[rows][:, groups]), strict=True):
        np.testing.assert_allclose(theirs, mine[groups], rtol=1e-12)
    np.testing.assert_array_equal(other.same(marks[rows][:, groups]), pool.same(marks)[np.ix_(groups, groups)])


def test_sets_without_pairs_are_not_lost() -> None:
    """A lone sample, no sample, and all of them: no warning, and no loss."""
    pool, _ = made()
    marks = np.zeros((N, 3), np.float32)
    marks[0, 0] = 1
    marks[:, 2] = 1
    separation, retention = pool.apart(marks)
    assert np.isnan(separation[:2]).all()
    assert np.isnan(retention).all()
    assert not is_lost(separation, retention).any()


LOST = [
    (0.3, 0.5, True),
    (0.29, 0.5, False),
    (0.3, 0.51, False),
    (0.9, -2.0, True),
    (np.nan, 0.0, False),
    (0.9, np.nan, False),
]


@pytest.mark.parametrize(("separation", "retention", "expected"), LOST)
def test_what_is_lost(separation: float, retention: float, expected: bool) -> None:
    assert is_lost(np.array([separation]), np.array([retention])).tolist() == [expected]


def clusters(sizes: list[int], noise: float = 0.5) -> Floats:
    """Points of clusters that lie far from one another."""
    random = np.random.default_rng(3)
    centres = 4 * np.eye(len(sizes))[np.repeat(np.arange(len(sizes)), sizes)]
    return centres + noise * random.standard_normal(centres.shape)


def marked(n: int, *groups: range) -> NDArray[np.float32]:
    marks = np.zeros((n, len(groups)), np.float32)
    for column, rows in zip(marks.T, groups, strict=True):
        column[list(rows)] = 1
    return marks


def test_two_parts_of_one_cluster_are_the_same_and_two_clusters_are_not() -> None:
    kernel = gaussian(clusters([40, 20, 20]), 1.5)
    pool = Pool(np.arange(80), kernel, np.eye(80))
    halves, parts = (range(20), range(20, 40)), (range(25), range(15, 40))
    same = pool.same(marked(80, *halves, *parts, range(40, 60), range(60, 80)))
    assert same[:4, :4].all()  # halves apart, and parts that overlap
    assert not same[:4, 4:].any()
    assert (same[4:, 4:] == np.eye(2, dtype=bool)).all()
    np.testing.assert_array_equal(same, same.T)
    # of three samples, where a sample's likeness to itself would weigh most
    assert pool.same(marked(80, range(3), range(3, 6), range(1, 4))).all()


def test_likeness_across_is_a_mean_over_pairs_of_different_samples() -> None:
    random = np.random.default_rng(5)
    kernel = gaussian(clusters([20, 20, 20], noise=1.0), 2.0)
    pool = Pool(np.arange(60), kernel, np.eye(60))
    # clusters with 0 to 10 samples of the next one among them
    marks = marked(60, *(range(20 * place, 20 * place + 20 + more) for more in (0, 4, 10) for place in (0, 1)))
    marks[random.choice(60, 6, False)] = 0
    found = pool.same(marks)
    k = marks.shape[1]
    rows = [np.flatnonzero(column).tolist() for column in marks.T]
    for a in range(k):
        for b in range(k):
            pairs = [pool.target[i, j] for i in rows[a] for j in rows[b] if i != j]
            within = min(slow_apart(pool.target, rows[place])[0] for place in (a, b))
            assert found[a, b] == (np.mean(pairs) >= 0.9 * within)
    assert found.any()
    assert not found.all()
