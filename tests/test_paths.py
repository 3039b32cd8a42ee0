"""Kernels and paths of find_discrepancies: all lead to the same groups, and all report exact kernel values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity, polynomial_kernel

from koda_audit import Embeddings, find_discrepancies
from koda_audit._features.fourier import FourierFeatures
from koda_audit.discrepancy.choices import plan
from koda_audit.embeddings.files import ALONE, Shard, write_manifest, write_shard
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
    # the reduced path takes no more columns than there are samples: 4r of the Gaussian kernel, 2l of the others
    count = {"dense": 1, "sample": 1000, "reduced": 58 if kernel == "rbf" else 117}[path]
    found = find_discrepancies(*pair, halves=0, kernel=kernel, path=path, n_features=count, n_directions=6)
    best = sorted(purities(found))
    if path != "reduced":
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
        find_discrepancies(*pair, halves=0, path=path, n_features=20, n_directions=3) for path in ("sample", "reduced")
    )
    assert (np.abs((sample.directions * reduced.directions).sum(axis=0)) > 1 - 1e-6).all()
    np.testing.assert_allclose(sample.frame.used_target, reduced.frame.used_target, rtol=1e-6)


def test_more_features_come_closer_to_the_exact_kernel(pair: tuple[Embeddings, Embeddings]) -> None:
    errors = []
    for count in (30, 300, 3000):
        frame = find_discrepancies(*pair, halves=0, path="sample", n_features=count, n_directions=3).frame
        errors.append(float((frame.used_target - frame.coherence_target).abs().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_chunks_do_not_matter(pair: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_discrepancies(*pair, halves=0, path="reduced", n_features=50, n_directions=2)
    monkeypatch.setattr("koda_audit.discrepancy.paths.CHUNK", 7)
    parts = find_discrepancies(*pair, halves=0, path="reduced", n_features=50, n_directions=2)
    np.testing.assert_allclose(whole.frame.used_target, parts.frame.used_target, rtol=1e-8)


@pytest.mark.parametrize(
    ("n", "features", "path", "chosen"),
    [
        (5_000, "auto", "auto", "dense"),
        (50_000, "auto", "auto", "reduced"),
        (5_000, "random", "auto", "sample"),
        (15_000, "exact", "auto", "dense"),
        (50_000, "auto", "sample", "sample"),
        (15_000, "auto", "reduced", "reduced"),
    ],
)
def test_the_path_is_chosen_by_size_and_can_be_forced(
    n: int, features: str, path: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koda_audit.discrepancy.choices.available_memory", lambda device: 16 * 2**30)
    assert plan(n, n_directions=1, features=features, path=path).path == chosen


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
        ({"preset": "papr"}, "unknown preset 'papr': did you mean 'paper'"),
        ({"preset": "paper", "epsilon": 0.1}, "preset='paper' sets epsilon and takes random features: leave out"),
        ({"preset": "paper", "features": "exact"}, "preset='paper' sets epsilon and takes random features: leave out"),
        ({"preset": "paper"}, "is 0 with 240 samples, .* take more than 3,000 samples, fewer n_features"),
        ({"epsilon_quantile": 0.5, "epsilon": 0.1}, "give one of epsilon, epsilon_quantile and multiplier"),
        ({"epsilon_quantile": 0.5, "multiplier": 1.0}, "give one of epsilon, epsilon_quantile and multiplier"),
        ({"epsilon_quantile": 1.5}, "epsilon_quantile is 1.5: expected a number from 0 to 1"),
        ({"epsilon_quantile": "half"}, "epsilon_quantile is 'half': expected a number from 0 to 1"),
        ({"device": "gpu"}, "device is 'gpu': expected 'cpu', 'cuda' or 'cuda:N'"),
        ({"device": "meta"}, "device is 'meta': expected 'cpu' or 'cuda'"),
        ({"device": "cuda:99"}, r"device is 'cuda:99', but torch finds \d+ CUDA devices: use 'cpu'"),
        ({"path": "reduced"}, "needs at least 12,010 samples, and there are 240: take path='sample'"),
        ({"path": "sample", "n_features": 10**9}, "on the sample path, and .* take fewer samples or fewer n_features"),
        ({"path": "sample", "n_features": 10**400}, "expected a whole number from 1 to 4294967295"),
    ],
)
def test_bad_choices(pair: tuple[Embeddings, Embeddings], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_discrepancies(*pair, halves=0, **arguments)  # type: ignore[arg-type]


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", ["dense", "sample", "reduced"])
def test_shards_on_disk_and_devices_give_the_same(
    pair: tuple[Embeddings, Embeddings], path: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captions out of order, ids out of order, several captions an image, blocks and chunks across shards."""
    monkeypatch.setattr("koda_audit._kernels.blocks.BLOCK", 50)
    monkeypatch.setattr("koda_audit.discrepancy.paths.CHUNK", 70)
    settings = {"path": path, "n_features": 50, "n_directions": 2, "halves": 0}
    expected = find_discrepancies(*(in_float32(model) for model in pair), device="cpu", **settings)
    order = np.random.default_rng(0).permutation(N)
    stored = []
    for number, model in enumerate(pair):
        folder = tmp_path / str(number)
        shards = []
        for index, rows in enumerate(np.array_split(order if number else np.arange(N), 5)):
            several = np.concatenate([model.text[rows], model.text[rows] + 1])
            shard = Shard(
                tuple(str(row) for row in rows), model.image[rows], several, (*range(len(rows)), *range(len(rows)))
            )
            write_shard(folder, index, shard, ALONE)
            shards.append(shard)
        write_manifest(folder, {}, len(shards), None, ALONE)
        stored.append(Embeddings.load(folder))
    found = find_discrepancies(*stored, device=device, **settings)
    pd.testing.assert_frame_equal(found.frame, expected.frame, rtol=1e-6, atol=1e-9)
    assert found.subsets.drop(columns="weight").equals(expected.subsets.drop(columns="weight"))


def in_float32(model: Embeddings) -> Embeddings:
    return Embeddings(np.float32(model.image), np.float32(model.text))


@pytest.mark.parametrize("path", ["sample", "reduced", "dense"])
def test_epsilon_as_a_quantile_of_the_references_eigenvalues(pair: tuple[Embeddings, Embeddings], path: str) -> None:
    found = find_discrepancies(*pair, halves=0, path=path, n_features=59, n_directions=2, epsilon_quantile=0.7)
    if path == "dense":
        eigenvalues = np.linalg.eigvalsh(gram("rbf", pair[1], found.bandwidths["reference"]["sigmas"]))
        assert (
            found.settings["epsilon_rule"]
            == "0.7 quantile of the 240 eigenvalues of the reference's exact kernel matrix"
        )
    else:
        sigmas = found.bandwidths["reference"]["sigmas"]
        map = FourierFeatures.draw({"image": 12, "text": 6}, sigmas, 59, seed=1)
        features = map({"image": torch.from_numpy(pair[1].image), "text": torch.from_numpy(pair[1].text)})
        eigenvalues = np.linalg.eigvalsh((features.T @ features / N).numpy())
    assert found.epsilon == pytest.approx(np.quantile(eigenvalues, 0.7), rel=1e-6)
    assert found.settings["epsilon_times_n"] == pytest.approx(N * found.epsilon)
    assert found.settings["epsilon_over_lambda_max"] == pytest.approx(found.epsilon / found.spectrum.reference[0])
    assert (found.frame.used_reference <= found.epsilon * (1 + 1e-6)).all()


def test_the_largest_quantile_asks_for_nothing(pair: tuple[Embeddings, Embeddings]) -> None:
    """At q = 1 epsilon is the reference's leading eigenvalue, so that the first direction is the target's own."""
    found = find_discrepancies(*pair, halves=0, path="dense", n_directions=1, epsilon_quantile=1.0)
    assert found.frame.multiplier[0] == 0
    assert found.frame.coherence_target[0] == pytest.approx(found.spectrum.target[0], rel=1e-9)


def test_the_paper_preset(pair: tuple[Embeddings, Embeddings]) -> None:
    """Random features, the median eigenvalue, and directions that are leading eigenvectors at their own multiplier."""
    found = find_discrepancies(*pair, halves=0, n_features=100, n_directions=3, preset="paper")
    same = find_discrepancies(*pair, halves=0, features="random", n_features=100, n_directions=3, epsilon_quantile=0.5)
    assert (found.settings["preset"], found.settings["path"], found.epsilon) == ("paper", "sample", same.epsilon)
    # here no eigenvalue is multiple, so the paper's rule reaches the optimum too
    np.testing.assert_allclose(found.frame.used_target, same.frame.used_target, rtol=1e-5)
    assert (found.frame.used_reference <= found.epsilon * (1 + 1e-9)).all()
