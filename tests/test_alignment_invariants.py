"""What each alignment promises exactly, against plain numpy on two cones of paired unit rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from koda_audit import Embeddings
from koda_audit._gap.translate import orthogonal_gap
from koda_audit.alignment import bipartite, linear, methods, translate
from koda_audit.alignment.fit import fit_alignment
from koda_audit.errors import KodaAuditError

N, D = 60, 12
ROW_WISE = [m.name for m in vars(methods).values() if isinstance(m, methods.Method) and m.fitted_on != "gallery"]
UNPAIRED = [m.name for m in vars(methods).values() if isinstance(m, methods.Method) and m.fitted_on == "rows"]
PARAMS = {"kuea": {"teacher": np.random.default_rng(98).normal(size=(N, D)), "epochs": 2}, "cca": {"k": 5}}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cones(seed=0, n=N, d=D):
    """Paired unit rows around two centres, with a part in common and a part of their own, unlike in all directions."""
    random = np.random.default_rng(seed)
    scales = np.linspace(0.2, 1.0, d)
    shared = random.normal(size=(n, d)) * scales
    centres = np.random.default_rng(99).normal(size=(2, d))
    return tuple(unit(1.5 * centre + shared + 0.5 * random.normal(size=(n, d)) * scales) for centre in centres)


X, Y = cones()


def aligned(name, x=X, y=Y, **params):
    """Both sides after an alignment fitted on these very rows."""
    embeddings = Embeddings(x, y)
    out = fit_alignment(name, embeddings, transductive=True, **{**PARAMS.get(name, {}), **params}).apply(embeddings)
    return np.asarray(out.image), np.asarray(out.text)


def tensors(*arrays):
    return [torch.from_numpy(np.array(array, dtype=np.float64)) for array in arrays]


def gap(x, y):
    return np.linalg.norm(x.mean(0) - y.mean(0))


def dist_gap(x, y):
    return np.sqrt(((x - x.mean(0) - y + y.mean(0)) ** 2).sum(1).mean())


def distances(x, y):
    return np.sqrt(np.maximum(((x[:, None] - y[None]) ** 2).sum(2), 0))


def linear_cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return (np.linalg.norm(x.T @ y) ** 2) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def energy_centred(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return 2 * distances(x, y).mean() - distances(x, x).mean() - distances(y, y).mean()


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet_cov(x, y):
    a, b = np.cov(x.T, bias=True), np.cov(y.T, bias=True)
    return np.trace(a) + np.trace(b) - 2 * np.trace(root(root(a) @ b @ root(a)))


def top1(queries, gallery, scoring="dot"):
    products = queries @ gallery.T
    if scoring == "euclidean":
        return distances(queries, gallery).argmin(1)
    return (products / np.linalg.norm(gallery, axis=1) if scoring == "cosine" else products).argmax(1)


def test_identity_changes_nothing_at_all():
    x, y = aligned("identity", 3 * X, 2 * Y)
    np.testing.assert_array_equal(x, 3 * X)
    np.testing.assert_array_equal(y, 2 * Y)


@pytest.mark.parametrize("measure", [dist_gap, linear_cka, energy_centred, frechet_cov])
def test_center_closes_the_centroid_gap_and_nothing_else(measure):
    x, y = aligned("center")
    assert gap(X, Y) > 0.5
    assert gap(x, y) == pytest.approx(0, abs=1e-15)
    assert measure(x, y) == pytest.approx(measure(X, Y), abs=1e-12)


def test_the_gap_that_centring_leaves_on_other_rows():
    """E G_C^2 = tr Cov(x - y) (1/n_fit + 1/n_test) on disjoint draws."""
    found, expected = [], []
    for seed in range(200):
        x, y = cones(seed, n=100)
        operator = fit_alignment("center", Embeddings(x[:60], y[:60]))
        out = operator.apply(Embeddings(x[60:], y[60:]))
        found.append(gap(np.asarray(out.image), np.asarray(out.text)) ** 2)
        expected.append(dist_gap(x, y) ** 2 * (1 / 60 + 1 / 40))
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=3 * np.std(found) / np.sqrt(200))


def test_center_renorm_is_idempotent_up_to_the_second_mean():
    x, y = aligned("center_renorm")
    assert 0 < gap(x, y) < 0.2 * gap(X, Y)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-15)
    again, _ = aligned("center_renorm", x, y)
    np.testing.assert_allclose(again, unit(x - x.mean(0)), atol=1e-14)
    x, y = (unit(np.vstack([side, -side])) for side in (x, y))  # without a second mean
    np.testing.assert_allclose(aligned("center_renorm", x, y), (x, y), atol=1e-14)


def test_center_renorm_changes_the_distribution_gap_because_it_changes_lengths():
    (x, y), (c, d) = aligned("center_renorm"), aligned("center")
    assert abs(dist_gap(x, y) - dist_gap(c, d)) > 0.1
    np.testing.assert_allclose(x, unit(c), atol=1e-14)


@pytest.mark.parametrize("kind", ["raw", "unit"])
def test_mg_shift_closes_the_signed_gap_step_by_step(kind):
    np.testing.assert_allclose(aligned("mg_shift", lam=0, unit=kind), (X, Y), atol=1e-15)
    g = X.mean(0) - Y.mean(0)
    signed = []
    for lam in np.linspace(-0.5, 1, 31):
        x, y = aligned("mg_shift", lam=lam, unit=kind)
        signed.append((x.mean(0) - y.mean(0)) @ g)
    assert (np.diff(signed) < 0).all()


def test_mg_shift_is_smallest_near_the_middle_and_its_two_units_agree():
    lams = np.linspace(0, 1, 41)
    gaps = [gap(*aligned("mg_shift", lam=lam)) for lam in lams]
    assert lams[np.argmin(gaps)] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(
        aligned("mg_shift", lam=0.3), aligned("mg_shift", lam=0.3 * gap(X, Y), unit="unit"), atol=1e-14
    )


def test_translate_gallery_keeps_dot_products_rankings_for_any_v():
    v = np.random.default_rng(5).normal(size=D)
    x, y = aligned("translate_gallery", v=v)
    np.testing.assert_allclose(y - Y, np.tile(v, (N, 1)), atol=1e-14)
    np.testing.assert_array_equal(np.argsort(x @ y.T, 1), np.argsort(X @ Y.T, 1))
    assert (top1(x, y, "euclidean") != top1(X, Y, "euclidean")).any()


def few(c=6):
    """A gallery of c classes in D dimensions, and its queries."""
    return Embeddings(X, class_text=Y[:c])


@pytest.mark.parametrize("scoring", ["euclidean", "cosine"])
def test_translate_gallery_keeps_other_rankings_where_v_is_orthogonal_to_the_gallery(scoring):
    inside = np.linalg.svd(Y[:6] - Y[:6].mean(0))[2][:5]
    v = np.random.default_rng(3).normal(size=D)
    v -= inside.T @ (inside @ v)
    operator = fit_alignment("translate_gallery", few(), v=v)
    out = operator.apply(few())
    np.testing.assert_array_equal(top1(X, out.class_text, scoring), top1(X, Y[:6], scoring))
    assert np.linalg.norm(out.class_text, axis=1).std() < 1e-15
    assert operator.info["figures"][f"top1_unchanged_{scoring}"] == 1
    skew = fit_alignment("translate_gallery", few(), v=v + 3 * inside[0])
    assert skew.info["figures"][f"top1_unchanged_{scoring}"] < 1
    moved = skew.apply(few()).class_text
    same = (top1(X, moved, scoring) == top1(X, Y[:6], scoring)).mean()
    assert skew.info["figures"][f"top1_unchanged_{scoring}"] == pytest.approx(same)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0, 2.5, 1000.0])
@pytest.mark.parametrize("scoring", ["euclidean", "cosine", "dot"])
def test_orthogonal_translate_keeps_the_nearest_row_at_full_rank(alpha, scoring):
    operator = fit_alignment("orthogonal_translate", few(), alpha=alpha)
    out = operator.apply(few())
    np.testing.assert_array_equal(top1(out.image, out.class_text, scoring), top1(X, Y[:6], scoring))
    assert operator.info["figures"]["guaranteed"] is True


def test_orthogonal_translate_reports_the_gap_that_remains():
    figures = fit_alignment("orthogonal_translate", few()).info["figures"]
    g = X.mean(0) - Y[:6].mean(0)
    inside = np.linalg.svd(Y[:6] - Y[:6].mean(0))[2][:5]
    assert figures["rank"] == 5
    assert figures["gap"] == pytest.approx(np.linalg.norm(g), abs=1e-14)
    assert figures["gap_remaining"] == pytest.approx(np.linalg.norm(inside @ g), abs=1e-14)
    assert figures["gap_orthogonal"] == pytest.approx(np.linalg.norm(g - inside.T @ (inside @ g)), abs=1e-14)
    assert figures["gap_orthogonal"] < figures["gap"]
    out = fit_alignment("orthogonal_translate", few()).apply(few())
    assert gap(out.image, out.class_text) == pytest.approx(figures["gap_remaining"], abs=1e-14)


def test_orthogonal_translate_moves_nothing_where_the_gallery_spans_all():
    operator = fit_alignment("orthogonal_translate", Embeddings(X, Y))
    figures = operator.info["figures"]
    assert figures["rank"] == D
    assert figures["gap_orthogonal"] == 0
    assert figures["gap_remaining"] == figures["gap"] == pytest.approx(gap(X, Y), abs=1e-14)
    np.testing.assert_allclose(operator.apply(Embeddings(X, Y)).text, Y, atol=1e-15)


def test_fewer_directions_close_more_of_the_gap_and_promise_nothing():
    figures = [fit_alignment("orthogonal_translate", few(), rank=k).info["figures"] for k in (1, 3, 5)]
    assert [f["rank"] for f in figures] == [1, 3, 5]
    assert not any(f["guaranteed"] for f in figures)
    assert figures[0]["gap_remaining"] < figures[1]["gap_remaining"] < figures[2]["gap_remaining"]
    _, s, _ = np.linalg.svd(Y[:6] - Y[:6].mean(0))
    share = (s[:2] ** 2).sum() / (s**2).sum()
    for energy, expected in ((share - 1e-6, 2), (share + 1e-6, 3)):
        assert fit_alignment("orthogonal_translate", few(), rank=float(energy)).info["figures"]["rank"] == expected


def test_a_broken_guarantee_is_found_at_run_time(monkeypatch):
    whole = orthogonal_gap(Y[:6], X, rank=0)
    monkeypatch.setattr(translate, "orthogonal_gap", lambda gallery, queries, rank: replace(whole, shift=3 * whole.gap))
    with pytest.raises(KodaAuditError, match=r"changed the nearest row of \d+\.\d\d% of the queries"):
        fit_alignment("orthogonal_translate", few())


def test_rows_that_are_tied_may_change_places():
    gallery = np.vstack([Y[:4], Y[:4]])  # each row twice
    figures = fit_alignment("orthogonal_translate", Embeddings(X, class_text=gallery)).info["figures"]
    assert figures["top1_unchanged_euclidean"] == figures["top1_unchanged_cosine"] == 1


@pytest.mark.parametrize("alpha", [1.0, 1000.0])
def test_rows_that_differ_by_rounding_after_a_long_shift_are_no_violation(alpha):
    """A shift of 1,000 costs the scores six digits: rows that were 1e-9 apart before may not be told apart after."""
    near = Y[:6].copy()
    near[3] = unit(near[None, 2] + 1e-9 * np.random.default_rng(0).normal(size=(1, D)))[0]
    figures = fit_alignment("orthogonal_translate", Embeddings(X, class_text=near), alpha=alpha).info["figures"]
    assert figures["top1_unchanged_euclidean"] == figures["top1_unchanged_cosine"] == 1


@pytest.mark.parametrize("length", [3.0, 1e5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_figures_are_those_of_the_rows_that_are_returned(length, dtype):
    sides = Embeddings(X.astype(dtype), class_text=Y[:6].astype(dtype))
    operator = fit_alignment("translate_gallery", sides, v=length * np.random.default_rng(3).normal(size=D))
    moved = operator.apply(sides).class_text.astype(np.float64)
    same = (top1(X, moved, "euclidean") == top1(X, Y[:6], "euclidean")).mean()
    assert same < 1
    assert operator.info["figures"]["top1_unchanged_euclidean"] == pytest.approx(same)


def test_a_guarantee_that_the_digits_of_the_rows_cannot_keep_is_no_guarantee():
    sides = Embeddings(X.astype(np.float32), class_text=Y[:6].astype(np.float32))
    assert fit_alignment("orthogonal_translate", sides).info["figures"]["top1_unchanged_cosine"] == 1
    with pytest.raises(KodaAuditError, match="give them in float64 or move less"):
        fit_alignment("orthogonal_translate", sides, alpha=1e6)


def test_images_can_be_the_gallery():
    embeddings = Embeddings(X[:6], Y[:9], text_image=[0, 1, 2, 3, 4, 5, 0, 0, 1])
    operator = fit_alignment("orthogonal_translate", embeddings, gallery="image")
    out = operator.apply(embeddings)
    np.testing.assert_array_equal(top1(out.text, out.image, "euclidean"), top1(Y[:9], X[:6], "euclidean"))
    assert operator.info["frame"] == "text"
    assert gap(np.asarray(out.image), Y[:9]) == pytest.approx(operator.info["figures"]["gap_remaining"], abs=1e-14)


def test_robustness_is_largest_where_the_gap_is_closed():
    """Share of queries that keep their nearest row under noise on the gallery; the same noise for each alpha."""
    random = np.random.default_rng(1)
    inside = random.normal(size=(30, 16)) * 0.5
    pick = random.integers(0, 30, 300)
    texts = unit(np.hstack([inside, np.tile([1.5, 0.0], (30, 1))]))
    images = unit(np.hstack([inside[pick] + 0.3 * random.normal(size=(300, 16)), np.tile([0.0, 1.5], (300, 1))]))
    noise = random.normal(size=(40, *texts.shape)) * 0.12
    embeddings = Embeddings(images, class_text=texts)
    alphas = np.arange(0, 2.01, 0.25)
    robustness = []
    for alpha in alphas:
        moved = fit_alignment("orthogonal_translate", embeddings, alpha=float(alpha)).apply(embeddings).class_text
        clean = top1(images, moved, "euclidean")
        robustness.append(np.mean([(top1(images, moved + e, "euclidean") == clean).mean() for e in noise]))
    assert abs(alphas[np.argmax(robustness)] - 1) <= 0.25
    assert max(robustness) > robustness[0] + 0.01
    assert max(robustness) > robustness[-1] + 0.01


def test_project_out_leaves_nothing_along_the_gap():
    u = (X.mean(0) - Y.mean(0)) / gap(X, Y)
    x, y = aligned("project_out")
    np.testing.assert_allclose(np.hstack([x @ u, y @ u]), 0, atol=1e-15)
    assert gap(x, y) == pytest.approx(gap(*aligned("mg_shift", lam=0.5)), abs=0.05)
    x, _ = aligned("project_out", g=5 * np.eye(D)[2])
    np.testing.assert_allclose(x, unit(X * (np.arange(D) != 2)), atol=1e-15)


def test_realign_gives_the_texts_the_total_variance_and_the_mean_of_the_images():
    x, y = aligned("realign")
    np.testing.assert_allclose(x, X, atol=1e-15)
    operator = fit_alignment("realign", Embeddings(X, Y))
    scale = operator.info["figures"]["scale"]
    before = scale * (Y - Y.mean(0)) + X.mean(0)
    assert before.var(0).sum() == pytest.approx(X.var(0).sum(), rel=1e-13)
    np.testing.assert_allclose(before.mean(0), X.mean(0), atol=1e-14)
    moved = unit(before)
    np.testing.assert_allclose(y, unit(moved - moved.mean(0) + X.mean(0)), atol=1e-14)


@pytest.mark.parametrize("name", UNPAIRED)
def test_unpaired_alignments_do_not_know_the_pairing(name):
    order = np.random.default_rng(4).permutation(N)
    (x, y), (a, b) = aligned(name), aligned(name, X, Y[order])
    np.testing.assert_allclose(a, x, atol=1e-11)
    np.testing.assert_allclose(b, y[order], atol=1e-11)


@pytest.mark.parametrize("name", ["procrustes", "ridge", "cca"])
def test_paired_alignments_do(name):
    order = np.random.default_rng(4).permutation(N)
    assert np.abs(aligned(name, X, Y[order])[1] - aligned(name)[1][order]).max() > 0.01


@pytest.mark.parametrize("frame", ["shared", "image"])
def test_procrustes_turns_the_texts_and_no_more(frame):
    x, y = aligned("procrustes", frame=frame, renormalise=False)
    np.testing.assert_allclose(distances(y, y), distances(Y, Y), atol=1e-7)
    r = fit_alignment("procrustes", Embeddings(X, Y)).maps["text"][0].matrix.numpy()
    np.testing.assert_allclose(r.T @ r, np.eye(D), atol=1e-13)
    assert ((x - y) ** 2).sum() <= ((X - X.mean(0) - Y + Y.mean(0)) ** 2).sum()
    assert gap(x, y) == pytest.approx(0, abs=1e-14)


def test_procrustes_recovers_a_rotation():
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(D, D)))[0]
    x, y = aligned("procrustes", X, X @ turn, frame="image", renormalise=False)
    np.testing.assert_allclose(y, X, atol=1e-13)
    np.testing.assert_allclose(x, X, atol=1e-15)


def test_ridge_runs_from_least_squares_to_the_identity():
    x, y = X - X.mean(0), Y - Y.mean(0)
    least = y @ np.linalg.lstsq(y, x, rcond=None)[0]
    for prior in ("I", 0):
        np.testing.assert_allclose(aligned("ridge", lam=1e-10, prior=prior, renormalise=False)[1], least, atol=1e-6)
        np.testing.assert_allclose(aligned("ridge", lam=0, prior=prior, renormalise=False)[1], least, atol=1e-11)
    np.testing.assert_allclose(aligned("ridge", lam=1e14, renormalise=False)[1], y, atol=1e-12)
    np.testing.assert_allclose(aligned("ridge", lam=1e14, prior=0, renormalise=False)[1], 0 * y, atol=1e-12)
    for lam, prior, start in ((0.7, "I", np.eye(D)), (0.7, 0, np.zeros((D, D)))):
        w = np.linalg.solve(y.T @ y + lam * np.eye(D), y.T @ x + lam * start)
        np.testing.assert_allclose(aligned("ridge", lam=lam, prior=prior, renormalise=False)[1], y @ w, atol=1e-13)


@pytest.mark.parametrize("prior", ["I", 0])
def test_ridge_recovers_a_linear_map(prior):
    w = np.random.default_rng(8).normal(size=(D, D))
    fitted = linear.ridge(*tensors(X @ w, X), lam=0.0, prior=prior, renormalise=False)
    np.testing.assert_allclose(fitted.second[0].matrix.numpy(), w, atol=1e-9)


def test_ridge_without_penalty_takes_the_least_map_where_pairs_are_few():
    x, y = X[:8], Y[:8]
    fitted = linear.ridge(*tensors(x, y), lam=0.0, prior=0)
    expected = np.linalg.pinv(y - y.mean(0)) @ (x - x.mean(0))
    np.testing.assert_allclose(fitted.second[0].matrix.numpy(), expected, atol=1e-9)


def test_canonical_correlations_are_those_of_the_bases_and_descend():
    """Without a penalty they are the cosines of the principal angles between the two column spaces."""
    found = linear.cca(*tensors(X, Y), k=D, reg=0.0).figures["correlations"]
    bases = (np.linalg.qr(side - side.mean(0))[0] for side in (X, Y))
    expected = np.linalg.svd(next(bases).T @ next(bases))[1]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (np.diff(found) <= 0).all()
    assert 0 <= found[-1] <= found[0] <= 1
    same = linear.cca(*tensors(X, X), k=D, reg=0.0).figures["correlations"]
    np.testing.assert_allclose(same, 1, atol=1e-12)


def test_cca_without_penalty_does_not_see_invertible_maps():
    w = np.random.default_rng(6).normal(size=(D, D))
    x, y = tensors(X, Y)
    plain, mapped = (linear.cca(x, side, k=4, reg=0.0, renormalise=False) for side in (y, y @ torch.from_numpy(w)))
    np.testing.assert_allclose(plain.figures["correlations"], mapped.figures["correlations"], atol=1e-10)
    a, b = plain.second[0](y).numpy(), mapped.second[0](y @ torch.from_numpy(w)).numpy()
    np.testing.assert_allclose(np.abs((a * b).sum(0)), np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0), rtol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_cca_weighs_directions_by_their_correlation(scale):
    fitted = linear.cca(*tensors(X, Y), k=4, reg=0.0, scale=scale, renormalise=False)
    out = fitted.first[0](torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(
        np.cov(out.T, bias=True), np.diag(np.array(fitted.figures["correlations"]) ** (2 * scale)), atol=1e-11
    )


def test_cca_takes_sides_of_unlike_width():
    x, y = aligned("cca", X, Y[:, :7], k=3)
    assert x.shape == y.shape == (N, 3)


def test_zca_whitens_each_side():
    for side in aligned("zca", eps=1e-9, renormalise=False):
        np.testing.assert_allclose(np.cov(side.T, bias=True), np.eye(D), atol=1e-5)
        np.testing.assert_allclose(side.mean(0), 0, atol=1e-11)
    matrix = fit_alignment("zca", Embeddings(X, Y)).maps["image"][0].matrix.numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(np.linalg.inv(matrix @ matrix), np.cov(X.T, bias=True) + 0.01 * np.eye(D), atol=1e-12)


@pytest.mark.parametrize("frame", ["image", "shared"])
def test_coral_gives_the_texts_the_covariance_of_the_images(frame):
    x, y = aligned("coral", eps=1e-9, frame=frame, renormalise=False)
    np.testing.assert_allclose(np.cov(y.T, bias=True), np.cov(X.T, bias=True), atol=1e-7)
    assert gap(x, y) == pytest.approx(0, abs=1e-13)


def test_spectral_coordinates_are_eigenvectors_of_the_random_walk():
    x, y = aligned("spectral", k=5)
    weights = (1 + X @ Y.T) / 2
    walk = weights / weights.sum(1, keepdims=True)
    back = weights.T / weights.sum(0)[:, None]
    np.testing.assert_allclose(walk.sum(1), 1, atol=1e-14)
    s = fit_alignment("spectral", Embeddings(X, Y), k=5).info["figures"]["singular_values"]
    np.testing.assert_allclose(walk @ y, x * s, atol=1e-12)
    np.testing.assert_allclose(back @ x, y * s, atol=1e-12)
    assert 1 > s[0] > s[-1] > 0
    scaled = np.diag(weights.sum(1) ** -0.5) @ weights @ np.diag(weights.sum(0) ** -0.5)
    np.testing.assert_allclose(s, np.linalg.svd(scaled)[1][1:6], atol=1e-12)
    # the constant vector is left out, so the masses are balanced and the gap is closed
    np.testing.assert_allclose(weights.sum(1) @ x, 0, atol=1e-10)


@pytest.mark.parametrize("columns", [20, 33])
def test_transport_plans_have_the_masses_they_should(columns):
    cost = torch.from_numpy(distances(Y[:20], X[:columns]) ** 2)
    plan = bipartite.transport_plan(cost, 0.05).numpy()
    np.testing.assert_allclose(plan.sum(1), 1, atol=1e-13)
    np.testing.assert_allclose(plan.sum(0), 20 / columns, atol=1e-4)
    # optimal: T_ij = a_i b_j exp(-cost / epsilon), so its logarithm plus the cost has rank two
    potentials = np.log(plan) + cost.numpy() / (0.05 * cost.numpy().mean())
    np.testing.assert_allclose(potentials - potentials[:1] - potentials[:, :1] + potentials[0, 0], 0, atol=1e-9)


def test_a_sharp_transport_plan_is_the_best_assignment():
    cost = distances(Y[:10], X[:10]) ** 2
    plan = bipartite.transport_plan(torch.from_numpy(cost), 0.03).numpy()
    np.testing.assert_array_equal(plan.argmax(1), linear_sum_assignment(cost)[1])


def test_ot_moves_each_text_to_a_mean_of_images_and_leaves_the_images():
    x, y = aligned("ot", epsilon=0.05)
    np.testing.assert_allclose(x, X, atol=1e-15)
    plan = bipartite.transport_plan(torch.from_numpy(distances(Y, X) ** 2), 0.05).numpy()
    np.testing.assert_allclose(y, plan @ X, atol=1e-9)
    assert gap(x, y) < 1e-5  # equal masses on both sides


@pytest.mark.parametrize("name", ROW_WISE)
def test_what_happens_to_a_row_depends_on_no_other_row(name):
    x, y = cones(seed=7)
    operator = fit_alignment(name, Embeddings(X, Y), **PARAMS.get(name, {}))
    whole, part = operator.apply(Embeddings(x, y)), operator.apply(Embeddings(x[20:30], y[20:30]))
    np.testing.assert_allclose(part.image, np.asarray(whole.image)[20:30], atol=1e-13)
    np.testing.assert_allclose(part.text, np.asarray(whole.text)[20:30], atol=1e-13)


@pytest.mark.parametrize("name", ROW_WISE[1:])
def test_lengths_of_the_input_do_not_matter(name):
    lengths = np.random.default_rng(0).uniform(0.5, 20, size=(2, N, 1))
    for found, expected in zip(aligned(name, lengths[0] * X, lengths[1] * Y), aligned(name), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-10)
