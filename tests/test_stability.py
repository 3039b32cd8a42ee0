"""Do groups come back on random halves, and how many directions show most that do?"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import subspace_angles

from koda_audit import solve_contrast
from koda_audit.discrepancy import halves as halving
from koda_audit.discrepancy import stability
from koda_audit.discrepancy.groups import members
from koda_audit.discrepancy.halves import Halves
from koda_audit.discrepancy.pool import Pool
from koda_audit.discrepancy.stability import Tested as Found
from koda_audit.discrepancy.stability import may_hold_more, repeats, search_numbers, with_more_halves
from koda_audit.discrepancy.turn import oriented, third_moments, turns

Floats = NDArray[np.float64]
N, SIZES = 200, [30, 20, 14]


def gaussian(points: Floats) -> Floats:
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    return np.exp(-2 * squares / np.median(squares))


def kernels(seed: int, sizes: list[int], spread: float = 0.5) -> tuple[Pool, float, Floats]:
    """Groups that the target alone holds together, among noise; the multiplier and the leading columns of both."""
    random = np.random.default_rng(seed)
    points, other = random.standard_normal((2, N, 24))
    start = 0
    for size in sizes:
        points[start : start + size] = 1.5 * random.standard_normal(24) + spread * random.standard_normal((size, 24))
        start += size
    pool = Pool(np.arange(N), gaussian(points), gaussian(other))
    contrast = solve_contrast(pool.target / N, pool.reference / N, 2 / N, 8, block=True)
    multiplier = float(contrast.multiplier[0])
    columns = np.linalg.eigh(pool.target - multiplier * pool.reference)[1][:, ::-1][:, :12]
    return pool, multiplier, columns


def planted_sets() -> list[set[int]]:
    ends = np.cumsum(SIZES)
    return [set(range(end - size, end)) for end, size in zip(ends, SIZES, strict=True)]


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def sets(tested: Found, pool: Pool, columns: Floats) -> list[set[int]]:
    """The groups of the pool in ids; an empty set for a column without one."""
    groups = members(columns[pool.rows, : tested.number] @ tested.turn)
    return [set() if group is None else set(pool.rows[group.rows].tolist()) for group in groups]


def best(tested: Found, pool: Pool, columns: Floats, group: set[int]) -> int:
    """The column whose group is nearest to a planted one."""
    return int(np.argmax([jaccard(group, found) for found in sets(tested, pool, columns)]))


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_groups_come_back_and_groups_of_noise_do_not(seed: int) -> None:
    pool, multiplier, columns = kernels(seed, SIZES)
    tested = search_numbers(columns, pool, multiplier)
    for group in planted_sets():
        place = best(tested, pool, columns, group)
        assert jaccard(sets(tested, pool, columns)[place], group) > 0.9
        assert tested.stability[place] > 0.85
    # directions of one length: else samples near the middle are denser, and that comes back
    points = np.random.default_rng(seed).standard_normal((2, N, 24))
    noise = Pool(np.arange(N), *map(gaussian, points / np.linalg.norm(points, axis=2, keepdims=True)))
    columns = np.linalg.eigh(noise.target - noise.reference)[1][:, ::-1][:, :12]
    for number in (1, 4, 10):
        assert search_numbers(columns, noise, 1.0, number=number).stability.max() < 0.65


def test_stability_is_the_mean_best_overlap_over_the_halves() -> None:
    """With sets, for every number of the directions of a half."""
    pool, multiplier, columns = kernels(2, SIZES, spread=0.9)
    tested = search_numbers(columns, pool, multiplier, halves=6, seed=3, number=5)
    assert tested.number == 5
    mine = sets(tested, pool, columns)
    random = np.random.default_rng([3, 1])
    drawn = [np.sort(random.choice(N, N // 2, replace=False)) for _ in range(6)]
    difference = pool.target - multiplier * pool.reference
    theirs = [
        oriented(scipy.linalg.eigh(difference[np.ix_(places, places)], subset_by_index=[N // 2 - 12, N // 2 - 1])[1])
        for places in drawn
    ]
    theirs = [columns[:, ::-1] for columns in theirs]
    turned = list(turns(np.stack([third_moments(columns) for columns in theirs]), [1, 2, 3, 4, 6, 8, 11, 12], 3))
    expected = np.zeros((6, 5))
    for half, places in enumerate(drawn):
        again = [
            set(places[group.rows].tolist())
            for number, turn in turned
            for group in members(theirs[half][:, :number] @ turn[half], 2)
            if group is not None
        ]
        for place, group in enumerate(mine):
            expected[half, place] = max(jaccard(group & set(places.tolist()), other) for other in again)
    np.testing.assert_allclose(tested.overlaps, expected, atol=1e-6)
    np.testing.assert_allclose(tested.stability, expected.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(tested.error, expected.std(axis=0, ddof=1) / 6**0.5, atol=1e-6)


def test_directions_of_halves_are_leading_eigenvectors_by_either_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, multiplier, _ = kernels(0, SIZES)
    difference = pool.target - multiplier * pool.reference
    whole = Halves(pool, multiplier, 6, seed=0).draw(3)
    monkeypatch.setattr(halving, "WHOLE", 0)
    for (places, columns), (again, other) in zip(whole, Halves(pool, multiplier, 6, seed=0).draw(3), strict=True):
        np.testing.assert_array_equal(places, again)
        assert len(set(places.tolist())) == N // 2
        expected = np.linalg.eigh(difference[np.ix_(places, places)])[1][:, ::-1][:, :6]
        for found in (columns, other):  # in order, so that every leading number of them spans the same
            for number in (1, 3, 6):
                assert subspace_angles(found[:, :number], expected[:, :number]).max() < 1e-3


def test_halves_that_were_drawn_are_passed_over() -> None:
    pool, multiplier, _ = kernels(0, SIZES)
    every, later = Halves(pool, multiplier, 2, 5).draw(6), Halves(pool, multiplier, 2, 5, past=4).draw(2)
    for (one, _), (other, _) in zip(every[4:], later, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({tuple(places) for places, _ in every}) == 6


def test_the_seed_decides() -> None:
    pool, multiplier, columns = kernels(0, SIZES, spread=0.9)
    first, again, other = (
        search_numbers(columns, pool, multiplier, halves=4, seed=seed, number=4).overlaps.tobytes()
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_more_halves_are_drawn_near_the_bound_and_the_first_stay() -> None:
    pool, multiplier, columns = kernels(0, SIZES, spread=1.1)
    tested = search_numbers(columns, pool, multiplier, halves=5, number=4)
    lost = tested.stability[best(tested, pool, columns, planted_sets()[0])]
    far = with_more_halves(tested, columns, pool, multiplier, bound=-1.0)
    assert far.overlaps.shape == (5, 4)
    near = with_more_halves(tested, columns, pool, multiplier, bound=float(lost))
    assert 5 < len(near.overlaps) <= 225
    np.testing.assert_array_equal(near.overlaps[:5], tested.overlaps)
    np.testing.assert_array_equal(near.turn, tested.turn)


def test_the_error_falls_with_the_root_of_the_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "TURNS", 1)  # else other halves may choose another turn, with other groups
    pool, multiplier, columns = kernels(0, SIZES, spread=1.1)
    few, many = (search_numbers(columns, pool, multiplier, halves=halves, number=4) for halves in (25, 225))
    ratio = many.error / few.error
    assert np.median(ratio) == pytest.approx(1 / 3, rel=0.4)
    # and it is an error: the two means differ by it
    assert (np.abs(many.stability - few.stability) < 4 * np.hypot(many.error, few.error)).all()


def test_halves_go_on_until_none_is_near_or_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, multiplier, columns = kernels(0, SIZES, spread=1.1)
    tested = search_numbers(columns, pool, multiplier, halves=5, number=4)
    place = best(tested, pool, columns, planted_sets()[0])
    monkeypatch.setattr(stability, "MORE", 40)
    bound = float(tested.stability[place])
    more = with_more_halves(tested, columns, pool, multiplier, bound)
    near = np.abs(more.stability - bound) < 2 * more.error
    assert len(more.overlaps) >= 40 or not near[place]


def test_the_number_with_most_groups_that_come_back_is_taken() -> None:
    pool, multiplier, columns = kernels(3, SIZES, spread=0.7)

    def score(tested: Found) -> float:
        separation, retention = pool.apart(
            np.array([[row in group for group in sets(tested, pool, columns)] for row in range(N)], np.float32)
        )
        again, total = repeats(tested, columns, pool), 0.0
        for place in range(tested.number):
            if separation[place] >= 0.3 and retention[place] <= 0.5 and not again[place]:
                total += min(max(tested.stability[place] - 0.6, 0.0) / 0.25, 1.0)
        return total

    chosen = search_numbers(columns, pool, multiplier, halves=8)
    numbers = range(1, columns.shape[1] + 1)
    scores = [score(search_numbers(columns, pool, multiplier, halves=8, number=number)) for number in numbers]
    assert score(chosen) == pytest.approx(max(scores))
    assert chosen.number == 1 + int(np.argmax(np.round(scores, 9)))
    assert chosen.number >= 3


def test_without_halves_there_is_no_stability() -> None:
    pool, multiplier, columns = kernels(0, SIZES)
    tested = search_numbers(columns, pool, multiplier, halves=0, number=4)
    assert (tested.number, tested.overlaps.shape) == (4, (0, 4))
    assert np.isnan(tested.stability).all()
    assert np.isnan(tested.error).all()


def test_of_two_columns_of_one_cluster_the_less_stable_repeats() -> None:
    """Halves of the first cluster, in two columns, beside the second cluster."""
    random = np.random.default_rng(4)
    points = 4 * np.eye(3)[np.repeat([0, 1, 2], [40, 30, 30])] + 0.4 * random.standard_normal((100, 3))
    pool = Pool(np.arange(100), gaussian(points), np.eye(100))
    columns = np.zeros((100, 3))
    for place, rows in enumerate((range(20), range(20, 40), range(40, 70))):
        columns[list(rows), place] = len(rows) ** -0.5
    for stable, expected in (
        ([0.9, 0.8, 0.1], [False, True, False]),
        ([0.8, 0.9, 0.1], [True, False, False]),
        ([0.9, 0.9, 0.9], [False, True, False]),  # of equals the first stays
        ([np.nan] * 3, [False, True, False]),
    ):
        tested = Found(3, np.eye(3), np.array([stable]))
        assert repeats(tested, columns, pool).tolist() == expected
    turned = Found(3, np.eye(3)[:, [2, 1, 0]], np.array([[0.1, 0.8, 0.9]]))
    assert repeats(turned, columns, pool).tolist() == [False, True, False]


def test_more_directions_are_worth_a_search_where_nearly_all_hold_a_lost_group() -> None:
    """Sixteen groups and twelve directions; where what was chosen settles it, or there are three groups, no more."""

    def found(number: int, stability: float) -> Found:
        return Found(number, np.eye(number), np.full((4, number), stability))

    pool, _, columns = kernels(0, [10] * 16)
    assert may_hold_more(found(12, 0.9), columns, pool, 0.7)
    assert may_hold_more(found(8, 0.5), columns, pool, 0.7)
    turned = search_numbers(columns, pool, 1.0, halves=0, number=8)
    assert not may_hold_more(Found(8, turned.turn, np.full((4, 8), 0.9)), columns, pool, 0.7)
    pool, _, columns = kernels(0, SIZES)
    assert not may_hold_more(found(12, 0.9), columns, pool, 0.7)
