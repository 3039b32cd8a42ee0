"""The contrast solver against the optimum of its dual, and a table of invariances."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize_scalar

from koda_audit import solve_contrast
from koda_audit._contrast.block import block as together
from koda_audit._contrast.direction import constrained
from koda_audit._contrast.psd import positive_semidefinite
from koda_audit._contrast.solve import FewerDirections
from koda_audit.errors import InputError


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices of 60 rows gain nothing from threads, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_factor(random, n, scale=1.0):
    """F with F F' of any rank, in one half of the cases with repeated eigenvalues."""
    rank = n if random.random() < 0.4 else int(random.integers(1, n + 1))
    values = random.choice([0.2, 0.5, 1.0, 1.0], rank) if random.random() < 0.5 else random.gamma(0.5, 1, rank) + 1e-3
    basis = np.linalg.qr(random.standard_normal((n, n)))[0][:, :rank]
    return basis * np.sqrt(scale * values)


def dual_optimum(a, b, epsilon, earlier):
    """min over lambda of lambda_max(Z'(A - lambda B)Z) + lambda epsilon; Z spans the complement of ``earlier``."""
    scale_a, scale_b = (max(np.linalg.eigvalsh(matrix)[-1], 1e-300) for matrix in (a, b))
    n, t = earlier.shape
    z = np.linalg.qr(np.c_[earlier, np.eye(n)])[0][:, t:n]
    a, b, level = z.T @ a @ z / scale_a, z.T @ b @ z / scale_b, epsilon / scale_b

    def bound(log_multiplier):
        return np.linalg.eigvalsh(a - np.exp(log_multiplier) * b)[-1] + np.exp(log_multiplier) * level

    grid = np.linspace(np.log(1e-10), np.log(1e12), 41)
    bounds = [bound(point) for point in grid]
    best = int(np.argmin(bounds))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, 40)])
    refined = minimize_scalar(bound, bounds=around, method="bounded", options={"xatol": 1e-13, "maxiter": 200})
    return scale_a * min(refined.fun, bounds[best], np.linalg.eigvalsh(a)[-1])


def random_pair(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(5, 61))
    t = int(random.integers(1, min(3, n - 2) + 1))
    scales = 10.0 ** random.integers(-12, 13, 2)
    factors = [random_factor(random, n, scale) for scale in scales]
    if random.random() < 0.15:  # commuting, so that the dual has a kink almost everywhere
        factors[1] = factors[0] * np.sqrt(random.choice([0.1, 1.0, 2.0], factors[0].shape[1]))
    eigenvalues = np.linalg.eigvalsh(factors[1] @ factors[1].T)
    low = eigenvalues[0] if eigenvalues[0] > 1e-13 * eigenvalues[-1] else 0.0
    epsilon = low + (eigenvalues[-1] - low) * 10.0 ** random.uniform(-6, 0)
    return *factors, float(epsilon), t


@pytest.mark.parametrize("batch", range(10))
def test_reaches_the_dual_optimum(batch):
    for seed in range(50 * batch, 50 * batch + 50):
        factor_a, factor_b, epsilon, t = random_pair(seed)
        a, b = factor_a @ factor_a.T, factor_b @ factor_b.T
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewerDirections)
            found = solve_contrast(a, b, epsilon, t)
        x = found.directions
        largest_a, largest_b = np.linalg.eigvalsh(a)[-1], np.linalg.eigvalsh(b)[-1]
        assert np.abs(x.T @ x - np.eye(x.shape[1])).max() <= 1e-9
        for k in range(x.shape[1]):
            optimum = dual_optimum(a, b, epsilon, x[:, :k])
            scale = max(optimum, 1e-6 * largest_a)
            value = np.sum((factor_a.T @ x[:, k]) ** 2)
            assert abs(optimum - value) <= 1e-6 * scale, seed
            assert np.sum((factor_b.T @ x[:, k]) ** 2) - epsilon <= 1e-9 * max(epsilon, 1e-12 * largest_b), seed
            assert found.target[k] == pytest.approx(value, rel=1e-9, abs=1e-14 * largest_a)
            assert found.reference[k] == pytest.approx(x[:, k] @ b @ x[:, k], rel=1e-9, abs=1e-13 * largest_b)
            assert 0 <= found.duality_gap[k] <= 1e-9 * scale
            assert found.multiplier[k] >= 0


def test_projecting_is_not_the_constraint():
    """With U = e3, the projected problem of Prop 4.2 reaches 3.664 by putting weight on e3; the optimum is .50095."""
    a, b = (
        positive_semidefinite(torch.diag(torch.tensor(entries, dtype=torch.float64)), "A or B")
        for entries in ([10, 0.001, 5], [0.3, 0.1, 0.2])
    )
    found = constrained(a, b, 0.11, torch.eye(3, dtype=torch.float64)[:, 2:])
    assert found.target == pytest.approx(0.05 * 10 + 0.95 * 0.001, abs=1e-9)
    assert found.reference == pytest.approx(0.11, abs=1e-12)
    assert abs(found.x[2].item()) <= 1e-15


def test_multiple_leading_eigenvalue():
    """The paper's rule stops at 6; the optimum mixes the two eigenvectors that meet at lambda = 4/7."""
    found = solve_contrast(np.diag([10.0, 6, 1]), np.diag([8, 1, 0.1]), 4.0)
    assert found.target[0] == pytest.approx(54 / 7, abs=1e-9)
    assert found.multiplier[0] == pytest.approx(4 / 7, abs=1e-9)
    np.testing.assert_allclose(found.directions[:, 0] ** 2, [3 / 7, 4 / 7, 0], atol=1e-9)


def gram(seed, n, rank=None, scale=1.0):
    factor = np.random.default_rng(seed).standard_normal((n, rank or n))
    return scale * factor @ factor.T / n


def test_zero_matrices():
    a, zero = gram(0, 8), np.zeros((8, 8))
    nothing = solve_contrast(zero, gram(1, 8), 0.5, 3)
    assert nothing.target.tolist() == [0, 0, 0]
    assert nothing.multiplier.tolist() == [0, 0, 0]
    assert (nothing.reference <= 0.5).all()
    for epsilon in (0.0, 1.0):
        free = solve_contrast(a, zero, epsilon, 3)
        np.testing.assert_allclose(free.target, np.linalg.eigvalsh(a)[::-1][:3], rtol=1e-12)
    assert solve_contrast(zero, zero, 0.0, 6).directions.shape == (8, 6)


def test_epsilon_zero_solves_in_the_null_space():
    a, b = gram(0, 9), np.diag([0.0] * 4 + [1.0] * 5)
    found = solve_contrast(a, b, 0.0, 3)
    np.testing.assert_allclose(found.target, np.linalg.eigvalsh(a[:4, :4])[::-1][:3], rtol=1e-10)
    assert np.abs(found.directions[4:]).max() <= 1e-12
    assert found.multiplier.tolist() == [math.inf] * 3
    assert found.duality_gap.tolist() == [0.0] * 3


def test_epsilon_at_the_smallest_eigenvalue_solves_in_its_eigenspace():
    basis = np.linalg.qr(np.random.default_rng(3).standard_normal((10, 10)))[0]
    b = (basis * ([0.3] * 3 + [0.7, 1, 1, 2, 2, 3, 4])) @ basis.T
    a = gram(4, 10)
    found = solve_contrast(a, b, np.linalg.eigvalsh(b)[0], 1)
    inner = basis[:, :3].T @ a @ basis[:, :3]
    assert found.target[0] == pytest.approx(np.linalg.eigvalsh(inner)[-1], rel=1e-7)
    assert found.reference[0] == pytest.approx(0.3, rel=1e-12)


def test_proportional_matrices():
    b = gram(5, 7)
    for share in (0.0, 0.3, 1.0):
        low, high = np.linalg.eigvalsh(b)[[0, -1]]
        epsilon = low + share * (high - low)
        assert solve_contrast(3 * b, b, epsilon).target[0] == pytest.approx(3 * epsilon, rel=1e-9)


def test_loose_constraint_gives_the_leading_eigenvectors_of_a():
    a, b = gram(6, 12), gram(7, 12)
    found = solve_contrast(a, b, np.linalg.eigvalsh(b)[-1], 10)
    np.testing.assert_allclose(found.target, np.linalg.eigvalsh(a)[::-1][:10], rtol=1e-10)
    assert found.multiplier.tolist() == [0.0] * 10


@pytest.mark.parametrize("multiplier", [0.0, 0.5, 1.0, 1e6])
def test_fixed_multiplier_gives_the_leading_eigenvectors_of_the_difference(multiplier):
    a, b = gram(8, 15, 4), gram(9, 15)
    found = solve_contrast(a, b, multiplier=multiplier, n_directions=5)
    objective = found.target - multiplier * found.reference
    expected = np.linalg.eigvalsh(a - multiplier * b)[::-1][:5]
    np.testing.assert_allclose(objective, expected, atol=1e-12 * max(1, multiplier))
    assert (found.duality_gap <= 1e-12 * max(1, multiplier)).all()
    assert found.multiplier.tolist() == [multiplier] * 5


@pytest.mark.parametrize("seed", range(40))
def test_a_reference_of_equal_eigenvalues_constrains_nothing_at_its_level(seed):
    """Their rounding must not be taken for a spectrum: epsilon is what every unit vector has."""
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((6, 6)))[0]
    a = gram(seed, 6, 4)
    found = solve_contrast(a, basis @ basis.T, 1.0 + 2 * np.finfo(float).eps)
    assert found.target[0] == pytest.approx(np.linalg.eigvalsh(a)[-1], rel=1e-10)


def test_first_direction_is_the_penalised_one_at_its_own_multiplier():
    a, b = gram(10, 20), gram(11, 20)
    found = solve_contrast(a, b, 0.2)
    penalised = solve_contrast(a, b, multiplier=found.multiplier[0])
    assert abs(found.directions[:, 0] @ penalised.directions[:, 0]) == pytest.approx(1, abs=1e-8)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(5, 25),
    log_a=st.integers(-12, 12),
    log_b=st.integers(-12, 12),
)
def test_scale_and_permutation(seed, n, log_a, log_b):
    random = np.random.default_rng(seed)
    a, b = (factor @ factor.T for factor in (random_factor(random, n), random_factor(random, n)))
    epsilon = np.linalg.eigvalsh(b) @ random.dirichlet(np.ones(n))
    base = solve_contrast(a, b, epsilon)
    scaled = solve_contrast(10.0**log_a * a, 10.0**log_b * b, 10.0**log_b * epsilon)
    order = random.permutation(n)
    permuted = solve_contrast(a[np.ix_(order, order)], b[np.ix_(order, order)], epsilon)
    assert scaled.target[0] == pytest.approx(10.0**log_a * base.target[0], rel=1e-8)
    assert permuted.target[0] == pytest.approx(base.target[0], rel=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 20))
def test_optimum_rises_and_is_concave_in_epsilon(seed, n):
    random = np.random.default_rng(seed)
    a, b = (factor @ factor.T for factor in (random_factor(random, n), random_factor(random, n)))
    low, high = np.linalg.eigvalsh(b)[[0, -1]]
    values = [solve_contrast(a, b, level).target[0] for level in np.linspace(max(low, 0), high * 1.1, 9)]
    steps = np.diff(values)
    tolerance = 1e-7 * max(values)
    assert (steps >= -tolerance).all()
    assert (np.diff(steps) <= tolerance).all()


def test_all_directions_that_leave_three_dimensions():
    found = solve_contrast(gram(12, 12, 5), gram(13, 12, 6), 0.4, 10)
    assert found.directions.shape == (12, 10)
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(10), atol=1e-12)


def test_anything_array_like_gives_the_same():
    a, b = gram(14, 6), gram(15, 6)
    first = solve_contrast(a, b, 0.3).target
    for kind in (torch.from_numpy, np.ndarray.tolist, np.asfortranarray):
        assert solve_contrast(kind(a), kind(b), 0.3).target == pytest.approx(first, rel=1e-12)


def test_infeasible_epsilon_states_the_smallest_feasible_one():
    b = np.diag([0.25, 1.0, 2.0, 3.0, 4.0])
    with pytest.raises(InputError, match=r"epsilon 0\.2 is below the smallest feasible value 0\.25,"):
        solve_contrast(np.eye(5), b, 0.2)


def test_later_infeasible_direction_ends_the_list():
    b = np.diag([0.1, 0.1, 1.0, 2.0, 3.0])
    with pytest.warns(FewerDirections, match=r"2 of 3 directions: the next one needs epsilon of at least (0.99|1)"):
        found = solve_contrast(np.diag([5.0, 4, 3, 2, 1]), b, 0.1, 3)
    assert found.directions.shape == (5, 2)


GOOD = gram(16, 6)
SKEW = GOOD + np.triu(np.ones((6, 6)), 1)
HOLE = np.where(np.eye(6) == 1, np.nan, GOOD)
FAULTS = [
    ((GOOD - np.eye(6) * 2, GOOD, 0.1), {}, "A is not positive semidefinite: its eigenvalues run from -"),
    ((GOOD, -GOOD, 0.1), {}, "B is not positive semidefinite"),
    ((SKEW, GOOD, 0.1), {}, "A is not symmetric: entries and their mirror images differ by up to 1"),
    ((GOOD, HOLE, 0.1), {}, r"B is not finite: entry \(0, 0\) is nan"),
    ((GOOD[:4], GOOD, 0.1), {}, r"A has shape \(4, 6\): expected a square matrix"),
    ((GOOD, GOOD[0], 0.1), {}, r"B has shape \(6,\)"),
    ((GOOD, GOOD[:5, :5], 0.1), {}, "A has 6 rows and B has 5"),
    ((GOOD * 1j, GOOD, 0.1), {}, "A has dtype complex128"),
    (([[1.0], [1.0, 2.0]], GOOD, 0.1), {}, "A is not a matrix"),
    ((GOOD, GOOD), {}, "give either epsilon .* or multiplier"),
    ((GOOD, GOOD, 0.1), {"multiplier": 1.0}, "give either epsilon .* or multiplier"),
    ((GOOD, GOOD, -0.1), {}, "epsilon is -0.1: expected"),
    ((GOOD, GOOD, math.nan), {}, "epsilon is nan"),
    ((GOOD, GOOD), {"multiplier": math.inf}, "multiplier is inf"),
    ((GOOD, GOOD, 0.1, 0), {}, "n_directions is 0: expected a whole number"),
    ((GOOD, GOOD, 0.1, 1.5), {}, "n_directions is 1.5: expected a whole number"),
    ((GOOD, GOOD, 0.1, 5), {}, "at most n - 2 = 4"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), FAULTS)
def test_faults_are_named(arguments, options, message):
    with pytest.raises(InputError, match=message):
        solve_contrast(*arguments, **options)


def test_inputs_are_not_changed():
    a, b = gram(17, 6), gram(18, 6)
    copies = a.copy(), b.copy()
    solve_contrast(a, b, 0.3, 2)
    np.testing.assert_array_equal(a, copies[0])
    np.testing.assert_array_equal(b, copies[1])


# all directions at once


def linear_optimum(a, b, epsilon, count):
    """The block's value for diagonal matrices: X'X = I leaves the diagonal of XX' any weights of 0 to 1 that add up to
    ``count`` (Schur and Horn)."""
    found = linprog(-a, A_ub=b[None], b_ub=[count * epsilon], A_eq=np.ones((1, len(a))), b_eq=[count], bounds=(0, 1))
    assert found.success
    return -found.fun


def block_dual(a, b, epsilon, count):
    """min over lambda of the sum of the ``count`` largest eigenvalues of A - lambda B, plus lambda count epsilon."""
    n = len(a)

    def bound(multiplier):
        return np.linalg.eigvalsh(a - multiplier * b)[n - count :].sum() + multiplier * count * epsilon

    grid = np.r_[0.0, np.geomspace(1e-6, 1e6, 121)]
    best = int(np.argmin([bound(point) for point in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    refined = minimize_scalar(bound, bounds=around, method="bounded", options={"xatol": 1e-13, "maxiter": 300})
    return min(refined.fun, bound(grid[best]))


BY_HAND = [  # diagonals of A and B, epsilon, T; the weight of each axis in the span
    ([10, 6, 1], [8, 1, 0.1], 4.0, 1, [3 / 7, 4 / 7, 0]),
    ([4, 3, 2, 1], [3, 0.5, 0.3, 0.1], 0.4, 2, [0, 1, 1, 0]),  # exactly met by eigenvectors
    ([4, 3, 2, 1], [3, 0.5, 0.3, 0.1], 0.5, 2, [0.2 / 2.7, 1, 2.5 / 2.7, 0]),  # axes 1 and 3 meet at lambda = 2 / 2.7
    ([4, 3, 2, 1], [3, 0.5, 0.3, 0.1], 2.0, 2, [1, 1, 0, 0]),  # nothing asked
    ([4, 4, 1, 1], [1, 1, 0, 0], 0.5, 2, [0.5, 0.5, 0.5, 0.5]),  # all four meet: any half of each pair
    ([2, 2, 2, 0], [0.5, 0.1, 0.2, 0], 0.15, 2, [0, 1, 1, 0]),  # one value of A, so the least of B
]


@pytest.mark.parametrize(("a", "b", "epsilon", "count", "weights"), BY_HAND)
def test_blocks_of_diagonal_matrices_by_hand(a, b, epsilon, count, weights):
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)
    found = solve_contrast(np.diag(a), np.diag(b), epsilon, count, block=True)
    spread = (found.directions**2).sum(axis=1)
    assert found.target.sum() == pytest.approx(np.dot(a, weights), abs=1e-8)
    assert found.reference.sum() == pytest.approx(np.dot(b, weights), abs=1e-8)
    if len(set(zip(a, b, strict=True))) == len(a):  # else any mixture of equal axes is as good
        np.testing.assert_allclose(spread, weights, atol=1e-8)
    assert found.duality_gap.max() <= 1e-8


@pytest.mark.parametrize("whole", [False, True])
def test_blocks_of_commuting_matrices_are_linear_programs(whole):
    """Every optimum lies where eigenvalues cross. Of whole numbers several do at once: only the gap is sure."""
    random = np.random.default_rng(0)
    for _ in range(120):
        n = int(random.integers(4, 9))
        count = int(random.integers(1, n - 1))
        a, b = (random.integers(0, 4, (2, n)).astype(float) if whole else random.random((2, n))) + [[1e-3], [1e-3]]
        floor = np.sort(b)[:count].mean()
        epsilon = floor + (b.max() - floor) * random.uniform(0.01, 1)
        basis = np.linalg.qr(random.standard_normal((n, n)))[0]
        found = solve_contrast((basis * a) @ basis.T, (basis * b) @ basis.T, epsilon, count, block=True)
        short = linear_optimum(a, b, epsilon, count) - found.target.sum()
        assert found.reference.mean() <= epsilon * (1 + 1e-9)
        assert -1e-8 <= short <= count * found.duality_gap[0] + 1e-8
        if not whole:
            assert short <= 1e-8
            assert count * found.duality_gap[0] <= 1e-7


def test_the_gap_of_a_block_says_how_far_it_is_from_the_optimum():
    """Directions beyond the block are not mixed: axes 2 and 3 hold 5, and with a part of axis 1 5.148."""
    parts = [
        positive_semidefinite(torch.diag(torch.tensor(entries, dtype=torch.float64)), "A or B")
        for entries in ([4.0, 3, 2, 1], [3.0, 0.5, 0.3, 0.1])
    ]
    found = together(*parts, epsilon=0.5, count=2, most=3)
    assert [direction.target for direction in found] == pytest.approx([3, 2, 4])
    best = linear_optimum(np.array([4.0, 3, 2, 1]), np.array([3.0, 0.5, 0.3, 0.1]), 0.5, 2)
    assert [direction.gap for direction in found] == pytest.approx([(best - 5) / 2] * 3, abs=1e-8)


def block_pair(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(5, 31))
    count = int(random.integers(1, min(6, n - 2) + 1))
    a, b = (factor @ factor.T for factor in (random_factor(random, n), random_factor(random, n)))
    values = np.linalg.eigvalsh(b)
    floor = max(values[:count].mean(), 0.0)
    return a, b, float(floor + (values[-1] - floor) * 10.0 ** random.uniform(-3, 0)), count


@pytest.mark.parametrize("batch", range(4))
def test_blocks_reach_the_dual_optimum_and_no_sequence_of_directions_does_better(batch):
    for seed in range(25 * batch, 25 * batch + 25):
        a, b, epsilon, count = block_pair(seed)
        found = solve_contrast(a, b, epsilon, count, block=True)
        x, scale = found.directions, np.linalg.eigvalsh(a)[-1]
        np.testing.assert_allclose(x.T @ x, np.eye(count), atol=1e-9)
        np.testing.assert_allclose(found.target, np.einsum("it,ij,jt->t", x, a, x), atol=1e-12 * scale)
        np.testing.assert_allclose(found.reference, np.einsum("it,ij,jt->t", x, b, x), atol=1e-12)
        assert found.reference.mean() <= epsilon * (1 + 1e-9), seed
        value, optimum = found.target.sum(), block_dual(a, b, epsilon, count)
        assert value <= optimum + 1e-7 * scale
        assert optimum - value <= count * found.duality_gap[0] + 1e-7 * scale, seed
        assert 0 <= found.duality_gap[0] <= 1e-6 * scale, seed
        assert len(set(found.multiplier)) == len(set(found.duality_gap)) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewerDirections)
            sequence = solve_contrast(a, b, epsilon, count)
        if sequence.directions.shape[1] == count:
            assert value >= sequence.target.sum() - 1e-6 * scale, seed


@pytest.mark.parametrize("seed", range(20))
def test_a_block_of_one_is_the_first_direction(seed):
    a, b, epsilon, _ = block_pair(seed)
    epsilon = max(epsilon, 1.05 * float(np.linalg.eigvalsh(b)[0]))
    one, first = (solve_contrast(a, b, epsilon, 1, block=block) for block in (True, False))
    scale = np.linalg.eigvalsh(a)[-1]
    assert one.target[0] == pytest.approx(first.target[0], abs=1e-7 * scale)
    assert one.reference[0] <= epsilon * (1 + 1e-9)
    assert one.multiplier[0] == pytest.approx(first.multiplier[0], rel=1e-4, abs=1e-6)


def rotated(a, b, basis):
    return basis @ a @ basis.T, basis @ b @ basis.T


BLOCK_CHANGES = {
    "rotation": lambda a, b, e, q: (*rotated(a, b, q), e, 1.0, q),
    "order": lambda a, b, e, q: (*rotated(a, b, np.eye(len(a))[::-1]), e, 1.0, np.eye(len(a))[::-1]),
    "scale of A": lambda a, b, e, q: (1e6 * a, b, e, 1e6, np.eye(len(a))),
    "scale of B and epsilon": lambda a, b, e, q: (a, 1e-6 * b, 1e-6 * e, 1.0, np.eye(len(a))),
}


@pytest.mark.parametrize("change", BLOCK_CHANGES)
def test_what_changes_a_block_and_what_does_not(change):
    basis = np.linalg.qr(np.random.default_rng(30).standard_normal((20, 20)))[0]
    a, b, epsilon = gram(31, 20), gram(32, 20), 0.3
    base = solve_contrast(a, b, epsilon, 4, block=True)
    a, b, epsilon, factor, turn = BLOCK_CHANGES[change](a, b, epsilon, basis)
    found = solve_contrast(a, b, epsilon, 4, block=True)
    assert base.multiplier[0] > 0
    np.testing.assert_allclose(found.target, factor * base.target, rtol=1e-7)
    before = turn @ base.directions
    np.testing.assert_allclose(found.directions @ found.directions.T, before @ before.T, atol=1e-6)


def test_an_epsilon_that_no_block_meets_states_the_smallest_that_one_does():
    b = np.diag([0.25, 1.0, 2.0, 3.0, 4.0])
    with pytest.raises(InputError, match=r"epsilon 0\.62 is below the smallest feasible value 0\.625"):
        solve_contrast(np.eye(5), b, 0.62, 2, block=True)
    at = solve_contrast(np.diag([1.0, 2, 3, 4, 5]), b, 0.625, 2, block=True)
    assert at.target.sum() == pytest.approx(3, abs=1e-6)
    assert at.reference.sum() == pytest.approx(1.25, rel=1e-9)


def test_with_a_multiplier_a_block_is_the_leading_eigenvectors():
    a, b = gram(33, 12), gram(34, 12)
    plain, block = (solve_contrast(a, b, multiplier=1.0, n_directions=3, block=each) for each in (False, True))
    np.testing.assert_array_equal(plain.directions, block.directions)


@pytest.mark.parametrize(
    ("a", "b", "epsilon", "value"),
    [
        ([4.0, 4, 1, 1], [1.0, 1, 0, 0], 0.75, 6.5),  # both pairs cross at one multiplier
        ([1.0] * 6, [1.0] * 6, 1.0, 2.0),  # a model against itself: any span is the best one
        ([4.0, 4, 4, 1, 1, 1], [1.0, 1, 1, 0, 0, 0], 2 / 3, 9.0),
    ],
)
def test_several_pairs_that_cross_at_once_are_all_mixed(
    a: list[float], b: list[float], epsilon: float, value: float
) -> None:
    count = 3 if value == 9 else 2
    found = solve_contrast(np.diag(a), np.diag(b), epsilon, n_directions=count, block=True)
    assert found.target.sum() == pytest.approx(value, rel=1e-8)
    assert found.reference.mean() <= epsilon * (1 + 1e-9)
    assert found.duality_gap.sum() <= 1e-8
