"""The cosine kernel against scikit-learn, a table of invariances, and the table of kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import kernel_matrix
from sklearn.metrics.pairwise import cosine_similarity, polynomial_kernel, rbf_kernel

from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
IMAGE, TEXT = RANDOM.standard_normal((30, 7)), 3 * RANDOM.standard_normal((30, 4)) + 2


def gram(image=IMAGE, text=TEXT):
    return kernel_matrix("cosine", {"image": torch.from_numpy(image), "text": torch.from_numpy(text)}).numpy()


def test_joint_kernel_is_the_product_of_both():
    np.testing.assert_allclose(gram() * 30, cosine_similarity(IMAGE) * cosine_similarity(TEXT), atol=1e-14)


def test_trace_is_one_and_the_matrix_symmetric_and_positive():
    np.testing.assert_array_equal(np.diag(gram()), np.full(30, 1 / 30))
    np.testing.assert_array_equal(gram(), gram().T)
    assert np.linalg.eigvalsh(gram())[0] > -1e-16
    assert gram().min() < 0


ORDER = RANDOM.permutation(30)
ROTATION = np.linalg.qr(RANDOM.standard_normal((7, 7)))[0]
INVARIANCES = {
    "rotation": (IMAGE @ ROTATION, TEXT),
    "scale": (1e6 * IMAGE, 1e-6 * TEXT),
    "scale of each row": (IMAGE * RANDOM.uniform(0.1, 9, (30, 1)), TEXT),
    "both reflected": (-IMAGE, -TEXT),
    "columns of zeros": (np.c_[IMAGE, np.zeros((30, 2))], TEXT),
}


@pytest.mark.parametrize("name", INVARIANCES)
def test_invariances(name):
    np.testing.assert_allclose(gram(*INVARIANCES[name]), gram(), atol=1e-16)


def test_permutation():
    np.testing.assert_allclose(gram(IMAGE[ORDER], TEXT[ORDER]), gram()[np.ix_(ORDER, ORDER)], atol=1e-16)


def test_vectors_are_taken_as_they_come_so_a_translation_matters():
    assert np.abs(gram(IMAGE + 5) - gram()).max() > 0.01


def test_pinned_value():
    values = torch.tensor([[1.0, 0.0], [-3.0, 4.0]])
    assert kernel_matrix("cosine", {"text": values})[0, 1].item() == pytest.approx(-0.3, rel=1e-15)


def test_bad_input_in_one_sentence():
    with pytest.raises(InputError, match="the text vector in row 1 is zero, so it has no direction"):
        kernel_matrix("cosine", {"text": torch.tensor([[1.0], [0.0]])})
    with pytest.raises(InputError, match=r"rows differ between modalities: \{'image': 3, 'text': 2\}"):
        kernel_matrix("cosine", {"image": torch.ones(3, 1), "text": torch.ones(2, 1)})


SIGMAS = {"image": 1.7, "text": 6.0}
REFERENCES = {
    "rbf": lambda values, name: rbf_kernel(values, gamma=1 / (2 * SIGMAS[name] ** 2)),
    "cosine": lambda values, name: cosine_similarity(values),
    "polynomial": lambda values, name: normalised(polynomial_kernel(values, degree=3, coef0=1)),
}


def normalised(kernel):
    return kernel / np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_of_the_table_is_called_alike(name, modality):
    values = {"image": IMAGE, "text": TEXT}
    vectors = {part: torch.from_numpy(values[part]) for part in MODALITIES[modality]}
    sigmas = {part: SIGMAS[part] for part in vectors} if KERNELS[name].has_bandwidth else {}
    expected = np.prod([REFERENCES[name](values[part], part) for part in vectors], axis=0) / 30
    np.testing.assert_allclose(kernel_matrix(name, vectors, sigmas).numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if not kernel.has_bandwidth])
def test_widths_that_would_not_be_used_are_refused(name):
    with pytest.raises(InputError, match=f"the {name} kernel has no bandwidth"):
        kernel_matrix(name, {"image": torch.eye(3)}, {"image": 1.0})
