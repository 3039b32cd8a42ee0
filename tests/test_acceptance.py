"""What a discrepancy analysis must fulfil, recomputed by NumPy from what was put in and what came out."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import subspace_angles

from koda_audit import Embeddings, find_discrepancies, solve_contrast
from koda_audit._contrast import subspace
from koda_audit._contrast.operators import DensePair, FeaturePair, GramPair
from koda_audit._contrast.solve import Contrast, solve_operators
from koda_audit._features.fourier import FourierFeatures
from koda_audit.discrepancy.result import Discrepancies

Matrix = NDArray[np.float64]

SIZES = [60, 45, 35] + [40] * 8  # of unequal strength
N = sum(SIZES)
TOPIC = np.repeat(np.arange(len(SIZES)), SIZES)
LOST = [0, 1, 2]  # topics that are scrambled in the reference
T, R = 4, 200
WAYS = {
    "dense": {},
    "dense in the subspace": {"path": "dense"},
    "sample": {"n_features": R},
    "reduced": {"n_features": 110},  # 440 columns, fewer than there are samples
}


@functools.cache
def models() -> dict[str, Embeddings]:
    random = np.random.default_rng(0)
    parts: dict[str, list[Matrix]] = {"target": [], "reference": []}
    for width in (32, 16):
        plain = random.standard_normal((len(SIZES), width))[TOPIC]
        scrambled = np.where(np.isin(TOPIC, LOST)[:, None], random.standard_normal((N, width)), plain)
        turned = scrambled @ np.linalg.qr(random.standard_normal((width, width)))[0]
        parts["target"].append(plain + 0.4 * random.standard_normal((N, width)))
        parts["reference"].append(turned + 0.4 * random.standard_normal((N, width)))
    return {role: Embeddings(*pair) for role, pair in parts.items()}


@functools.cache
def found(way: str, target: str = "target", reference: str = "reference", **options: float) -> Discrepancies:
    """Each analysis once; all but "dense" by the subspace, which is what more than 512 samples take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subspace, "WHOLE", 512 if way == "dense" else 0)
        settings = {"path": way, "n_directions": T, "halves": 0} | WAYS[way] | options
        return find_discrepancies(models()[target], models()[reference], **settings)  # type: ignore[arg-type]


def features(result: Discrepancies) -> dict[str, Matrix]:
    """Both models' Phi / sqrt(n), from the stated form and NumPy's stream alone."""
    made = {}
    for number, (role, model) in enumerate(models().items()):
        seed, sigmas = 2 * result.settings["seed"] + number, result.bandwidths[role]["sigmas"]
        phases = np.zeros((N, result.settings["n_features"]))
        for place, (name, values) in enumerate((("image", model.image), ("text", model.text))):
            omega = np.random.default_rng([seed, place]).standard_normal((phases.shape[1], values.shape[1]))
            phases += values @ (omega / sigmas[name]).T
        made[role] = np.c_[np.cos(phases), np.sin(phases)] / np.sqrt(N * phases.shape[1])
    return made


def exact(result: Discrepancies) -> dict[str, Matrix]:
    """K/n of both models, from differences of rows."""
    made = {}
    for role, model in models().items():
        squares = np.zeros((N, N))
        for name, values in (("image", model.image), ("text", model.text)):
            squares += ((values[:, None] - values[None]) ** 2).sum(-1) / result.bandwidths[role]["sigmas"][name] ** 2
        made[role] = np.exp(-squares / 2) / N
    return made


@pytest.mark.parametrize("way", WAYS)
def test_certificates_on_the_kernel_used(way: str) -> None:
    """The span is orthonormal, holds epsilon in the mean, nearly reaches Fan's bound, and A - lambda B keeps it."""
    result = found(way)
    x, level, held = result.directions, result.epsilon, result.subspace
    assert x.shape == (N, T)  # every column has a group here
    used = exact(result) if "dense" in way else {role: phi @ phi.T for role, phi in features(result).items()}
    a, b, multiplier = used["target"], used["reference"], held["multiplier"]
    assert np.abs(x.T @ x - np.eye(T)).max() < 1e-6
    value, constraint = np.trace(x.T @ a @ x) / T, np.trace(x.T @ b @ x) / T
    assert held["used_target"] == pytest.approx(value, rel=1e-6 if way == "reduced" else 1e-8)
    assert held["used_reference"] == pytest.approx(constraint, rel=1e-5)
    assert level is not None
    assert constraint <= level * (1 + 1e-6)
    assert multiplier > 0
    bound = np.linalg.eigvalsh(a - multiplier * b)[-T:].mean() + multiplier * level
    rounding = 1e-7 if way == "reduced" else 1e-9  # whose Gram matrix is a product in float32
    assert -rounding * value <= bound - value <= 1e-4 * value
    assert bound - value <= held["duality_gap"] + rounding * value
    image = (a - multiplier * b) @ x
    assert np.linalg.norm(image - x @ (x.T @ image)) <= 1e-3 * value
    # the same span as the dense solver finds with these matrices
    dense = solve_contrast(a, b, level, T, block=True)
    assert np.degrees(subspace_angles(dense.directions, x)).max() < 0.1


def tied(width: int, columns: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (200, width) of both: the target's leading eigenvalue is ``columns``-fold, the reference is general."""
    random = np.random.default_rng(3)
    basis = np.linalg.qr(random.standard_normal((200, width)))[0]
    strengths = np.r_[np.ones(columns), 0.8 ** np.arange(1, width - columns + 1)]
    other = random.standard_normal((200, width)) * 0.9 ** np.arange(width)
    return torch.from_numpy(basis * np.sqrt(strengths / 10)), torch.from_numpy(other / np.linalg.norm(other))


def on(form: str, a: torch.Tensor, b: torch.Tensor, **settings: float) -> tuple[Contrast, Matrix]:
    """What the operators of a form give, and their directions over samples."""
    whole = torch.cat([a, b], dim=1)
    pair = {
        "dense": lambda: DensePair(a @ a.T, b @ b.T),
        "sample": lambda: FeaturePair(a, b),
        "reduced": lambda: GramPair(whole.T @ whole, a.shape[1]),
    }[form]()
    contrast = solve_operators(pair, tolerance=1e-7, **settings)  # type: ignore[arg-type]
    return contrast, whole.numpy() @ contrast.directions if form == "reduced" else contrast.directions


@pytest.mark.parametrize("form", ["dense", "sample", "reduced"])
def test_one_span_where_eigenvalues_coincide(form: str) -> None:
    a, b = tied(30)
    _, x = on(form, a, b, epsilon=1.0, n_directions=3)
    leading = a[:, :3].numpy() / np.linalg.norm(a[:, :3].numpy(), axis=0)
    assert np.linalg.svd(leading.T @ x, compute_uv=False).min() > 1 - 1e-6


@pytest.mark.parametrize("form", ["dense", "sample", "reduced"])
def test_optimum_in_epsilon_on_every_form(form: str) -> None:
    """Both matrices have one leading eigenvector, so that the optimum rises until epsilon is lambda_max(B)."""
    a, b = tied(30, columns=1)
    leading = a[:, :1] / torch.linalg.vector_norm(a[:, :1])
    b = torch.cat([leading, b - leading @ (leading.T @ b)], dim=1)
    results = [on(form, a, b, epsilon=level)[0] for level in np.linspace(0.1, 0.9, 9)]
    values = np.array([result.target[0] for result in results])
    steps, tolerance = np.diff(values), 1e-6 * values.max()
    assert (steps > tolerance).all()
    assert (np.diff(steps) <= tolerance).all()
    # the multiplier is the slope
    slopes, multipliers = steps / 0.1, np.array([result.multiplier[0] for result in results])
    assert (multipliers[:-1] >= slopes - 1e-5).all()
    assert (multipliers[1:] <= slopes + 1e-5).all()
    free, x = on(form, a, b, epsilon=1 + 1e-9)
    assert free.multiplier[0] == 0
    assert abs(leading.numpy()[:, 0] @ x[:, 0]) > 1 - 1e-6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_leading_eigenvalue_of_3000_frequencies(seed: int) -> None:
    """|sum_i v_i exp(i phase_i)|^2 / n lies in 0 .. 1 with mean .15: no larger deviation of its mean over 3,000."""
    for role, model in models().items():
        width = found("dense").bandwidths[role]
        vectors = {"image": torch.from_numpy(model.image), "text": torch.from_numpy(model.text)}
        phi = FourierFeatures.draw({"image": 32, "text": 16}, width["sigmas"], 3000, seed)(vectors).numpy() / np.sqrt(N)
        shift = np.linalg.eigvalsh(phi @ phi.T)[-1] - width["lambda_max"]
        assert abs(shift) <= np.sqrt(0.15 * 0.85 / 3000)


def groups(result: Discrepancies, least: int = 8) -> list[set[int]]:
    return [set(part.id.astype(int)) for _, part in result.subsets.groupby("group") if len(part) >= least]


def purity(result: Discrepancies, topic: int) -> float:
    return max((float(np.mean(TOPIC[list(part)] == topic)) for part in groups(result)), default=0.0)


def test_frequency_seeds_agree() -> None:
    """The span of the three planted directions, and the groups."""
    results = [found("sample", n_features=2000, seed=seed, n_directions=3) for seed in range(3)]
    for k, one in enumerate(results):
        for other in results[:k]:
            assert np.degrees(subspace_angles(one.directions, other.directions)).max() < 15
            for topic in LOST:
                mine, theirs = (
                    max(groups(r), key=lambda part: np.sum(TOPIC[list(part)] == topic)) for r in (one, other)
                )
                assert len(mine & theirs) / len(mine | theirs) > 0.9


def test_both_halves_of_the_samples_return_the_planted_groups() -> None:
    for rows in np.split(np.random.default_rng(1).permutation(N), 2):
        ids = tuple(str(row) for row in np.sort(rows))
        half = [model.aligned_to(models()["target"].ids) for model in models().values()]
        pair = [Embeddings(m.image[np.sort(rows)], m.text[np.sort(rows)], ids=ids) for m in half]  # type: ignore[index]
        result = find_discrepancies(*pair, n_directions=T, halves=0)
        assert min(purity(result, topic) for topic in LOST) > 0.9


@pytest.mark.parametrize("way", WAYS)
def test_scrambled_topics_are_returned_one_way_only(way: str) -> None:
    assert min(purity(found(way), topic) for topic in LOST) > 0.9
    reverse = found(way, "reference", "target")
    assert max(purity(reverse, topic) for topic in range(len(SIZES))) < 0.75
    assert reverse.subspace["used_target"] < found(way).subspace["used_target"]


@pytest.mark.parametrize("q", [0.7, 0.9])
def test_exact_quotients_are_at_least_those_of_spec(q: float) -> None:
    """The paper's epsilon, a quantile of the eigenvalues of the reference's covariance, on SPEC's own features."""
    spec = found("sample", multiplier=1.0)
    covariance = features(spec)["reference"].T @ features(spec)["reference"]
    ours = found("sample", epsilon=float(np.quantile(np.linalg.eigvalsh(covariance), q)))
    for kind in ("used", "coherence"):
        mine, theirs = (r.subspace[f"{kind}_target"] / r.subspace[f"{kind}_reference"] for r in (ours, spec))
        assert mine >= theirs
