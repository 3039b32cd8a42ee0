"""Which part of a gap can be closed without changing a ranking: oracles in numpy, and tables of a real CLIP."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from koda_audit._gap import translate
from koda_audit._gap.translate import gap_vector, nearest_rows, orthogonal_gap, translated
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
GALLERY, QUERIES = RANDOM.normal(size=(8, 20)) + 1, RANDOM.normal(size=(50, 20)) - 1
ROTATION = np.linalg.qr(RANDOM.normal(size=(20, 20)))[0]


def units(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def nearest(gallery, queries, metric="euclidean"):
    """(m,) from all (m, c) distances or similarities."""
    if metric == "euclidean":
        return cdist(queries, gallery, "sqeuclidean").argmin(axis=1)
    return (queries @ (units(gallery) if metric == "cosine" else gallery).T).argmax(axis=1)


@pytest.fixture(scope="module")
def clip():
    """(images, texts) of length 1."""
    folder = os.environ.get("KODA_AUDIT_FIXTURES")
    if not folder:
        pytest.skip("KODA_AUDIT_FIXTURES names no folder with features_clip.npy")
    images, texts = np.load(Path(folder) / "features_clip.npy").astype(np.float64)
    return units(images), units(texts)


@pytest.mark.parametrize(
    ("c", "gap", "orthogonal", "residual", "euclidean", "cosine"),
    [
        (10, 0.869, 0.856, 0.154, 0.682, 0.800),
        (50, 0.856, 0.773, 0.367, 0.474, 0.630),
        (100, 0.854, 0.725, 0.450, 0.418, 0.554),
        (200, 0.846, 0.644, 0.549, 0.354, 0.454),
        (500, 0.851, 0.281, 0.804, 0.312, 0.434),
    ],
)
def test_what_a_translation_does_to_the_ranking_of_clip(clip, c, gap, orthogonal, residual, euclidean, cosine):
    images, texts = clip
    found = orthogonal_gap(texts[:c], images)
    assert found.rank == c - 1
    assert round(found.gap.norm().item(), 3) == gap
    assert round(found.shift.norm().item(), 3) == orthogonal
    assert round(found.residual, 3) == residual
    for metric, kept in (("euclidean", euclidean), ("cosine", cosine)):
        clean = nearest(texts[:c], images, metric)
        moved = translated(texts[:c], found.shift).numpy()
        np.testing.assert_array_equal(nearest(moved, images, metric), clean)
        whole = translated(texts[:c], found.gap).numpy()
        assert (nearest(whole, images, metric) == clean).mean() == pytest.approx(kept, abs=1e-12)


@pytest.mark.parametrize(
    ("rank", "ratio", "kept", "recall"),
    [
        (10, 0.933, 0.534, 0.412),
        (50, 0.875, 0.678, 0.492),
        (100, 0.831, 0.780, 0.530),
        (200, 0.735, 0.882, 0.558),
        (400, 0.599, 0.974, 0.554),
    ],
)
def test_fewer_components_close_more_of_the_gap_of_clip_and_change_more(clip, rank, ratio, kept, recall):
    images, texts = clip
    found = orthogonal_gap(texts, images, rank)
    assert found.rank == rank
    assert round((found.shift.norm() / found.gap.norm()).item(), 3) == ratio
    answers = nearest(translated(texts, found.shift).numpy(), images)
    assert (answers == nearest(texts, images)).mean() == pytest.approx(kept, abs=1e-12)
    assert (answers == np.arange(500)).mean() == pytest.approx(recall, abs=1e-12)


@pytest.mark.parametrize("rank", [None, 0, 1, 3, 7, 0.5, 0.9, 1.0])
def test_components_are_those_of_scikit_learn(rank):
    pca = PCA(svd_solver="full").fit(GALLERY)
    held = np.cumsum(pca.explained_variance_ratio_)
    kept = 7 if rank is None else int((held < rank - 1e-12).sum()) + 1 if isinstance(rank, float) else rank
    g = QUERIES.mean(axis=0) - GALLERY.mean(axis=0)
    inside = pca.components_[:kept].T @ (pca.components_[:kept] @ g)
    found = orthogonal_gap(GALLERY, QUERIES, rank)
    assert found.rank == kept
    np.testing.assert_allclose(found.gap, g, atol=1e-14)
    np.testing.assert_allclose(found.shift, g - inside, atol=1e-13)
    assert found.residual == pytest.approx(np.linalg.norm(inside), abs=1e-13)
    assert found.residual**2 + found.shift.norm().item() ** 2 == pytest.approx(g @ g, rel=1e-13)


ORDER = RANDOM.permutation(8)
INVARIANCES = {
    "rotation": (GALLERY @ ROTATION, QUERIES @ ROTATION, lambda shift: shift @ ROTATION),
    "permutation": (GALLERY[ORDER], QUERIES[::-1], lambda shift: shift),
    "duplication": (np.tile(GALLERY, (3, 1)), np.tile(QUERIES, (2, 1)), lambda shift: shift),
    "common translation": (GALLERY + 1e3, QUERIES + 1e3, lambda shift: shift),
    "common scale": (1e-6 * GALLERY, 1e-6 * QUERIES, lambda shift: 1e-6 * shift),
}


@pytest.mark.parametrize("name", INVARIANCES)
def test_invariances(name):
    gallery, queries, expected = INVARIANCES[name]
    found, usual = orthogonal_gap(gallery, queries), orthogonal_gap(GALLERY, QUERIES)
    shift = expected(usual.shift.numpy())
    np.testing.assert_allclose(found.shift, shift, atol=1e-11 * np.linalg.norm(shift))
    assert found.rank == usual.rank


@given(
    seed=st.integers(0, 10**6),
    alpha=st.floats(-3, 3),
    c=st.integers(2, 19),
    metric=st.sampled_from(["euclidean", "cosine"]),
)
@settings(max_examples=30, deadline=None)
def test_no_alpha_changes_a_nearest_row_at_full_rank(seed, alpha, c, metric):
    random = np.random.default_rng(seed)
    gallery, queries = units(random.normal(size=(c, 20))), units(random.normal(size=(30, 20)))
    moved = translated(gallery, orthogonal_gap(gallery, queries).shift, alpha).numpy()
    np.testing.assert_array_equal(nearest(moved, queries, metric), nearest(gallery, queries, metric))


def test_cosines_need_rows_of_length_1():
    shift = orthogonal_gap(GALLERY, QUERIES).shift
    clean, moved = (
        GALLERY * np.arange(1, 9)[:, None],
        translated(GALLERY * np.arange(1, 9)[:, None], shift, 3.0).numpy(),
    )
    assert (nearest(clean, QUERIES, "cosine") != nearest(moved, QUERIES, "cosine")).any()


@pytest.mark.parametrize("c", [21, 60])
def test_a_gallery_of_full_rank_cannot_move(c):
    gallery = RANDOM.normal(size=(c, 20))
    found = orthogonal_gap(gallery, QUERIES)
    assert found.rank == 20
    assert not found.movable
    assert not found.shift.any()
    assert found.residual == found.gap.norm().item() > 0
    assert torch.equal(translated(gallery, found.shift, 5.0), torch.from_numpy(gallery))


def test_without_a_gap_nothing_moves_and_nothing_is_left():
    found = orthogonal_gap(GALLERY, GALLERY)
    assert not found.movable
    assert found.residual == 0


@pytest.mark.parametrize("c", [1, 5])
def test_equal_rows_span_nothing_so_the_whole_gap_is_orthogonal(c):
    found = orthogonal_gap(np.tile(GALLERY[:1], (c, 1)), QUERIES)
    assert found.rank == 0
    assert torch.equal(found.shift, found.gap)
    assert orthogonal_gap(np.tile(GALLERY[:1], (c, 1)), QUERIES, 0.9).rank == 0


@pytest.mark.parametrize("scores", [1, 100, 2**19])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_nearest_rows_are_those_of_all_distances(metric, scores, monkeypatch):
    monkeypatch.setattr(translate, "SCORES", scores)
    shift = RANDOM.normal(size=20)
    alphas = [-1.0, 0.0, 0.3, 2.0]
    given_ = (torch.from_numpy(values) for values in (GALLERY, units(QUERIES), shift))
    found = nearest_rows(*given_, alphas, metric)
    expected = [nearest(GALLERY + alpha * shift, units(QUERIES), metric) for alpha in alphas]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_of_equal_rows_the_first_is_nearest(metric):
    """Products of equal rows differ by rounding where the matrix product handles its edges apart."""
    rows = torch.from_numpy(units(RANDOM.normal(size=(1003, 512))))
    rows[[500, 1001, 1002]] = rows[3].clone()
    queries = rows[3] + torch.from_numpy(0.02 * RANDOM.normal(size=(200, 512)))
    queries /= torch.linalg.vector_norm(queries, dim=1, keepdim=True)
    found = nearest_rows(rows, queries, torch.zeros(512, dtype=torch.float64), [0.0, 1.0], metric)
    np.testing.assert_array_equal(found, np.full((2, 200), 3))


def test_pinned_value():
    found = orthogonal_gap([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]], [[5.0, 4.0, 0.0]])
    assert (found.shift.tolist(), found.remaining(0.5)) == ([0.0, 4.0, 0.0], pytest.approx(13**0.5, rel=1e-15))


def test_bad_input_in_one_sentence():
    with pytest.raises(
        InputError, match="gallery rows are 20 wide and query rows 19: both must be of one shared space"
    ):
        gap_vector(GALLERY, QUERIES[:, 1:])
    with pytest.raises(InputError, match=r"queries is not finite: entry \(0, 1\) is nan"):
        orthogonal_gap([[1.0, 2.0]], [[1.0, float("nan")]])
    for rank in (-1, 1.5, 0.0, -0.5, float("nan")):
        with pytest.raises(InputError, match=f"rank is {rank}: expected None, a whole number from 0 on"):
            orthogonal_gap(GALLERY, QUERIES, rank)
    with pytest.raises(InputError, match=r"the shift has shape \(3,\): expected \(20,\), as wide as the rows"):
        translated(GALLERY, torch.zeros(3))
    rows, shift = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64)), torch.tensor([0.0, -1.0]).double()
    with pytest.raises(
        InputError, match="gallery row 1 has length 0 once it has moved by alpha 2, so it has no cosine"
    ):
        nearest_rows(rows, rows, shift, [0.0, 2.0], "cosine")
