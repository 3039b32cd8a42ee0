"""The polynomial kernel against scikit-learn, its limits, and a table of invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import kernel_matrix, polynomial_matrix
from sklearn.metrics.pairwise import cosine_similarity, polynomial_kernel

from koda_audit._kernels.polynomial import check_polynomial
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
IMAGE, TEXT = RANDOM.standard_normal((30, 7)), 3 * RANDOM.standard_normal((30, 4)) + 2


def gram(image=IMAGE, text=TEXT, **form):
    vectors = {"image": torch.from_numpy(image), "text": torch.from_numpy(text)}
    return polynomial_matrix(vectors, **form).numpy()


def reference(values, degree, offset):
    kernel = polynomial_kernel(values, degree=degree, coef0=offset)  # gamma is 1/d by default
    return kernel / np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))


@pytest.mark.parametrize("degree", [1, 2, 3, 7])
@pytest.mark.parametrize("offset", [0.0, 0.19, 1.0, 30])
def test_joint_kernel_is_the_product_of_both(degree, offset):
    expected = reference(IMAGE, degree, offset) * reference(TEXT, degree, offset)
    np.testing.assert_allclose(gram(degree=degree, offset=offset) * 30, expected, atol=1e-13)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_trace_is_one_and_the_matrix_symmetric_and_positive(degree, offset):
    matrix = gram(degree=degree, offset=offset)
    np.testing.assert_allclose(np.diag(matrix), np.full(30, 1 / 30), rtol=1e-14)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-17)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-16


ORDER = RANDOM.permutation(30)
ROTATION = np.linalg.qr(RANDOM.standard_normal((7, 7)))[0]
INVARIANCES = {
    "rotation": {"image": IMAGE @ ROTATION},
    "reflection": {"text": -TEXT},
    "scale with its offset": {"image": 1e3 * IMAGE, "text": 1e3 * TEXT, "offset": 1e6},
}


@pytest.mark.parametrize("name", INVARIANCES)
def test_invariances(name):
    np.testing.assert_allclose(gram(**INVARIANCES[name]), gram(), atol=1e-15)


def test_permutation():
    np.testing.assert_allclose(gram(IMAGE[ORDER], TEXT[ORDER]), gram()[np.ix_(ORDER, ORDER)], atol=1e-16)


def test_limits_are_powers_of_the_cosine_and_a_constant():
    cosines = cosine_similarity(IMAGE) * cosine_similarity(TEXT)
    np.testing.assert_allclose(gram(offset=0) * 30, cosines**3, atol=1e-14)
    np.testing.assert_allclose(gram(1e8 * IMAGE, 1e8 * TEXT) * 30, cosines**3, atol=1e-13)
    np.testing.assert_allclose(gram(offset=1e14) * 30, 1, atol=1e-10)


def test_long_vectors_do_not_overflow():
    """Squares of 1e50: beyond float32 as they are, and beyond float64 in the seventh power."""
    long = torch.tensor([[1e25, 0.0], [3e25, 4e25], [0.0, 1e-30]], dtype=torch.float64)
    cosine = polynomial_matrix({"image": long}, degree=7, offset=0)[0, 1].item() * 3
    assert cosine == pytest.approx(0.6**7, rel=1e-12)
    assert polynomial_matrix({"image": long[:2].to(torch.float32)})[0, 1].item() * 2 == pytest.approx(0.6**3, rel=1e-6)


def test_pinned_value():
    expected = 0.5 * (1 * 2 / 1 + 1) ** 3 / ((1 + 1) * (4 + 1)) ** 1.5
    assert polynomial_matrix({"text": torch.tensor([[1.0], [2.0]])})[0, 1].item() == pytest.approx(expected, rel=1e-14)


WRONG = [
    ({"degree": 0}, "degree is 0: expected a whole number from 1"),
    ({"degree": 2.5}, "degree is 2.5: expected a whole number from 1"),
    ({"degree": True}, "degree is True: expected a whole number from 1"),
    ({"offset": -0.1}, "offset is -0.1: expected a number that is not negative"),
    ({"offset": float("nan")}, "offset is nan: expected a number that is not negative"),
    ({"offset": "1"}, "offset is '1': expected a number that is not negative"),
]


@pytest.mark.parametrize(("form", "message"), WRONG)
def test_a_form_that_is_no_kernel_is_refused(form, message):
    with pytest.raises(InputError, match=message):
        check_polynomial(**{"degree": 3, "offset": 1.0, **form})


def test_bad_input_in_one_sentence():
    with pytest.raises(InputError, match="the image vector in row 0 is zero"):
        gram(np.zeros((30, 7)), offset=0)
    with pytest.raises(InputError, match="rows differ between modalities"):
        kernel_matrix("polynomial", {"image": torch.ones(3, 1), "text": torch.ones(2, 1)})


def test_the_kernel_of_the_table_is_the_cubic_one():
    vectors = {"image": torch.from_numpy(IMAGE), "text": torch.from_numpy(TEXT)}
    np.testing.assert_allclose(kernel_matrix("polynomial", vectors).numpy(), gram(), rtol=1e-13)


def test_a_zero_vector_is_fine_where_there_is_an_offset():
    assert polynomial_matrix({"image": torch.zeros(2, 3)}).tolist() == [[0.5, 0.5], [0.5, 0.5]]
