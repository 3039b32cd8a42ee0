"""Projected features of cosine and polynomial kernels: the scale, the average, the stated variance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import kernel_matrix, polynomial_matrix

from koda_audit._features.projection import ProjectedFeatures
from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
N = 40
CONE = {"image": 2 + RANDOM.standard_normal((N, 7)), "text": 1 + 3 * RANDOM.standard_normal((N, 4))}
VECTORS = {name: torch.from_numpy(values) for name, values in CONE.items()}
WIDTHS = {"image": 7, "text": 4}
FORMS = {"cosine": {"degree": 1, "offset": 0.0}, "square": {"degree": 2, "offset": 0.5}, "cosine cubed": {"degree": 3}}


def some(modality):
    return {name: VECTORS[name] for name in MODALITIES[modality]}, {name: WIDTHS[name] for name in MODALITIES[modality]}


def draw(count=300, seed=0, widths=WIDTHS, **form):
    return ProjectedFeatures.draw(widths, count, seed, **form)


def product(map, vectors=VECTORS):
    rows = map(vectors)
    return (rows @ rows.T).double().numpy()


def exact(vectors=VECTORS, degree=1, offset=0.0):
    return polynomial_matrix(vectors, degree, offset).numpy() * N


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", FORMS)
def test_average_over_seeds_is_the_kernel_and_the_variance_within_its_bound(name, modality):
    """The mean over 400 maps is off by no more than five standard errors anywhere; the bound is the docstring's."""
    vectors, widths = some(modality)
    form = FORMS[name]
    drawn = np.stack([product(draw(100, seed, widths, normalised=False, **form), vectors) for seed in range(400)])
    kernel = exact(vectors, **form)
    degree, offset = form["degree"], form.get("offset", 0.0)
    factors = [exact({part: values}, 1, offset) for part, values in vectors.items()]
    bound = (np.prod([(1 + 2 * c**2) ** degree for c in factors], axis=0) - kernel**2) / 100
    assert np.abs((drawn.mean(0) - kernel) / np.sqrt(bound / 400)).max() < 5
    assert drawn.var(0).mean() < bound.mean()
    assert drawn.var(0).mean() > 0.1 * bound.mean()


def test_scale_is_divided_out_once():
    """RP-KrossFuse's code divides each factor by sqrt(l), so that the kernel comes out l-fold too small."""
    map = draw(4000, normalised=False)
    assert np.diag(product(map)).mean() == pytest.approx(1, abs=0.05)
    rows = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in CONE.values()]
    signs = [map.projections[name][0].numpy() for name in CONE]
    twice = np.prod([y @ p / np.sqrt(4000) for y, p in zip(rows, signs, strict=True)], axis=0)
    np.testing.assert_allclose(map(VECTORS).numpy(), twice * np.sqrt(4000), rtol=1e-10, atol=1e-13)
    assert (twice @ twice.T).diagonal().mean() < 1 / 3000


def test_error_at_3000_columns_on_vectors_in_a_cone():
    """512 columns, cosines about .5; with rows of length 1 the error shrinks where samples are close."""
    values = {name: torch.from_numpy(1 + RANDOM.standard_normal((100, 512))) for name in ("image", "text")}
    kernel, pairs = polynomial_matrix(values, 1, 0.0).numpy() * 100, np.triu_indices(100, k=1)
    rmse = {}
    for normalised in (False, True):
        maps = [draw(3000, seed, {"image": 512, "text": 512}, normalised=normalised) for seed in range(10)]
        squares = np.stack([(product(map, values) - kernel)[pairs] ** 2 for map in maps])
        rmse[normalised] = np.sqrt(squares.mean())
    # close to the bound's root, .027; pairs of one map share the error along the cone, so ten maps still differ
    assert rmse[False] == pytest.approx(np.sqrt(((1 + 2 * 0.5**2) ** 2 - 0.5**4) / 3000), rel=0.25)
    assert rmse[True] < rmse[False]


def test_signs_are_balanced_and_independent():
    map = draw(5000, degree=2)
    assert set(map.projections["image"].unique().tolist()) == {-1.0, 1.0}
    rows = torch.cat([values.flatten(0, 1) for values in map.projections.values()])  # 22 of them
    correlation = (rows @ rows.T / 5000).numpy() - np.eye(22)
    assert np.abs(correlation).max() < 5 / np.sqrt(5000)
    assert rows.mean(dim=1).abs().max() < 5 / np.sqrt(5000)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-14), (torch.float32, 1e-5)])
def test_chunks_dtype_and_order_of_modalities_do_not_matter(name, dtype, precision):
    whole = draw(**FORMS[name])(VECTORS)
    again = draw(widths=dict(reversed(WIDTHS.items())), dtype=dtype, **FORMS[name])
    parts = [again({part: values[rows] for part, values in VECTORS.items()}) for rows in torch.arange(N).split(7)]
    assert parts[0].dtype == dtype
    np.testing.assert_allclose(torch.cat(parts).numpy(), whole.numpy(), atol=precision)
    np.testing.assert_allclose(torch.linalg.vector_norm(whole, dim=1).numpy(), 1, rtol=1e-14)
    assert not torch.allclose(draw(seed=1, **FORMS[name])(VECTORS), whole)


def test_a_larger_map_begins_with_the_smaller():
    larger, smaller = draw(800, degree=2, normalised=False), draw(500, degree=2, normalised=False)
    assert all(torch.equal(larger.projections[name][:, :, :500], smaller.projections[name]) for name in WIDTHS)


def test_scale_of_the_vectors_does_not_matter_to_the_cosine():
    scaled = {"image": 1e30 * VECTORS["image"].float(), "text": 1e-6 * VECTORS["text"]}
    np.testing.assert_allclose(draw()(scaled).numpy(), draw()(VECTORS).numpy(), atol=1e-6)


def test_pinned_value():
    """Where NumPy's stream or our use of it changes, saved moments no longer fit new rows."""
    signs = draw(3, widths={"image": 2}, degree=2).projections["image"]
    assert signs.tolist() == PINNED


PINNED = [[[-1.0, 1.0, -1.0], [1.0, 1.0, 1.0]], [[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]]]


def test_random_features_of_the_table_approach_their_kernels():
    for name, record in KERNELS.items():
        sigmas = {"image": 3.0, "text": 6.0} if record.has_bandwidth else {}
        kernel = kernel_matrix(name, VECTORS, sigmas).numpy() * N
        assert np.sqrt(np.mean((product(record.features(WIDTHS, sigmas, 20_000, 0)) - kernel) ** 2)) < 0.06


WRONG = [
    ({"count": 0}, "count is 0: expected a whole number from 1"),
    ({"seed": 0.5}, "seed is 0.5: expected a whole number from 0"),
    ({"degree": 0}, "degree is 0: expected a whole number from 1"),
    ({"offset": -1.0}, "offset is -1.0: expected a number that is not negative"),
    ({"widths": {}}, r"modalities are \[\]: expected 'image', 'text' or both"),
    ({"dtype": torch.int64}, "dtype is torch.int64: expected torch.float32 or torch.float64"),
]


@pytest.mark.parametrize(("form", "message"), WRONG)
def test_maps_that_cannot_be_drawn(form, message):
    with pytest.raises(InputError, match=message):
        draw(**form)


def test_a_vector_without_direction_is_named():
    with pytest.raises(InputError, match="the text vector in row 3 is zero"):
        draw()({**VECTORS, "text": VECTORS["text"] * (torch.arange(N) != 3)[:, None]})


@pytest.mark.parametrize("name", [name for name, record in KERNELS.items() if not record.has_bandwidth])
def test_widths_that_would_not_be_used_are_refused(name):
    with pytest.raises(InputError, match=f"the {name} kernel has no bandwidth"):
        KERNELS[name].features(WIDTHS, {"image": 1.0}, 10, 0)
