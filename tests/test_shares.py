"""What images and texts add to the excess of a lobe, against dense numpy kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from koda_audit._kernels.table import kernel_blocks
from koda_audit.discrepancy.shares import modality_shares

N = 40
RANDOM = np.random.default_rng(0)
VECTORS = {
    role: {"image": RANDOM.normal(size=(N, 4)) + 1, "text": RANDOM.normal(size=(N, 3)) + 1}
    for role in ("target", "reference")
}
SIGMAS = {"target": {"image": 1.5, "text": 2.0}, "reference": {"image": 1.0, "text": 3.0}}
ROWS = np.array([3, 17, 5, 30])
WEIGHTS = np.array([0.5, 0.4, 0.3, 0.1])


def alone(kernel, vectors=VECTORS):
    return {
        role: {
            name: kernel_blocks(
                kernel, {name: torch.from_numpy(values)}, {name: SIGMAS[role][name]} if kernel == "rbf" else {}
            )
            for name, values in vectors[role].items()
        }
        for role in vectors
    }


def dense(kernel, values, sigma):
    """The whole (n, n) kernel matrix in plain numpy."""
    if kernel == "rbf":
        return np.exp(-(((values[:, None] - values) ** 2).sum(axis=2)) / (2 * sigma**2))
    gram = values @ values.T / values.shape[1] + 1 if kernel == "polynomial" else values @ values.T
    lengths = np.sqrt(np.diag(gram))
    return (gram / np.outer(lengths, lengths)) ** (3 if kernel == "polynomial" else 1)


@pytest.mark.parametrize("kernel", ["rbf", "cosine", "polynomial"])
def test_shares_are_those_of_the_whole_matrices(kernel):
    found = modality_shares(alone(kernel), ROWS, WEIGHTS)
    w = np.zeros(N)
    w[ROWS] = WEIGHTS / np.linalg.norm(WEIGHTS)
    gram = {
        (name, role): dense(kernel, VECTORS[role][name], SIGMAS[role][name])
        for role in VECTORS
        for name in ("image", "text")
    }

    def value(p, q):
        return w @ (gram["image", p] * gram["text", q]) @ w / N

    tt, tr, rt, rr = (value(p, q) for p in ("target", "reference") for q in ("target", "reference"))
    assert found["image_share"] == pytest.approx((tt - rt + tr - rr) / 2, abs=1e-14)
    assert found["text_share"] == pytest.approx((tt - tr + rt - rr) / 2, abs=1e-14)
    assert found["interaction"] == pytest.approx(tt - tr - rt + rr, abs=1e-14)
    for (name, role), matrix in gram.items():
        assert found[f"{name}_coherence_{role}"] == pytest.approx(w @ matrix @ w / N, rel=1e-12)


@pytest.mark.parametrize("kernel", ["rbf", "cosine", "polynomial"])
def test_the_shares_add_up_to_the_excess_of_the_joint_kernel(kernel):
    found = modality_shares(alone(kernel), ROWS, WEIGHTS)
    w = torch.from_numpy(WEIGHTS / np.linalg.norm(WEIGHTS))
    coherences = []
    for role, vectors in VECTORS.items():
        tensors = {name: torch.from_numpy(values) for name, values in vectors.items()}
        part = kernel_blocks(kernel, tensors, SIGMAS[role] if kernel == "rbf" else {}).part(torch.from_numpy(ROWS))
        coherences.append((w @ part @ w).item())
    assert found["image_share"] + found["text_share"] == pytest.approx(coherences[0] - coherences[1], abs=1e-15)


def test_a_modality_that_both_models_share_adds_nothing():
    reference = {"image": VECTORS["reference"]["image"], "text": VECTORS["target"]["text"]}
    found = modality_shares(alone("cosine", {"target": VECTORS["target"], "reference": reference}), ROWS, WEIGHTS)
    assert found["text_share"] == pytest.approx(0, abs=1e-16)
    assert found["interaction"] == pytest.approx(0, abs=1e-16)


def test_exchanging_the_models_changes_the_sign_and_scaling_the_weights_nothing():
    blocks = alone("rbf")
    there = modality_shares(blocks, ROWS, WEIGHTS)
    back = modality_shares({"target": blocks["reference"], "reference": blocks["target"]}, ROWS, 7 * WEIGHTS)
    assert back["image_share"] == pytest.approx(-there["image_share"], abs=1e-15)
    assert back["text_share"] == pytest.approx(-there["text_share"], abs=1e-15)
    assert back["interaction"] == pytest.approx(there["interaction"], abs=1e-15)
