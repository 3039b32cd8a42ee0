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
from scipy.optimize import minimize_scalar

from koda_audit import solve_contrast
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
