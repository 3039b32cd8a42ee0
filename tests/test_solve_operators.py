"""The subspace solver against the dense one, on every form of the operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from koda_audit._contrast.operators import DensePair, FeaturePair, GramPair, product
from koda_audit._contrast.solve import FewerDirections, solve_contrast, solve_operators
from koda_audit.errors import InputError

N = 240


def features(seed: int, width: int, decay: float = 0.9) -> torch.Tensor:
    """(N, width) of unit Frobenius norm with a falling spectrum."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(N, width)) * decay ** np.arange(width)
    return torch.from_numpy(values / np.linalg.norm(values))


def pairs(a: torch.Tensor, b: torch.Tensor) -> dict[str, tuple[object, torch.Tensor]]:
    """Form -> (operators, what turns their coordinates into samples)."""
    whole = torch.cat([a, b], dim=1)
    samples = torch.eye(len(a), dtype=torch.float64)
    return {
        "dense": (DensePair(a @ a.T, b @ b.T), samples),
        "features": (FeaturePair(a, b), samples),
        "gram": (GramPair(whole.T @ whole, a.shape[1]), whole),
    }


@pytest.mark.parametrize("form", ["dense", "features", "gram"])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-4, 2 / N, 0.05, 0.9])
@pytest.mark.parametrize("shared", [0, 12, 25])
def test_all_forms_agree_with_the_dense_solver(form: str, epsilon: float, shared: int) -> None:
    a, b = features(0, 30), features(1, 30)
    b[:, :shared] = a[:, :shared]  # the Gram matrix is singular by as much
    dense = solve_contrast(a @ a.T, b @ b.T, epsilon=epsilon, n_directions=4)
    pair, to_samples = pairs(a, b)[form]
    found = solve_operators(pair, epsilon=epsilon, n_directions=4, tolerance=1e-6)  # type: ignore[arg-type]
    x = to_samples.numpy() @ found.directions
    np.testing.assert_allclose(x.T @ x, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(found.target, dense.target, rtol=1e-5, atol=1e-9)
    assert (found.reference <= epsilon * (1 + 1e-9)).all()
    assert (found.duality_gap <= 1e-5 * found.target + 1e-12).all()
    # the optimum is unique here where the constraint binds, so the directions agree one by one
    assert (np.abs((x * dense.directions).sum(axis=0)) > 1 - 1e-6).all()


@pytest.mark.parametrize("form", ["dense", "features", "gram"])
def test_a_given_multiplier_is_spec(form: str) -> None:
    a, b = features(0, 30), features(1, 30)
    dense = solve_contrast(a @ a.T, b @ b.T, multiplier=1.0, n_directions=5)
    found = solve_operators(pairs(a, b)[form][0], multiplier=1.0, n_directions=5, tolerance=1e-7)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.target, dense.target, rtol=1e-6)
    np.testing.assert_allclose(found.reference, dense.reference, rtol=1e-5)


def test_float32_storage_is_solved_in_float64() -> None:
    a, b = (part.float() for part in (features(0, 30), features(1, 30)))
    whole = torch.cat([a, b], dim=1)
    gram = whole.T @ whole
    found = solve_operators(GramPair(gram, 30), epsilon=1e-4, n_directions=3)
    stored = gram.double().numpy()
    c = found.directions
    np.testing.assert_allclose(c.T @ stored @ c, np.eye(3), atol=1e-9)
    kept = stored[30:] @ c
    assert ((kept * kept).sum(axis=0) <= 1e-4 * (1 + 1e-6)).all()


def test_many_directions_outgrow_the_basis_and_come_back() -> None:
    """More columns than the basis may hold: it is cut back, and converges all the same."""
    a, b = features(0, 200, decay=0.985), features(1, 200, decay=0.985)
    dense = solve_contrast(a @ a.T, b @ b.T, epsilon=2 / N, n_directions=12)
    found = solve_operators(FeaturePair(a, b), epsilon=2 / N, n_directions=12, tolerance=1e-5)
    np.testing.assert_allclose(found.target, dense.target, rtol=1e-6)


def test_what_cannot_be_met_is_said_as_by_the_dense_solver() -> None:
    a = torch.diag(torch.arange(1.0, 9.0, dtype=torch.float64))
    b = torch.diag(torch.arange(8.0, 0.0, -1.0, dtype=torch.float64))
    with pytest.raises(InputError, match=r"below the smallest feasible value (1\.0|0\.99999)"):
        solve_operators(DensePair(a, b), epsilon=0.5)
    with pytest.warns(FewerDirections, match="1 of 3 directions"):
        found = solve_operators(DensePair(a, b), epsilon=1.0 + 1e-9, n_directions=3)
    assert found.directions.shape == (8, 1)
    with pytest.raises(InputError, match="at most n - 2"):
        solve_operators(DensePair(a, b), epsilon=0.5, n_directions=7)


def test_equal_operators_have_no_contrast() -> None:
    a = features(0, 30)
    found = solve_operators(FeaturePair(a, a), epsilon=2 / N, n_directions=3)
    np.testing.assert_allclose(found.target, found.reference, rtol=1e-9)


def test_products_by_parts() -> None:
    stored = torch.arange(12.0).reshape(4, 3)
    block = torch.ones((3, 2), dtype=torch.float64)
    assert torch.equal(product(stored, block), stored.double() @ block)


def test_the_papers_rule_stops_short_where_the_leading_eigenvalue_is_multiple() -> None:
    """The best feasible leading eigenvector reaches 6 (or a little more, by rounding); the optimum is 54/7."""
    a, b = (torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([10.0, 6.0, 1.0], [8.0, 1.0, 0.1]))
    found = solve_operators(DensePair(a, b), epsilon=4.0, mixed=False)
    assert 6 - 1e-9 <= found.target[0] < 7.5
    assert found.duality_gap[0] == pytest.approx(54 / 7 - found.target[0])
    a, b = (part @ part.T for part in (features(0, 30), features(1, 30)))
    for epsilon in (1e-5, 2 / N, 0.02):
        rule, best = (solve_operators(DensePair(a, b), epsilon=epsilon, tolerance=1e-7, mixed=m) for m in (False, True))
        np.testing.assert_allclose(rule.target, best.target, rtol=1e-5)
        assert (rule.reference <= epsilon).all()
        x, multiplier = rule.directions[:, 0], rule.multiplier[0]
        leading = np.linalg.eigh(a.numpy() - multiplier * b.numpy())[1][:, -1]
        assert abs(leading @ x) > 1 - 1e-6


@pytest.mark.parametrize("epsilon", [0.0, 1e-18, 1e-14])
def test_epsilon_at_the_floor_of_more_coordinates_than_are_solved_whole(
    epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koda_audit._contrast.subspace.WHOLE", 0)
    a, b = features(0, 30), features(1, 30)
    found = solve_operators(FeaturePair(a, b), epsilon=epsilon, n_directions=2)
    dense = solve_contrast(a @ a.T, b @ b.T, epsilon=epsilon, n_directions=2)
    np.testing.assert_allclose(found.target, dense.target, rtol=1e-6)
    monkeypatch.setattr("koda_audit._contrast.solve.RESCUE", 100)
    if epsilon < 1e-13:
        with pytest.raises(InputError, match="with 240 coordinates: give at least 1e-13"):
            solve_operators(FeaturePair(a, b), epsilon=epsilon)


WHERE = {"whole": None, "in the subspace": 0}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("form", ["dense", "features", "gram"])
@pytest.mark.parametrize("epsilon", [1e-4, 2 / N, 0.02])
def test_blocks_of_all_forms_agree_with_the_dense_solver(form: str, epsilon: float, where: str) -> None:
    a, b = features(0, 30), features(1, 30)
    dense = solve_contrast(a @ a.T, b @ b.T, epsilon=epsilon, n_directions=5, block=True)
    pair, to_samples = pairs(a, b)[form]
    found = solve_operators(
        pair,  # type: ignore[arg-type]
        epsilon=epsilon,
        n_directions=5,
        tolerance=1e-6,
        whole_up_to=WHERE[where],
        block=5,
    )
    x = to_samples.numpy() @ found.directions
    np.testing.assert_allclose(x.T @ x, np.eye(5), atol=1e-9)
    assert found.target.sum() == pytest.approx(dense.target.sum(), rel=1e-6)
    assert found.reference.mean() <= epsilon * (1 + 1e-9)
    assert found.duality_gap.max() <= 1e-5 * found.target.mean()
    span = dense.directions
    np.testing.assert_allclose(x @ x.T, span @ span.T, atol=1e-4)


@pytest.mark.parametrize("where", WHERE)
def test_more_directions_than_the_block_are_nested_and_at_its_multiplier(where: str) -> None:
    """epsilon is of the first three; the others, and each smaller number of them, are leading eigenvectors there."""
    a, b = features(0, 30), features(1, 30)
    three, found = (
        solve_operators(
            FeaturePair(a, b),
            epsilon=1e-3,
            n_directions=number,
            tolerance=1e-7,
            whole_up_to=WHERE[where],
            block=3,
        )
        for number in (3, 7)
    )
    assert found.multiplier[0] == pytest.approx(three.multiplier[0], rel=1e-5)
    assert found.reference[:3].mean() == pytest.approx(1e-3, rel=1e-6)
    x = found.directions
    values, vectors = np.linalg.eigh((a @ a.T).numpy() - found.multiplier[0] * (b @ b.T).numpy())
    np.testing.assert_allclose(found.target - found.multiplier * found.reference, values[::-1][:7], rtol=1e-5)
    for number in range(1, 8):
        leading = vectors[:, ::-1][:, :number]
        np.testing.assert_allclose(x[:, :number] @ x[:, :number].T, leading @ leading.T, atol=1e-4)
