"""From a column to its group: the set whose indicator lies nearest, against all sizes tried one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from koda_audit.discrepancy.groups import Group, heaviest, indicators, jaccard, members

Floats = NDArray[np.float64]


def nearest(x: Floats, smallest: int = 3) -> tuple[set[int], float] | None:
    """The samples with the largest cosine, over all sizes, and more until there are ``smallest``; None where fewer
    entries are positive."""
    if sum(value > 0 for value in x) < smallest:
        return None
    order = sorted(range(len(x)), key=lambda row: -x[row])
    cosines = {m: sum(x[row] for row in order[:m]) / math.sqrt(m) for m in range(1, len(x) + 1)}
    best = max(smallest, max(cosines, key=lambda m: (round(cosines[m], 12), -m)))
    return set(order[:best]), cosines[best] / math.sqrt(sum(x**2))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([2, 3]))
@settings(max_examples=150, deadline=None)
def test_the_group_is_the_nearest_indicator(seed: int, n: int, smallest: int) -> None:
    x = np.random.default_rng(seed).standard_normal(n)
    (group,) = members(x[:, None], smallest)
    expected = nearest(x, smallest)
    if expected is None:
        assert group is None
    else:
        assert group is not None
        assert set(group.rows.tolist()) == expected[0]
        assert group.fit == pytest.approx(expected[1])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_no_other_set_is_nearer(seed: int) -> None:
    """All sets of nine samples, not only the heaviest."""
    x = np.random.default_rng(seed).standard_normal(9)
    x[:5] = np.abs(x[:5])
    chosen = (np.arange(1, 2**9)[:, None] >> np.arange(9)) & 1
    cosines = chosen @ x / np.sqrt(chosen.sum(axis=1)) / np.linalg.norm(x)
    best = chosen[cosines.argmax()]
    (group,) = members(x[:, None])
    assert group is not None
    if best.sum() >= 3:
        assert set(group.rows.tolist()) == set(np.flatnonzero(best).tolist())
        assert group.fit == pytest.approx(cosines.max())
    else:
        assert len(group.rows) == 3


CHANGES = {
    "the same": lambda x: x,
    "larger": lambda x: 1e6 * x,
    "smaller": lambda x: 1e-9 * x,
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_scale_of_a_column_does_not_matter(change: str) -> None:
    x = np.random.default_rng(0).standard_normal((60, 7))
    for one, other in zip(members(x), members(CHANGES[change](x)), strict=True):
        assert one is not None
        assert other is not None
        assert one.rows.tolist() == other.rows.tolist()
        assert one.fit == pytest.approx(other.fit)


def test_columns_are_read_one_by_one_heaviest_first() -> None:
    x = np.random.default_rng(1).standard_normal((40, 5))
    for column, group in zip(x.T, members(x), strict=True):
        assert group is not None
        assert group.rows.tolist() == members(column[:, None])[0].rows.tolist()  # type: ignore[union-attr]
        np.testing.assert_array_equal(group.weights, column[group.rows])
        assert (np.diff(group.weights) <= 0).all()
        assert group.weights.min() > np.delete(column, group.rows).max()


def test_equal_entries_keep_the_order_of_the_samples() -> None:
    (group,) = members(np.array([[0.0], [1.0], [1.0], [0.0], [1.0], [1.0], [0.0]]))
    assert group is not None
    assert (group.rows.tolist(), group.fit) == ([1, 2, 4, 5], 1.0)


SIZES = [
    ([1.0, 0.1, 0.1, 0.0], 3, [0, 1, 2]),  # one sample would be nearer
    ([1.0, 0.1, 0.0, -1.0], 3, None),  # a third is not positive
    ([1.0, 0.1, 0.0, -1.0], 2, [0, 1]),
    ([-1.0, -1.0, -1.0], 3, None),
    ([0.0, 0.0, 0.0], 3, None),
    ([1.0, 1.0], 3, None),
    ([1.0] * 5, 3, [0, 1, 2, 3, 4]),  # no cap: all samples may be one group
]


@pytest.mark.parametrize(("entries", "smallest", "rows"), SIZES)
def test_sizes_of_groups(entries: list[float], smallest: int, rows: list[int] | None) -> None:
    (group,) = members(np.array(entries)[:, None], smallest)
    assert (None if group is None else group.rows.tolist()) == rows


def test_there_is_no_cap() -> None:
    x = np.r_[np.ones(3_000), np.zeros(4_000)]
    (group,) = members(x[:, None])
    assert group is not None
    assert len(group.rows) == 3_000


def test_a_gaussian_column_has_the_fit_that_is_said() -> None:
    found = members(np.random.default_rng(2).standard_normal((20_000, 3)))
    assert [round(group.fit, 2) for group in found if group is not None] == pytest.approx([0.64] * 3, abs=0.011)


def test_the_paper_takes_the_heaviest_of_either_sign() -> None:
    x = np.random.default_rng(3).standard_normal((200, 4))
    x /= np.linalg.norm(x, axis=0)
    for column, group in zip(x.T, heaviest(x), strict=True):
        assert set(group.rows.tolist()) == set(np.argsort(np.abs(column))[-50:].tolist())
        np.testing.assert_array_equal(group.weights, np.abs(column[group.rows]))
        assert (np.diff(group.weights) <= 0).all()
        sign = np.zeros(200)
        sign[group.rows] = np.sign(column[group.rows]) / 50**0.5
        assert group.fit == pytest.approx(column @ sign)
    assert [group.rows.tolist() for group in heaviest(-x)] == [group.rows.tolist() for group in heaviest(x)]
    assert [len(group.rows) for group in heaviest(x[:20])] == [20] * 4


def test_overlaps_are_those_of_sets() -> None:
    random = np.random.default_rng(4)
    first, second = (
        [None if place == 1 else Group(random.choice(30, m, False), np.ones(m), 1.0) for place, m in enumerate(sizes)]
        for sizes in ([5, 9, 20], [4, 0, 30, 12])
    )
    found = jaccard(indicators(first, 30), indicators(second, 30))
    for a, one in enumerate(first):
        for b, other in enumerate(second):
            mine, theirs = (set() if group is None else set(group.rows.tolist()) for group in (one, other))
            expected = len(mine & theirs) / len(mine | theirs) if mine | theirs else 0.0
            assert found[a, b] == pytest.approx(expected)
