"""The bandwidth rule: what it promises, and what it says where it cannot."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

from koda_audit._kernels import bandwidth
from koda_audit._kernels.bandwidth import base_scale, fit_bandwidth, leading_eigenvalues
from koda_audit.errors import InputError

RANDOM = np.random.default_rng(0)
IMAGE, TEXT = RANDOM.standard_normal((60, 9)), 5 * RANDOM.standard_normal((60, 3))


def vectors(image=IMAGE, text=TEXT):
    return {"image": torch.from_numpy(image), "text": torch.from_numpy(text)}


def test_leading_eigenvalue_is_the_target():
    for target in (0.05, 0.15, 0.9):
        width = fit_bandwidth(vectors(), target)
        gram = np.exp(-cdist(IMAGE, IMAGE, "sqeuclidean") / (2 * width.sigmas["image"] ** 2))
        gram *= np.exp(-cdist(TEXT, TEXT, "sqeuclidean") / (2 * width.sigmas["text"] ** 2))
        eigenvalues = np.linalg.eigvalsh(gram / 60)[::-1]
        assert eigenvalues[0] == pytest.approx(target, rel=1e-9)
        assert width.lambda_max == pytest.approx(eigenvalues[0], rel=1e-9)


def test_base_scale_is_the_median_distance_of_each_modality():
    width = fit_bandwidth(vectors())
    for name, values in (("image", IMAGE), ("text", TEXT)):
        assert width.sigmas[name] / width.multiplier == pytest.approx(np.median(pdist(values)), rel=1e-12)


def test_width_grows_with_the_target():
    multipliers = [fit_bandwidth(vectors(), target).multiplier for target in (0.05, 0.1, 0.3, 0.6, 0.95)]
    assert multipliers == sorted(multipliers)


def test_multiplier_does_not_depend_on_the_units():
    changed = fit_bandwidth(vectors(1e6 * IMAGE + 3, 1e-6 * TEXT))
    assert changed.multiplier == pytest.approx(fit_bandwidth(vectors()).multiplier, rel=1e-8)
    assert changed.sigmas["image"] == pytest.approx(1e6 * fit_bandwidth(vectors()).sigmas["image"], rel=1e-8)


def test_many_rows_agree_with_all_eigenvalues():
    many = RANDOM.standard_normal((400, 6))
    width = fit_bandwidth({"image": torch.from_numpy(many)})
    gram = np.exp(-cdist(many, many, "sqeuclidean") / (2 * width.sigmas["image"] ** 2)) / 400
    assert width.lambda_max == pytest.approx(np.linalg.eigvalsh(gram)[-1], rel=1e-9)


def test_drawn_pairs_depend_on_the_seed_alone(monkeypatch):
    monkeypatch.setattr(bandwidth, "PAIRS", 100)
    first, again, other = (fit_bandwidth(vectors(), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.multiplier == pytest.approx(other.multiplier, rel=0.3)


def test_equal_rows_do_not_count_as_a_distance():
    prompts = torch.tensor([[0.0], [2.0]])[torch.arange(20) // 19]  # 19 of 20 samples share one class prompt
    assert base_scale(prompts, "text") == 2.0


@pytest.mark.parametrize("rows", [30, 300])
def test_samples_all_equally_far_apart(rows):
    """K = (1 - k) I + k 11', so k follows from the target: lambda_max = (1 + (n - 1) k) / n."""
    width = fit_bandwidth({"image": torch.eye(rows)}, 0.15)
    kernel = (0.15 * rows - 1) / (rows - 1)
    assert np.exp(-1 / width.sigmas["image"] ** 2) == pytest.approx(kernel, rel=1e-9)


UNREACHABLE = [
    ({"image": torch.ones(9, 3)}, 0.15, "the image embeddings are constant"),
    ({"image": torch.eye(6)}, 0.15, "cannot be reached with 6 samples, .* give at least 7 samples"),
    ({"text": torch.eye(3)[torch.arange(30) % 3]}, 0.15, "never below 0.3333, .* have text embeddings that are equal"),
    ({"image": torch.eye(9)}, 1.0, "expected a number between 0 and 1"),
    ({"image": torch.eye(9)}, float("nan"), "expected a number between 0 and 1"),
]


@pytest.mark.parametrize(("values", "target", "message"), UNREACHABLE)
def test_unreachable_targets_say_why(values, target, message):
    with pytest.raises(InputError, match=message):
        fit_bandwidth(values, target)


def test_nothing_of_size_is_left_behind():
    """SciPy's root finder keeps its function in a cycle: what that held would stay until Python collects cycles."""
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        fit_bandwidth(vectors())
        assert not tensors() - before
    finally:
        gc.enable()


def tensors():
    return {id(held) for held in gc.get_objects() if type(held) is torch.Tensor and held.numel() >= 60 * 60}


def test_a_kernel_of_low_rank_has_its_eigenvalues():
    assert leading_eigenvalues(np.full((300, 300), 1 / 300), 20) == pytest.approx([1.0] + [0.0] * 19, abs=1e-9)
