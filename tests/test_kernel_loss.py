"""KUEA's loss against the published form written out in numpy, and what it must and must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koda_audit.alignment.kernel_loss import (
    KERNELS,
    anchor_loss,
    best_log_rho,
    cosine_bound,
    kernel_matrix,
    kernel_mse,
    teacher_log_rho,
)
from koda_audit.errors import InputError

N, D = 24, 7


def rows(seed=0, n=N, d=D, norm=10.0):
    values = np.random.default_rng(seed).normal(size=(n, d))
    return torch.from_numpy(norm * values / np.sqrt(d))


def published(x, gamma, c, p=3):
    """(gamma x'y + c)^p, divided by the roots of the diagonal."""
    k = (gamma * x @ x.T + c) ** p
    return k / np.sqrt(np.outer(np.diag(k), np.diag(k)))


def rotation(seed=0, d=D):
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0])


@pytest.mark.parametrize(("gamma", "c"), [(0.0032, 0.191623), (1 / 1024, 1.0), (3.0, 0.01)])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_stable_form_is_the_published_one(gamma, c, degree):
    x = rows()
    found = kernel_matrix(x, math.log(gamma / c), degree=degree)
    assert np.abs(found.numpy() - published(x.numpy(), gamma, c, degree)).max() < 1e-12


def test_gaussian_is_the_direct_formula():
    x = rows()
    distances = ((x.numpy()[:, None] - x.numpy()[None]) ** 2).sum(axis=2)
    assert np.allclose(kernel_matrix(x, math.log(1 / 8.7**2), "gaussian"), np.exp(-distances / (2 * 8.7**2)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("log_rho", [-6.0, -3.0, 0.0])
def test_matrix_is_a_kernel(kernel, log_rho):
    gram = kernel_matrix(rows(), log_rho, kernel)
    assert torch.equal(gram, gram.T)
    assert torch.equal(gram.diagonal(), torch.ones(N, dtype=torch.float64))
    assert gram.abs().max() <= 1
    assert torch.linalg.eigvalsh(gram).min() >= -1e-8


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("change", "shift"),
    [(lambda x: x @ rotation(), 0.0), (lambda x: x / 4, math.log(16)), (lambda x: -x, 0.0)],
    ids=["rotation", "scale", "sign"],
)
def test_what_the_matrix_does_not_depend_on(kernel, change, shift):
    x = rows()
    assert torch.allclose(kernel_matrix(change(x), -3.0 + shift, kernel), kernel_matrix(x, -3.0, kernel), atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_order_of_samples_is_kept(kernel):
    x, order = rows(), torch.randperm(N, generator=torch.Generator().manual_seed(0))
    expected = kernel_matrix(x, -3.0, kernel)[order][:, order]
    assert torch.allclose(kernel_matrix(x[order], -3.0, kernel), expected, atol=1e-14)


def test_limits_of_rho():
    x = rows()
    cosines = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=2)
    assert torch.allclose(kernel_matrix(x, -40.0), torch.ones(N, N, dtype=torch.float64))
    assert torch.allclose(kernel_matrix(x, 40.0), cosines**3, atol=1e-12)


def test_only_the_ratio_of_gamma_and_c_has_a_gradient():
    x = rows().numpy()
    teacher = published(rows(1).numpy(), 1.0, 1.0)
    loss = lambda gamma, c: ((published(x, gamma, c) - teacher) ** 2).mean()  # noqa: E731
    step = 1e-6
    by_gamma = (loss(0.02 + step, 0.3) - loss(0.02 - step, 0.3)) / (2 * step)
    by_c = (loss(0.02, 0.3 + step) - loss(0.02, 0.3 - step)) / (2 * step)
    log_rho = torch.tensor(math.log(0.02 / 0.3), dtype=torch.float64, requires_grad=True)
    kernel_mse(kernel_matrix(torch.from_numpy(x), log_rho), torch.from_numpy(teacher), "all").backward()
    assert abs(0.02 * by_gamma + 0.3 * by_c) < 1e-8
    assert log_rho.grad.item() == pytest.approx(0.02 * by_gamma, rel=1e-5)


@pytest.mark.parametrize("kernel", KERNELS[:2])
def test_gradients(kernel):
    x = rows(n=5, d=3, norm=2.0).requires_grad_()
    log_rho = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    teacher = kernel_matrix(rows(1, n=5), -3.0)
    assert torch.autograd.gradcheck(lambda a, b: kernel_mse(kernel_matrix(a, b, kernel), teacher), (x, log_rho))


def test_student_that_is_its_teacher_has_no_loss_and_no_gradient():
    x = rows().requires_grad_()
    loss = kernel_mse(kernel_matrix(x, -3.0), kernel_matrix(x.detach(), -3.0))
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()


def test_anchor_has_no_value_and_no_gradient_at_the_start():
    x = rows().requires_grad_()
    loss = anchor_loss(x, x.detach())
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()


def test_anchor_sums_over_dimensions():
    x, before = rows(), rows(1)
    assert anchor_loss(x, before, 2.0).item() == pytest.approx(((x - before).numpy() ** 2).sum(axis=1).mean() / 2)


def test_linear_map_has_a_symmetric_gradient_at_the_identity():
    x, w = rows(), torch.zeros(D, D, dtype=torch.float64, requires_grad=True)
    kernel_mse(kernel_matrix(x + x @ w, -3.0), kernel_matrix(rows(1), -3.0)).backward()
    assert (w.grad - w.grad.T).abs().max() < 1e-12 * w.grad.abs().max()


def test_expectation_over_batches():
    student, teacher = kernel_matrix(rows(), -3.0), kernel_matrix(rows(1), -3.0)
    random = np.random.default_rng(0)
    values = []
    for _ in range(4000):
        chosen = torch.from_numpy(random.choice(N, 6, replace=False))
        values.append(kernel_mse(student[chosen][:, chosen], teacher[chosen][:, chosen], "all").item())
    expected = (1 - 1 / 6) * kernel_mse(student, teacher).item()
    assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / np.sqrt(len(values)))


def test_micro_batches_are_not_the_whole_batch():
    student, teacher = kernel_matrix(rows(), -3.0), kernel_matrix(rows(1), -3.0)
    halves = [slice(0, N // 2), slice(N // 2, N)]
    mean = np.mean([kernel_mse(student[part, part], teacher[part, part], "all").item() for part in halves])
    assert abs(mean - kernel_mse(student, teacher, "all").item()) > 1e-3


def test_float32_of_large_norm():
    x = rows(norm=1e5).float()
    with np.errstate(over="ignore", invalid="ignore"):
        assert not np.isfinite(published(x.numpy(), np.float32(1 / 1024), np.float32(1), np.float32(9))).all()
    gram = kernel_matrix(x, math.log(1 / 1024), degree=9)
    assert torch.isfinite(gram).all()
    assert torch.equal(gram.diagonal(), torch.ones(N, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 3.0))
def test_no_cosine_changes_by_more_than_the_bound(seed, drift):
    x0, texts = rows(seed), rows(seed + 1)
    x = x0 + drift * rows(seed + 2)
    cosine = lambda a: torch.nn.functional.cosine_similarity(a[:, None], texts[None], dim=2)  # noqa: E731
    change = (cosine(x) - cosine(x0)).abs().max(dim=1).values
    bound = cosine_bound(x, x0)
    norms = torch.linalg.vector_norm(torch.stack([x, x0]), dim=2).max(dim=0).values
    assert (change <= bound + 1e-12).all()
    assert (bound >= torch.linalg.vector_norm(x - x0, dim=1) / norms - 1e-12).all()
    margins = cosine(x0).topk(2, dim=1).values
    safe = margins[:, 0] - margins[:, 1] > 2 * bound
    assert torch.equal(cosine(x).argmax(dim=1)[safe], cosine(x0).argmax(dim=1)[safe])


def test_best_rho_is_the_best_of_the_grid():
    x, teacher = rows(), kernel_matrix(rows(1), -3.0)
    log_rho, left = best_log_rho(x, teacher)
    tried = {}
    for exponent in np.linspace(-4, 4, 61):
        difference = published(x.numpy(), 10**exponent, 1.0) - teacher.numpy()
        tried[exponent] = (difference**2).sum() / (N * (N - 1))
    best = min(tried, key=tried.get)
    assert log_rho == pytest.approx(best * math.log(10))
    assert left == pytest.approx(tried[best])


@pytest.mark.parametrize(
    "teacher",
    [torch.ones(9, 4), torch.zeros(9, 4), rows(norm=1.0, d=64) / 10],
    ids=["constant", "zero", "too short for rho = 1/d"],
)
def test_teacher_without_signal(teacher):
    with pytest.raises(InputError, match="the teacher sees all images alike"):
        teacher_log_rho(teacher)


def test_teacher_default_is_the_published_one():
    assert teacher_log_rho(rows(d=16)) == pytest.approx(math.log(1 / 16))
    assert teacher_log_rho(rows(d=16), 0.5) == pytest.approx(math.log(0.5))
