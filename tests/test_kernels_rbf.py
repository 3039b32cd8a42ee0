"""The Gaussian kernel against SciPy's distances, and a table of invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import kernel_matrix
from scipy.spatial.distance import cdist

from koda_audit._kernels.rbf import gaussian, scaled_points, squared_distances
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
IMAGE, TEXT = RANDOM.standard_normal((30, 7)), 3 * RANDOM.standard_normal((30, 4))
SIGMAS = {"image": 1.7, "text": 6.0}


def gram(image=IMAGE, text=TEXT, sigmas=SIGMAS):
    return kernel_matrix("rbf", {"image": torch.from_numpy(image), "text": torch.from_numpy(text)}, sigmas).numpy()


def test_joint_kernel_is_the_product_of_both():
    expected = np.exp(-cdist(IMAGE, IMAGE, "sqeuclidean") / (2 * 1.7**2))
    expected *= np.exp(-cdist(TEXT, TEXT, "sqeuclidean") / (2 * 6.0**2))
    np.testing.assert_allclose(gram() * 30, expected, rtol=1e-12)


def test_trace_is_one_and_the_matrix_symmetric_and_positive():
    assert np.trace(gram()) == pytest.approx(1, abs=1e-14)
    np.testing.assert_array_equal(gram(), gram().T)
    assert np.linalg.eigvalsh(gram())[0] > -1e-16


ORDER = RANDOM.permutation(30)
ROTATION = np.linalg.qr(RANDOM.standard_normal((7, 7)))[0]
INVARIANCES = {
    "translation": (IMAGE + 100, TEXT - 50, SIGMAS),
    "rotation": (IMAGE @ ROTATION, TEXT, SIGMAS),
    "scale with its width": (1e6 * IMAGE, TEXT, {**SIGMAS, "image": 1.7e6}),
    "columns of zeros": (np.c_[IMAGE, np.zeros((30, 2))], TEXT, SIGMAS),
}


@pytest.mark.parametrize("name", INVARIANCES)
def test_invariances(name):
    np.testing.assert_allclose(gram(*INVARIANCES[name]), gram(), rtol=1e-9)


def test_permutation():
    np.testing.assert_allclose(gram(IMAGE[ORDER], TEXT[ORDER]), gram()[np.ix_(ORDER, ORDER)], rtol=1e-12)


def test_duplicated_samples_keep_the_spectrum():
    twice = np.linalg.eigvalsh(gram(np.r_[IMAGE, IMAGE], np.r_[TEXT, TEXT]))[::-1][:30]
    np.testing.assert_allclose(twice, np.linalg.eigvalsh(gram())[::-1], atol=1e-14)


def test_distances_far_from_the_origin_keep_their_digits():
    points = torch.from_numpy(IMAGE + 1e6)
    np.testing.assert_allclose(squared_distances(points).numpy(), cdist(IMAGE, IMAGE, "sqeuclidean"), atol=1e-8)


def test_pinned_value():
    points = scaled_points({"image": torch.tensor([[0.0], [1.0]]), "text": torch.tensor([[0.0], [2.0]])}, SIGMAS)
    assert gaussian(points, points)[0, 1].item() == pytest.approx(np.exp(-1 / 5.78 - 4 / 72), rel=1e-14)


def test_rows_that_differ_are_named():
    with pytest.raises(InputError, match=r"rows differ between modalities: \{'image': 3, 'text': 2\}"):
        scaled_points({"image": torch.ones(3, 1), "text": torch.ones(2, 1)}, SIGMAS)


def test_an_outlier_costs_the_others_no_digits():
    random = np.random.default_rng(0)
    points = random.normal(size=(40, 5))
    points[7] *= 1e9
    mine = squared_distances(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(mine, cdist(points, points, "sqeuclidean"), rtol=1e-9, atol=1e-9)
