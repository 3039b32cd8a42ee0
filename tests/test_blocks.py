"""Exact coherences by blocks: every pair once, or rows drawn with a standard error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from koda_audit._kernels import blocks
from koda_audit._kernels.table import KERNELS, kernel_blocks

N = 300
RANDOM = np.random.default_rng(0)
VECTORS = {
    "image": torch.from_numpy(RANDOM.standard_normal((N, 5)) + 30),
    "text": torch.from_numpy(RANDOM.random((N, 3))),
}
SIGMAS = {"image": 2.0, "text": 0.5}
X = torch.linalg.qr(torch.from_numpy(RANDOM.standard_normal((N, 4))))[0]


def kernel(name):
    return kernel_blocks(name, VECTORS, SIGMAS if KERNELS[name].has_bandwidth else {})


def gram(name):
    return kernel(name).matrix()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("size", [37, 100, 300, 1000])
def test_all_pairs_whatever_the_blocks(name, size, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", size)
    values, errors = kernel(name).coherences(X)
    np.testing.assert_allclose(values, ((gram(name) @ X) * X).sum(dim=0), rtol=1e-12)
    assert not errors.any()


@pytest.mark.parametrize("name", KERNELS)
def test_drawn_rows_are_unbiased_with_the_error_that_is_stated(name, monkeypatch):
    monkeypatch.setattr(blocks, "VALUES", 60 * N)
    monkeypatch.setattr(blocks, "FEWEST", 10)
    exact = ((gram(name) @ X) * X).sum(dim=0)
    drawn, errors = zip(*(kernel(name).coherences(X, seed) for seed in range(200)), strict=True)
    drawn, errors = torch.stack(drawn), torch.stack(errors)
    spread = drawn.std(dim=0)
    assert (abs(drawn.mean(dim=0) - exact) < 4 * spread / 200**0.5).all()
    np.testing.assert_allclose((errors**2).mean(dim=0).sqrt(), spread, rtol=0.2)


def test_an_eigenvector_has_no_error(monkeypatch):
    monkeypatch.setattr(blocks, "VALUES", 60 * N)
    monkeypatch.setattr(blocks, "FEWEST", 10)
    eigenvalues, vectors = torch.linalg.eigh(gram("rbf"))
    value, error = kernel("rbf").coherences(vectors[:, -1:])
    assert value.item() == pytest.approx(eigenvalues[-1].item(), rel=1e-10)
    assert error.item() < 1e-10
