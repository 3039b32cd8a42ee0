"""Kernels and paths of find_discrepancies: all lead to the same groups, and all report exact kernel values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.metrics.pairwise import cosine_similarity, polynomial_kernel

from koda_audit import Embeddings, find_discrepancies
from koda_audit._contrast.direction import BelowFloor
from koda_audit._features.fourier import FourierFeatures
from koda_audit.discrepancy.choices import plan
from koda_audit.discrepancy.memory import _of_container
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.search import search
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


def purities(found: Discrepancies) -> list[float]:
    """For each planted group the largest share of it in a group of at least 8 samples."""
    parts = [set(part.id.astype(int)) for _, part in found.subsets.groupby("group")]
    return [max(len(part & set(group.tolist())) / len(part) for part in parts if len(part) >= 8) for group in GROUPS]


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
    held = found.subspace
    assert held["duality_gap"] <= 1e-4 * held["used_target"]
    assert held["used_reference"] <= found.epsilon * (1 + 1e-6)
    assert np.allclose(found.directions.T @ found.directions, np.eye(len(found.groups)), atol=1e-9)
    for role, model in zip(("target", "reference"), pair, strict=True):
        k = gram(kernel, model, found.bandwidths.get(role, {}).get("sigmas", {}))
        np.testing.assert_allclose(found.spectrum[role], np.linalg.eigvalsh(k)[::-1][:20], rtol=1e-8, atol=1e-12)
        # what is called coherence is that of the exact kernel, whatever the directions were found with
        if len(found.groups) == 6:
            exact = np.einsum("it,ij,jt->t", found.directions, k, found.directions)
            assert held[f"coherence_{role}"] == pytest.approx(exact.mean(), rel=1e-9)
        for number, part in found.subsets.groupby("group"):
            rows = part.id.astype(int).to_numpy()
            w = part.weight.to_numpy() / np.linalg.norm(part.weight)
            expected = w @ k[np.ix_(rows, rows)] @ w
            assert found.groups[f"coherence_{role}"][number - 1] == pytest.approx(expected, rel=1e-9)
        if path == "dense":
            assert held[f"used_{role}"] == pytest.approx(held[f"coherence_{role}"], rel=1e-6)


def test_sample_and_reduced_are_the_same_problem(pair: tuple[Embeddings, Embeddings]) -> None:
    sample, reduced = (
        find_discrepancies(*pair, halves=0, path=path, n_features=20, n_directions=3) for path in ("sample", "reduced")
    )
    assert sample.subspace == pytest.approx(reduced.subspace, rel=1e-5, abs=1e-8)
    # the same span; each column within what the turn leaves open
    assert np.linalg.svd(sample.directions.T @ reduced.directions, compute_uv=False).min() > 1 - 1e-6
    np.testing.assert_allclose(np.abs(sample.directions.T @ reduced.directions).max(axis=0), 1, atol=1e-3)


def test_more_features_come_closer_to_the_exact_kernel(pair: tuple[Embeddings, Embeddings]) -> None:
    errors = []
    for count in (30, 300, 3000):
        held = find_discrepancies(*pair, halves=0, path="sample", n_features=count, n_directions=3).subspace
        errors.append(abs(held["used_target"] - held["coherence_target"]))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_chunks_do_not_matter(pair: tuple[Embeddings, Embeddings], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_discrepancies(*pair, halves=0, path="reduced", n_features=50, n_directions=2)
    monkeypatch.setattr("koda_audit.discrepancy.paths.CHUNK", 7)
    parts = find_discrepancies(*pair, halves=0, path="reduced", n_features=50, n_directions=2)
    # sums of products in float32 are another order's
    assert whole.subspace == pytest.approx(parts.subspace, rel=1e-6, abs=1e-8)


def test_paths_find_the_same_groups(pair: tuple[Embeddings, Embeddings]) -> None:
    """Exact, and by enough random features of either kind."""
    planted = [set(group.tolist()) for group in GROUPS]
    for settings in ({"path": "dense"}, {"path": "sample", "n_features": 2000}, {"path": "reduced", "n_features": 58}):
        found = find_discrepancies(*pair, n_directions=3, halves=8, **settings)  # type: ignore[arg-type]
        findings = found.subsets[found.subsets.finding.astype(bool)]
        parts = [set(part.id.astype(int)) for _, part in findings.groupby("group")]
        best = [max(len(part & group) / len(part | group) for part in parts) for group in planted]
        assert min(best) >= (0.9 if settings["path"] != "reduced" else 0.6), settings


def test_halves_of_any_path_are_those_of_the_exact_kernel(pair: tuple[Embeddings, Embeddings]) -> None:
    """The pool is exact, so that the path changes a stability only by its columns and its multiplier."""
    results = [
        find_discrepancies(*pair, n_directions=3, multiplier=1.0, halves=8, **settings)  # type: ignore[arg-type]
        for settings in ({"path": "dense"}, {"path": "sample", "n_features": 3000})
    ]
    stabilities = [np.sort(found.groups.stability)[::-1] for found in results]
    np.testing.assert_allclose(*stabilities, atol=0.02)


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
        ({"path": "reduced"}, "needs at least 12,060 samples, and there are 240: take path='sample'"),
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
    # quality takes the first caption of each, as the one model has none but that
    names = [name for name in expected.groups if "recall" not in name]
    pd.testing.assert_frame_equal(found.groups[names], expected.groups[names], rtol=1e-6, atol=1e-9)
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
    assert found.subspace["used_reference"] <= found.epsilon * (1 + 1e-6)


def test_the_largest_quantile_asks_for_nothing(pair: tuple[Embeddings, Embeddings]) -> None:
    """At q = 1 epsilon is the reference's leading eigenvalue, so that the first direction is the target's own."""
    found = find_discrepancies(*pair, halves=0, path="dense", n_directions=1, epsilon_quantile=1.0)
    assert found.subspace["multiplier"] == 0
    assert found.subspace["coherence_target"] == pytest.approx(found.spectrum.target[0], rel=1e-9)


def test_the_paper_preset(pair: tuple[Embeddings, Embeddings]) -> None:
    """Random features, the median eigenvalue, directions one after the other, fifty samples of each."""
    found = find_discrepancies(*pair, n_features=100, n_directions=3, preset="paper")
    same = find_discrepancies(*pair, halves=0, features="random", n_features=100, n_directions=3, epsilon_quantile=0.5)
    assert (found.settings["preset"], found.settings["path"], found.epsilon) == ("paper", "sample", same.epsilon)
    assert found.groups.n.tolist() == [50] * 3
    assert not found.groups.finding.any()
    assert found.groups.stability.isna().all()
    # each holds epsilon, so that the block, which holds it in the mean, does no worse
    assert found.subspace["used_reference"] <= found.epsilon * (1 + 1e-9)
    assert same.subspace["used_target"] >= found.subspace["used_target"] * (1 - 1e-5)
    one = [
        find_discrepancies(*pair, halves=0, n_features=100, n_directions=1, **settings).subspace  # type: ignore[arg-type]
        for settings in ({"preset": "paper"}, {"features": "random", "epsilon_quantile": 0.5})
    ]
    assert one[0]["used_target"] == pytest.approx(one[1]["used_target"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"n_directions": 5}, (5, 5)),
        ({}, (20, 8)),
        ({"n": 40}, (10, 8)),  # at least four samples a direction
        ({"n": 20}, (5, 5)),
        ({"preset": "paper", "n": 100_000}, (10, 0)),
        ({"preset": "paper", "n": 100_000, "n_directions": 3}, (3, 0)),
    ],
)
def test_how_many_directions_are_sought_and_hold_epsilon(
    arguments: dict[str, Any], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koda_audit.discrepancy.choices.available_memory", lambda device: None)
    chosen = plan(**{"n": 400, **arguments})
    assert (chosen.n_directions, chosen.block) == expected


@pytest.mark.parametrize("path", ["dense", "sample", "reduced"])
def test_more_directions_at_the_price_of_the_first_ones_span_the_same(path: str) -> None:
    random = np.random.default_rng(5)
    both = (Embeddings(random.standard_normal((90, 12))) for _ in range(2))
    found = search(*both, modality="image", path=path, n_features=8)
    more = found.with_columns(22)
    assert (found.contrast.directions.shape, more.contrast.directions.shape) == ((90, 20), (90, 22))
    # with random features as many as the target has columns: of the rest it holds nothing
    assert (found.columns.shape[1], more.columns.shape[1]) == ((20, 22) if path == "dense" else (16, 16))
    assert more.contrast.multiplier[0] == found.contrast.multiplier[0]
    np.testing.assert_allclose(more.contrast.target[:8], found.contrast.target[:8], rtol=1e-6)
    assert subspace_angles(found.columns[:, :8], more.columns[:, :8]).max() < 1e-3
    assert (more.contrast.duality_gap >= found.contrast.duality_gap.max()).all()


def test_the_path_does_not_depend_on_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koda_audit.discrepancy.choices.available_memory", lambda device: 2**30)
    with pytest.raises(InputError, match=r"10,000 samples need .* on the dense path, .* features='random'"):
        plan(10_000)


def control_groups(root: Path, limits: dict[str, str]) -> Path:
    """Folders with limits, and the file that says in which of them a process is: the last one."""
    for name, limit in limits.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "memory.max").write_text(f"{limit}\n")
        (root / name / "memory.current").write_text("3000\n")
        (root / name / "memory.stat").write_text("anon 2000\ninactive_file 500\n")
    own = root / "own"
    own.write_text(f"0::/{list(limits)[-1]}\n")
    return own


@pytest.mark.parametrize(
    ("limits", "free"),
    [
        ({"a": "10000", "a/b": "max"}, 7_500),  # that of the group around it
        ({"a": "10000", "a/b": "5000"}, 2_500),
        ({"a": "max", "a/b": "2000"}, 0),  # over its limit
        ({"a": "max"}, None),
    ],
)
def test_the_limit_of_a_container_counts(limits: dict[str, str], free: int | None, tmp_path: Path) -> None:
    assert _of_container(tmp_path, control_groups(tmp_path, limits)) == free


def test_no_limit_where_the_system_has_no_control_groups(tmp_path: Path) -> None:
    assert _of_container(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize("path", ["dense", "sample"])
@pytest.mark.parametrize("part", [1.0, 1 - 5e-7])
def test_the_smallest_feasible_epsilon_can_be_met(part: float, path: str) -> None:
    """As printed by the error, and as a caller may have rounded it."""
    random = np.random.default_rng(0)
    both = [Embeddings(random.standard_normal((60, 8))) for _ in range(2)]
    settings: Any = {"modality": "image", "path": path, "n_features": 100, "n_directions": 3, "halves": 0}
    with pytest.raises(BelowFloor, match="the mean of the 3 smallest eigenvalues") as error:
        find_discrepancies(*both, epsilon=1e-9, **settings)
    found = find_discrepancies(*both, epsilon=part * error.value.floor, **settings)
    assert found.subspace["used_reference"] == pytest.approx(error.value.floor, rel=1e-6)
