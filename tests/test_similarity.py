"""Each measure: what changes nothing, plain numpy and SciPy beside it, pinned values."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist, squareform
from scipy.stats import ortho_group, spearmanr
from sklearn.cross_decomposition import CCA
from sklearn.neighbors import NearestNeighbors

from koda_audit._similarity.measure import DEFAULT, MEASURES, similarity
from koda_audit._similarity.neighbours import Neighbourhoods

RANDOM = np.random.default_rng(0)
LATENT = RANDOM.normal(size=(60, 4))
X = LATENT @ RANDOM.normal(size=(4, 5)) + 0.5 * RANDOM.normal(size=(60, 5)) + 1
Y = LATENT @ RANDOM.normal(size=(4, 7)) + 0.5 * RANDOM.normal(size=(60, 7)) - 2
WIDE_X, WIDE_Y = RANDOM.normal(size=(2, 20, 50))
WIDE_Y += WIDE_X
LINEAR = ("cka_linear", "cka_linear_debiased", "procrustes")

TRANSFORMS = {
    "orthogonal": lambda v: v @ ortho_group.rvs(v.shape[1], random_state=3),
    "isotropic scaling": lambda v: 7.5 * v,
    "translation": lambda v: v + np.linspace(-3, 8, v.shape[1]),
    "invertible linear": lambda v: v @ (np.random.default_rng(5).normal(size=(v.shape[1],) * 2) + np.eye(v.shape[1])),
    "permutation of columns": lambda v: v[:, ::-1],
}


def value(name, x, y, **options):
    return similarity(x, y, name, **options)["value"].item()


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("change", TRANSFORMS)
def test_what_a_measure_claims_changes_nothing_and_the_rest_does(name, change):
    before = value(name, X, Y)
    changed = [value(name, TRANSFORMS[change](X), Y), value(name, X, TRANSFORMS[change](Y))]
    if change in MEASURES[name].invariances:
        assert changed == pytest.approx([before, before], abs=1e-8)
    else:
        assert abs(changed[0] - before) > 1e-3


@pytest.mark.parametrize("name", MEASURES)
def test_no_measure_is_invariant_to_all(name):
    assert set(MEASURES[name].invariances) < set(TRANSFORMS)
    assert MEASURES[name].name == name


@pytest.mark.parametrize("name", DEFAULT)
@pytest.mark.parametrize("change", ["orthogonal", "isotropic scaling", "translation"])
def test_the_same_with_more_columns_than_samples(name, change):
    if change in MEASURES[name].invariances:
        changed = value(name, TRANSFORMS[change](WIDE_X), WIDE_Y)
        assert changed == pytest.approx(value(name, WIDE_X, WIDE_Y), abs=1e-8)


@pytest.mark.parametrize("name", MEASURES)
def test_a_representation_is_most_like_itself(name):
    assert value(name, X, X) == pytest.approx(MEASURES[name].high, abs=1e-12)
    assert value(name, X, Y) < 0.99


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.integers(2, 30), n=st.integers(14, 24))
def test_order_of_samples_and_sides_and_rotations(seed, d, n):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d))
    y = x[:, :1] + random.normal(size=(n, 3))
    order, turn = random.permutation(n), np.linalg.qr(random.normal(size=(d, d)))[0]
    found = similarity(x, y)["value"]
    assert similarity(x[order], y[order])["value"].to_dict() == pytest.approx(found.to_dict(), abs=1e-9)
    assert similarity(y, x)["value"].to_dict() == pytest.approx(found.to_dict(), abs=1e-9)
    turned = similarity(x @ turn, y)["value"].drop("rsa").to_dict()
    assert turned == pytest.approx(found.drop("rsa").to_dict(), abs=1e-9)
    twice = similarity(np.tile(x, (2, 1)), np.tile(y, (2, 1)), ["cka_linear", "procrustes"])["value"]
    assert twice.to_dict() == pytest.approx(found[["cka_linear", "procrustes"]].to_dict(), abs=1e-9)
    for name, measured in found.items():
        assert MEASURES[name].low <= measured <= MEASURES[name].high


def centring(n):
    return np.eye(n) - 1 / n


def hsic_1(k, n):
    """Song et al. 2012, eq 5, as it stands."""
    k, other = (matrix - np.diag(np.diag(matrix)) for matrix in k)
    one = np.ones(n)
    last = 2 / (n - 2) * (one @ k @ other @ one)
    return (np.trace(k @ other) + (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2)) - last) / (n * (n - 3))


@pytest.mark.parametrize(("x", "y"), [(X, Y), (WIDE_X, WIDE_Y), (WIDE_X, WIDE_Y[:, :3]), (X[:4], Y[:4])])
def test_linear_cka_is_that_of_gram_matrices(x, y):
    n = len(x)
    k, other = x @ x.T, y @ y.T
    kc, oc = (centring(n) @ matrix @ centring(n) for matrix in (k, other))
    expected = np.trace(kc @ oc) / np.sqrt(np.trace(kc @ kc) * np.trace(oc @ oc))
    assert value("cka_linear", x, y) == pytest.approx(expected, abs=1e-12)
    expected = hsic_1((k, other), n) / np.sqrt(hsic_1((k, k), n) * hsic_1((other, other), n))
    assert value("cka_linear_debiased", x, y) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("x", "y"), [(X, Y), (WIDE_X, WIDE_Y)])
def test_procrustes_is_that_of_scipy(x, y):
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(v - v.mean(axis=0), ((0, 0), (0, width - v.shape[1]))) for v in (x, y))
    found = value("procrustes", x, y)
    assert found == pytest.approx(orthogonal_procrustes(x, y)[1] / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-12)
    assert 1 - found**2 == pytest.approx(scipy_procrustes(x, y)[2], abs=1e-12)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    turn = orthogonal_procrustes(x, y)[0]
    assert np.linalg.norm(x @ turn - y) ** 2 == pytest.approx(2 - 2 * found, abs=1e-12)


@pytest.mark.parametrize(("x", "y"), [(X, Y), (WIDE_X, WIDE_Y), (np.repeat(X, 2, axis=0), np.tile(Y, (2, 1)))])
def test_gaussian_cka(x, y):
    grams = []
    for v in (x, y):
        distances = pdist(v)
        sigma = np.median(distances[distances > 1e-7])
        grams.append(centring(len(v)) @ np.exp(-squareform(distances**2) / 2 / sigma**2) @ centring(len(v)))
    expected = (grams[0] * grams[1]).sum() / np.linalg.norm(grams[0]) / np.linalg.norm(grams[1])
    assert value("cka_rbf", x, y) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("x", "y"), [(X, Y), (WIDE_X, WIDE_Y)])
def test_rsa(x, y):
    expected = spearmanr(pdist(x, "correlation"), pdist(y, "correlation")).statistic
    assert value("rsa", x, y) == pytest.approx(expected, abs=1e-12)


def test_rsa_of_rows_that_occur_twice_has_ties():
    x, y = np.repeat(X, 2, axis=0), np.tile(Y, (2, 1))
    expected = spearmanr(*(pdist(v, "correlation").round(10) for v in (x, y))).statistic
    assert value("rsa", x, y) == pytest.approx(expected, abs=1e-12)


def neighbour_sets(v, k):
    return NearestNeighbors(n_neighbors=k).fit(v).kneighbors(return_distance=False)


@pytest.mark.parametrize("k", [1, 4, 10, 59])
def test_mutual_neighbours_and_their_alignment(k):
    near = [neighbour_sets(v, k) for v in (X, Y)]
    shared = np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])
    assert value("mutual_knn", X, Y, k=k) == pytest.approx(shared, abs=1e-15)
    masks = [np.zeros((60, 60)) for _ in near]
    for mask, found in zip(masks, near, strict=True):
        np.put_along_axis(mask, found, 1, axis=1)
    kernels = [v @ v.T - (v @ v.T).mean(axis=1, keepdims=True) for v in (X, Y)]

    def align(p, q):
        return (masks[p] * masks[q] * kernels[p] * kernels[q]).sum()

    assert value("cknna", X, Y, k=k) == pytest.approx(align(0, 1) / np.sqrt(align(0, 0) * align(1, 1)), abs=1e-12)


def test_neighbours_of_directions_are_those_of_the_largest_cosines():
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (X, Y))
    near = [np.argsort(np.where(np.eye(60, dtype=bool), -2, v @ v.T), axis=1)[:, -10:] for v in (x, y)]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert value("mutual_knn", x, y) == pytest.approx(shared, abs=1e-15)


def test_equal_rows_agree_by_chance_alone():
    random = np.random.default_rng(1)
    for classes in (2, 10, 50):
        found = [value("mutual_knn", *random.integers(0, classes, (2, 200, 1))) for _ in range(20)]
        assert found == pytest.approx([10 / 199] * 20, abs=0.03)
        assert np.mean(found) == pytest.approx(10 / 199, abs=0.005)


def test_leaving_neighbours_out_finds_the_next_ones():
    random = np.random.default_rng(0)
    points = torch.from_numpy(random.normal(size=(120, 3)))
    near = Neighbourhoods.of(points, 2, seed=0)
    lost = near.nearest[0]  # all that are known of row 0: a new search
    for rest in (np.setdiff1d(np.arange(120), lost), random.permutation(120)[:100], random.permutation(120)):
        rows = torch.from_numpy(rest)
        again = Neighbourhoods.of(points[rows], 2, seed=5)
        assert torch.equal(near.take(rows).nearest[:, :2], again.nearest[:, :2])
    assert near.nearest.shape[1] == 26


def test_canonical_correlations():
    x, y = (v - v.mean(axis=0) for v in (X, Y))
    scores = CCA(n_components=5, scale=False, max_iter=10_000, tol=1e-13).fit(x, y).transform(x, y)
    nipals = [np.corrcoef(*pair)[0, 1] for pair in zip(*(part.T for part in scores), strict=True)]
    (left, _), (right, _) = (np.linalg.qr(v) for v in (x, y))
    u, rho, _ = np.linalg.svd(left.T @ right, full_matrices=False)
    assert nipals == pytest.approx(rho, abs=1e-6)
    assert rho == pytest.approx(np.cos(subspace_angles(x, y))[::-1], abs=1e-12)
    weights = np.abs((left @ u).T @ x).sum(axis=1)
    assert value("pwcca", X, Y) == pytest.approx(weights @ rho / weights.sum(), abs=1e-10)
    parts = []
    for v in (x, y):
        u, s, _ = np.linalg.svd(v, full_matrices=False)
        parts.append(u[:, : np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.99) + 1])
    expected = np.linalg.svd(parts[0].T @ parts[1], compute_uv=False).mean()
    assert value("svcca", X, Y) == pytest.approx(expected, abs=1e-10)


def test_columns_of_no_variance_count_as_none_for_canonical_correlations():
    constant, double = np.ones((60, 1)), Y[:, :1] + Y[:, 1:2]
    assert value("pwcca", X, np.hstack([Y, constant, double])) == pytest.approx(value("pwcca", X, Y), abs=1e-9)


@pytest.mark.parametrize("n", [32, 256, 1024, 4096])
def test_independent_representations(n):
    """White noise of width 64 and 32: the debiased form is flat, the biased one falls as its docstring says."""
    found = []
    for seed in range(12):
        random = np.random.default_rng([n, seed])
        x, y = random.normal(size=(n, 64)), random.normal(size=(n, 32))
        found.append(similarity(x, y, ["cka_linear", "cka_linear_debiased"])["value"].to_numpy())
    biased, debiased = np.array(found).T
    assert biased.mean() == pytest.approx(np.sqrt(64 * 32 / (n + 64) / (n + 32)), rel=0.03)
    assert abs(debiased.mean()) < 3 * debiased.std(ddof=1) / np.sqrt(12)
    assert abs(debiased).max() < 4 / n
    assert debiased.min() < 0  # as it comes, not cut at 0


@pytest.mark.parametrize("factor", [1e-250, 1e250])
def test_no_size_of_the_numbers_over_or_underflows(factor):
    found = similarity(X * factor, Y, tuple(MEASURES))["value"].to_dict()
    assert found == pytest.approx(similarity(X, Y, tuple(MEASURES))["value"].to_dict(), abs=1e-9)


PINNED = {
    "cka_linear": 0.719661,
    "cka_linear_debiased": 0.704883,
    "procrustes": 0.802584,
    "cka_rbf": 0.675587,
    "rsa": 0.644096,
    "mutual_knn": 0.473333,
    "cknna": 0.489836,
    "svcca": 0.707838,
    "pwcca": 0.873482,
}


def test_pinned():
    found = similarity(X, Y, tuple(MEASURES))["value"].to_dict()
    assert found == pytest.approx(PINNED, abs=2e-6)


def test_real_clip_features():
    folder = os.environ.get("KODA_AUDIT_FIXTURES")
    if not folder:
        pytest.skip("KODA_AUDIT_FIXTURES names no folder with features_clip.npy")
    features = np.load(Path(folder) / "features_clip.npy").astype(np.float64)
    images, texts = features / np.linalg.norm(features, axis=2, keepdims=True)
    found = similarity(images, texts, permutations=19)
    assert found["value"]["cka_linear"] == pytest.approx(0.6362, abs=5e-5)
    assert found["null_mean"]["cka_linear"] > 0.08
    assert abs(found["null_mean"]["cka_linear_debiased"]) < 0.002
    assert (found["p_value"] == 0.05).all()
