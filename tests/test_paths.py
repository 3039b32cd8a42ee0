"""Kernels and paths of find_discrepancies: all lead to the same groups, and all report exact kernel values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity, polynomial_kernel

from koda_audit import Embeddings, find_discrepancies
from koda_audit.discrepancy.choices import choose_path
from koda_audit.errors import InputError

N, GROUPS = 240, [np.arange(0, 30), np.arange(30, 60), np.arange(60, 90)]


@pytest.fixture(scope="module")
def pair() -> tuple[Embeddings, Embeddings]:
    """The target holds three groups together in image and text, the reference does not."""
    random = np.random.default_rng(0)
    reference = [random.standard_normal((N, 12)), 4 * random.standard_normal((N, 6))]
    target = [part + random.standard_normal(part.shape) for part in reference]
    for part in target:
        for group in GROUPS:
            part[group] = part[group[0]] + 0.2 * part.std() * random.standard_normal((len(group), part.shape[1]))
    return Embeddings(*target), Embeddings(*reference)


def purities(found: object) -> list[float]:
    """For each group the largest share of it in a lobe of at least 8 samples."""
    lobes = [set(part.id.astype(int)) for _, part in found.subsets.groupby(["direction", "lobe"])]  # type: ignore[attr-defined]
    return [max(len(lobe & set(group.tolist())) / len(lobe) for lobe in lobes if len(lobe) >= 8) for group in GROUPS]


def gram(kernel: str, model: Embeddings, sigmas: dict[str, float]) -> np.ndarray:
    """K/n by scikit-learn."""
    factors = []
    for name, x in (("image", model.image), ("text", model.text)):
        if kernel == "rbf":
            squares = ((x[:, None] - x[None]) ** 2).sum(-1)
            factors.append(np.exp(-squares / (2 * sigmas[name] ** 2)))
        elif kernel == "cosine":
            factors.append(cosine_similarity(x))
        else:
            k = polynomial_kernel(x, degree=3, gamma=1 / x.shape[1], coef0=1)
            factors.append(k / np.sqrt(np.outer(np.diag(k), np.diag(k))))
    return factors[0] * factors[1] / N


@pytest.mark.parametrize("kernel", ["rbf", "cosine", "polynomial"])
@pytest.mark.parametrize("path", ["dense", "sample", "reduced"])
def test_every_kernel_on_every_path(pair: tuple[Embeddings, Embeddings], kernel: str, path: str) -> None:
    found = find_discrepancies(*pair, kernel=kernel, path=path, n_features=1000, n_directions=6)
    best = sorted(purities(found))
    assert best[2] >= 0.9
    assert best[1] >= 0.75  # random features of 240 samples mix the others a little
    assert (found.frame.duality_gap <= 1e-4 * found.frame.used_target).all()
    assert (found.frame.used_reference <= found.epsilon * (1 + 1e-6)).all()
    # what the frame calls coherence is that of the exact kernel, whatever the directions were found with
    for role, model in zip(("target", "reference"), pair, strict=True):
        k = gram(kernel, model, found.bandwidths.get(role, {}).get("sigmas", {}))
        exact = np.einsum("it,ij,jt->t", found.directions, k, found.directions)
        np.testing.assert_allclose(found.frame.groupby("direction")[f"coherence_{role}"].first(), exact, rtol=1e-9)
        if path == "dense":
            used = found.frame.groupby("direction")[f"used_{role}"].first()
            np.testing.assert_allclose(used, exact, rtol=1e-6)
        np.testing.assert_allclose(found.spectrum[role], np.linalg.eigvalsh(k)[::-1][:20], rtol=1e-8, atol=1e-12)
    assert np.allclose(found.directions.T @ found.directions, np.eye(6), atol=1e-9)


def test_sample_and_reduced_are_the_same_problem(pair: tuple[Embeddings, Embeddings]) -> None:
    sample, reduced = (
        find_discrepancies(*pair, path=path, n_features=20, n_directions=3) for path in ("sample", "reduced")
    )
    assert (np.abs((sample.directions * reduced.directions).sum(axis=0)) > 1 - 1e-6).all()
    np.testing.assert_allclose(sample.frame.used_target, reduced.frame.used_target, rtol=1e-6)


def test_more_features_come_closer_to_the_exact_kernel(pair: tuple[Embeddings, Embeddings]) -> None:
    errors = []
    for count in (30, 300, 3000):
        frame = find_discrepancies(*pair, path="reduced", n_features=count, n_directions=3).frame
        errors.append(float((frame.used_target - frame.coherence_target).abs().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_chunks_do_not_matter(pair: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_discrepancies(*pair, path="reduced", n_features=50, n_directions=2)
    monkeypatch.setattr("koda_audit.discrepancy.paths.CHUNK", 7)
    parts = find_discrepancies(*pair, path="reduced", n_features=50, n_directions=2)
    np.testing.assert_allclose(whole.frame.used_target, parts.frame.used_target, rtol=1e-8)


@pytest.mark.parametrize(
    ("n", "features", "path", "chosen"),
    [
        (5_000, "auto", "auto", "dense"),
        (50_000, "auto", "auto", "reduced"),
        (5_000, "random", "auto", "sample"),
        (50_000, "exact", "auto", "dense"),
        (5_000, "auto", "reduced", "reduced"),
    ],
)
def test_the_path_is_chosen_by_size_and_can_be_forced(
    n: int, features: str, path: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koda_audit.discrepancy.choices.available_memory", lambda: 16 * 2**30)
    assert choose_path(n, "rbf", features, path, 3000) == chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "dens"}, "unknown path 'dens': did you mean 'dense'"),
        ({"features": "randm"}, "unknown features 'randm': did you mean 'random'"),
        ({"kernel": "cosin"}, "unknown kernel 'cosin': did you mean 'cosine'"),
        ({"features": "exact", "path": "reduced"}, "features='exact' cannot take path='reduced'"),
        ({"features": "random", "path": "dense"}, "features='random' cannot take path='dense'"),
        ({"path": "reduced", "n_features": 0}, "n_features is 0"),
        ({"path": "reduced", "n_features": 2.5}, "n_features is 2.5: expected a whole number"),
        ({"path": "reduced", "n_features": 10**6}, "on the reduced path, and .* fewer n_features"),
    ],
)
def test_bad_choices(pair: tuple[Embeddings, Embeddings], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_discrepancies(*pair, **arguments)  # type: ignore[arg-type]
