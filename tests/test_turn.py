"""Subspaces turned until each column has its weight on few samples: indicators come apart, whatever mixed them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from koda_audit.discrepancy.turn import third_moments, turns

Floats = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def orthonormal(random: np.random.Generator, n: int, count: int) -> Floats:
    return np.linalg.qr(random.standard_normal((n, count)))[0]


def turned(columns: Floats, seed: int = 0) -> Floats:
    """The columns at the last of all numbers of directions."""
    *_, (_, turn) = turns(third_moments(columns)[None], range(1, columns.shape[1] + 1), seed)
    return columns @ turn[0]


def criterion(columns: Floats) -> float:
    return float((columns**3).sum())


def clusters(sizes: list[int], n: int) -> Floats:
    """(n, k) indicators of disjoint groups, of length 1."""
    label = np.r_[np.repeat(np.arange(len(sizes)), sizes), np.full(n - sum(sizes), -1)]
    marks = label[:, None] == np.arange(len(sizes))
    return marks / np.linalg.norm(marks, axis=0)


def noisy(seed: int, sizes: list[int], n: int, noise: float = 0.02) -> Floats:
    """Orthonormal columns near the indicators, in no order."""
    random = np.random.default_rng(seed)
    near = clusters(sizes, n) + noise * random.standard_normal((n, len(sizes)))
    return np.linalg.qr(near)[0] @ orthonormal(random, len(sizes), len(sizes))


def paired(one: Floats, other: Floats) -> Floats:
    """Cosine of each column with the nearest of the other's."""
    best: Floats = (one.T @ other).max(axis=1)
    return best


def test_third_moments_are_sums_over_the_samples() -> None:
    columns = np.random.default_rng(0).standard_normal((17, 4))
    moments = third_moments(columns)
    for a, b, c in np.ndindex(4, 4, 4):
        assert moments[a, b, c] == pytest.approx(sum(row[a] * row[b] * row[c] for row in columns))
    np.testing.assert_allclose(third_moments(columns[:, :2]), moments[:2, :2, :2])


def test_third_moments_follow_the_order_and_the_signs_of_columns() -> None:
    random = np.random.default_rng(1)
    columns, order, signs = random.standard_normal((30, 5)), random.permutation(5), random.choice([-1.0, 1.0], 5)
    moments = third_moments(columns)
    expected = moments[np.ix_(order, order, order)] * np.einsum("a,b,c->abc", signs, signs, signs)
    np.testing.assert_allclose(third_moments(columns[:, order] * signs), expected, atol=1e-12)
    np.testing.assert_allclose(third_moments(columns[random.permutation(30)]), moments, atol=1e-12)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_indicators_come_apart_whatever_mixed_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = clusters([int(size) for size in random.integers(3, 12, 5)], 120)
    found = turned(groups @ orthonormal(random, 5, 5))
    best = found.T @ groups
    assert sorted(best.argmax(axis=1)) == [0, 1, 2, 3, 4]  # one column each, and of positive sign
    assert best.max(axis=1).min() > 1 - 1e-4


@given(SEEDS, st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_columns_stay_orthonormal_in_the_same_span(seed: int, count: int) -> None:
    columns = orthonormal(np.random.default_rng(seed), 30, count)
    moments = third_moments(columns)[None]
    for number, turn in turns(moments, range(1, count + 1)):
        np.testing.assert_allclose(turn[0].T @ turn[0], np.eye(number), atol=1e-12)
        found = columns[:, :number] @ turn[0]
        np.testing.assert_allclose(found @ found.T, columns[:, :number] @ columns[:, :number].T, atol=1e-10)
        assert ((found**3).sum(axis=0) >= 0).all()  # a sign of each


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_no_turn_of_two_columns_does_better_where_there_are_groups(seed: int, count: int) -> None:
    found = turned(noisy(seed, [6 + 3 * place for place in range(count)], 200, noise=0.05))
    reached = criterion(found)
    for i in range(count):
        for j in range(i):
            for angle in np.linspace(-np.pi, np.pi, 37):
                other = found.copy()
                other[:, i] = np.cos(angle) * found[:, i] + np.sin(angle) * found[:, j]
                other[:, j] = np.cos(angle) * found[:, j] - np.sin(angle) * found[:, i]
                assert criterion(other) <= reached * (1 + 1e-6)


def test_an_angle_of_two_columns_is_that_of_a_search_over_all_angles() -> None:
    columns = noisy(0, [12, 20], 100, noise=0.05)
    angles = np.linspace(0, 2 * np.pi, 20_001)
    one = np.outer(columns[:, 0], np.cos(angles)) + np.outer(columns[:, 1], np.sin(angles))
    other = np.outer(columns[:, 1], np.cos(angles)) - np.outer(columns[:, 0], np.sin(angles))
    # signs are free, so that the best of both columns' is what counts
    best = (np.abs((one**3).sum(axis=0)) + np.abs((other**3).sum(axis=0))).max()
    assert criterion(turned(columns)) == pytest.approx(best, rel=1e-4)


CHANGES = {
    "rotation": lambda columns, random: columns @ orthonormal(random, 6, 6),
    "signs": lambda columns, random: columns * random.choice([-1.0, 1.0], 6),
    "order": lambda columns, random: columns[:, random.permutation(6)],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_does_not_depend_on_the_columns_of_the_span(change: str, seed: int) -> None:
    columns = noisy(seed, [8, 11, 14, 17, 20, 23], 300)
    other = CHANGES[change](columns, np.random.default_rng(seed))
    one, two = turned(columns), turned(other)
    assert paired(one, two).min() > 0.999
    assert len(set((one.T @ two).argmax(axis=1))) == 6


def test_the_order_of_the_samples_changes_nothing_but_order() -> None:
    columns = noisy(3, [8, 11, 14, 17], 200)
    order = np.random.default_rng(3).permutation(200)
    np.testing.assert_allclose(turned(columns[order]), turned(columns)[order], atol=1e-6)


def test_each_smaller_number_is_that_of_the_leading_columns_alone() -> None:
    columns = noisy(4, [8, 11, 14, 17, 20], 200)
    every = dict(turns(third_moments(columns)[None], [1, 2, 3, 4, 5]))
    for number in (1, 2, 3, 4):
        alone = dict(turns(third_moments(columns[:, :number])[None], range(1, number + 1)))
        np.testing.assert_array_equal(every[number], alone[number])


def test_a_number_without_smaller_ones_reaches_as_much() -> None:
    columns = noisy(5, [8, 11, 14, 17, 20], 200)
    ((number, alone),) = turns(third_moments(columns)[None], [5])
    assert number == 5
    assert criterion(columns @ alone[0]) == pytest.approx(criterion(turned(columns)), rel=1e-4)


def test_subspaces_side_by_side_are_those_one_by_one() -> None:
    several = [noisy(seed, [8, 11, 14, 17], 150) for seed in range(4)]
    together = dict(turns(np.stack([third_moments(columns) for columns in several]), [1, 2, 3, 4]))
    for place, columns in enumerate(several):
        alone = dict(turns(third_moments(columns)[None], [1, 2, 3, 4]))
        for number, turn in alone.items():
            both = (criterion(columns[:, :number] @ each) for each in (together[number][place], turn[0]))
            assert next(both) == pytest.approx(next(both), rel=1e-4)  # the starts differ


def test_the_criterion_never_falls() -> None:
    """The bare fixed point ends below where it started, at .087."""
    columns = orthonormal(np.random.default_rng(29), 40, 2)
    angles = np.linspace(0, np.pi / 2, 500)
    turns_of_the_plane = (np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles)
    best = max(float(np.abs(((columns @ turn) ** 3).sum(axis=0)).sum()) for turn in turns_of_the_plane)
    assert criterion(turned(columns)) >= best * (1 - 1e-3)


def test_the_same_seed_gives_the_same_bits_and_the_input_stays() -> None:
    columns = orthonormal(np.random.default_rng(6), 60, 5)
    moments = third_moments(columns)[None]
    before = moments.copy()
    first, again, other = ([turn.tobytes() for _, turn in turns(moments, range(1, 6), seed)] for seed in (0, 0, 1))
    assert first == again
    assert first != other
    np.testing.assert_array_equal(moments, before)


def test_one_column_turns_to_its_heavier_side() -> None:
    x = np.r_[np.full(3, -0.5), np.full(25, 0.1)][:, None]
    np.testing.assert_array_equal(turned(x / np.linalg.norm(x)), -x / np.linalg.norm(x))


def test_columns_without_any_third_moment_are_left_orthonormal() -> None:
    """x and -x in equal parts: every turn has the sum 0, and none must be no number."""
    half = orthonormal(np.random.default_rng(7), 20, 3) / 2**0.5
    found = turned(np.r_[half, -half])
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)
