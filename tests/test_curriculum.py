"""The terms of the curriculum against numpy, and the schedule of their weight."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koda_audit.alignment.curriculum import (
    Phases,
    alignment_loss,
    centroid_loss,
    contrastive_loss,
    geometry_loss,
    gradient_ratio,
)
from koda_audit.errors import InputError

N, D, SCALE = 12, 5, 20.0


def pair(seed=0):
    values = np.random.default_rng(seed).normal(size=(2, N, D))
    x, y = torch.from_numpy(values / np.linalg.norm(values, axis=2, keepdims=True))
    return x, y


def direct(x, y, scale, beta):
    """The weighted contrastive loss, one row after another."""
    total = 0.0
    for cosines in (x @ y.T, y @ x.T):
        for i, row in enumerate(cosines):
            others = np.delete(row, i)
            weights = (len(row) - 1) * np.exp(beta * others) / np.exp(beta * others).sum()
            positive = np.exp(scale * row[i])
            total -= np.log(positive / (positive + (weights * np.exp(scale * others)).sum()))
    return total / (2 * len(x))


@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_contrastive_loss(beta):
    x, y = pair()
    assert contrastive_loss(x, y, SCALE, beta).item() == pytest.approx(direct(x.numpy(), y.numpy(), SCALE, beta))


def test_without_weights_it_is_clips_loss():
    x, y = pair()
    logits, truth = SCALE * x @ y.T, torch.arange(N)
    stock = (torch.nn.functional.cross_entropy(logits, truth) + torch.nn.functional.cross_entropy(logits.T, truth)) / 2
    assert contrastive_loss(x, y, SCALE).item() == pytest.approx(stock.item(), rel=1e-14)


def test_no_gradient_goes_through_the_weights():
    x, y = pair()
    x.requires_grad_()
    (got,) = torch.autograd.grad(contrastive_loss(x, y, SCALE, 5.0), x)
    cosines = (x @ y.T).detach().numpy()
    off = ~np.eye(N, dtype=bool)
    weights = [np.where(off, np.exp(5 * c), 0) for c in (cosines, cosines.T)]
    weights = [torch.from_numpy(np.where(off, (N - 1) * w / w.sum(axis=1, keepdims=True), 1)) for w in weights]
    loss = 0
    for c, w in zip((x @ y.T, y @ x.T), weights, strict=True):
        e = w * torch.exp(SCALE * c)
        loss = loss - torch.log(e.diagonal() / e.sum(dim=1)).mean() / 2
    (expected,) = torch.autograd.grad(loss, x)
    assert torch.allclose(got, expected)


def test_near_negatives_count_more():
    x, y = pair()
    losses = [contrastive_loss(x, y, SCALE, beta).item() for beta in (0.0, 1.0, 5.0, 20.0)]
    assert losses == sorted(losses)


def test_terms():
    x, y = pair()
    a, b = x.numpy(), y.numpy()
    assert centroid_loss(x, y).item() == pytest.approx(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) ** 2)
    assert geometry_loss(x, y).item() == pytest.approx(np.linalg.norm(a @ a.T - b @ b.T) ** 2 / N**2)
    whole = alignment_loss(x, y, SCALE, 2.0)
    assert whole == centroid_loss(x, y) + geometry_loss(x, y) + contrastive_loss(x, y, SCALE, 2.0)


@pytest.mark.parametrize("loss", [centroid_loss, geometry_loss])
def test_terms_are_zero_for_equal_sides_and_symmetric(loss):
    x, y = pair()
    assert loss(x, x).item() == 0
    assert loss(x, y) == loss(y, x)


def test_geometry_does_not_know_how_either_side_is_turned():
    x, y = pair()
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0])
    assert geometry_loss(x, y @ turn).item() == pytest.approx(geometry_loss(x, y).item())
    assert geometry_loss(x, x @ turn).item() == pytest.approx(0, abs=1e-28)


@pytest.mark.parametrize("term", [centroid_loss, geometry_loss, lambda x, y: alignment_loss(x, y, SCALE, 0.0)])
def test_gradients(term):
    x, y = (side[:4].requires_grad_() for side in pair())
    assert torch.autograd.gradcheck(term, (x, y))


def test_gradient_ratio():
    x, y = (side.requires_grad_() for side in pair())
    first, second = contrastive_loss(x, y, SCALE), centroid_loss(x, y)
    norms = [torch.cat(torch.autograd.grad(loss, (x, y), retain_graph=True)).norm() for loss in (first, second)]
    assert gradient_ratio(first, second, x, y) == pytest.approx((norms[0] / norms[1]).item())
    flat = (x * 0).sum()
    assert gradient_ratio(first, flat, x, y) == 1


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 1),
    st.integers(1, 60),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.lists(st.floats(0, 4), min_size=60, max_size=60),
)
def test_weight_of_the_alignment(target, steps, anchor, ramp, ratios):
    phases = Phases(target, steps, anchor, ramp)
    alphas = [0.0]
    for step in range(steps):
        alphas.append(phases.following(alphas[-1], step, ratios[step]))
    assert all(before <= after for before, after in pairwise(alphas))
    assert 0 <= min(alphas) <= max(alphas) <= target
    names = [phases.name(step) for step in range(steps)]
    assert names == sorted(names, key=["anchor", "ramp", "stabilize"].index)
    assert all(alphas[step + 1] == 0 for step in range(steps) if names[step] == "anchor")
    stable = [alphas[step] for step in range(steps) if names[step] == "stabilize"]
    assert len(set(stable)) <= 1


def test_a_contrastive_loss_that_answers_leads_to_the_target():
    phases = Phases(0.5, 100)
    alpha = 0.0
    for step in range(100):
        alpha = phases.following(alpha, step, 0.6)
    assert alpha == 0.5


@pytest.mark.parametrize(
    "given",
    [{"alpha_target": -0.1}, {"alpha_target": 1.1}, {"anchor": 0.7, "ramp": 0.7}, {"anchor": -0.1}, {"rise": -1}],
)
def test_refused(given):
    with pytest.raises(InputError, match="expected"):
        Phases(**{"alpha_target": 0.5, "steps": 10, **given})
