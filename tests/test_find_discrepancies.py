"""Directions, lobes and samples from two models' embeddings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from koda_audit import Embeddings, find_discrepancies
from koda_audit._contrast.solve import FewerDirections
from koda_audit.discrepancy import memory
from koda_audit.errors import DataError, InputError

N = 90
GROUPS = [np.arange(0, 15), np.arange(15, 30), np.arange(30, 45)]


def models(seed=0, n=N, groups=GROUPS):
    """Image and text of a model that holds the groups together, and of one that does not."""
    random = np.random.default_rng(seed)
    reference = [random.standard_normal((n, 12)), 4 * random.standard_normal((n, 6))]
    target = [part + random.standard_normal(part.shape) for part in reference]
    for part in target:
        for group in groups:
            part[group] = part[group[0]] + 0.15 * part.std() * random.standard_normal((len(group), part.shape[1]))
    return Embeddings(*target), Embeddings(*reference)


def best_purity(found, group, least=1):
    """The largest share of ``group`` among the samples of any lobe of at least ``least`` of them."""
    lobes = [set(part.id.astype(int)) for _, part in found.subsets.groupby(["direction", "lobe"])]
    return max(len(lobe & set(group.tolist())) / len(lobe) for lobe in lobes if len(lobe) >= least)


@pytest.fixture(scope="module")
def pair():
    return models()


@pytest.fixture(scope="module")
def found(pair):
    return find_discrepancies(*pair, n_directions=4, halves=0)


@pytest.mark.parametrize("modality", ["joint", "image", "text"])
def test_planted_groups_are_returned_with_purity(pair, modality):
    found = find_discrepancies(*pair, modality=modality, n_directions=4, halves=0)
    for group in GROUPS:
        assert best_purity(found, group, least=8) >= 0.9
    assert found.frame.duality_gap.max() <= 1e-9


def kernels(pair, found):
    """K/n of both models from SciPy's distances and the reported widths."""
    return [
        np.exp(
            -cdist(model.image, model.image, "sqeuclidean") / (2 * found.bandwidths[role]["sigmas"]["image"] ** 2)
            - cdist(model.text, model.text, "sqeuclidean") / (2 * found.bandwidths[role]["sigmas"]["text"] ** 2)
        )
        / len(model)
        for role, model in zip(("target", "reference"), pair, strict=True)
    ]


def test_a_planted_group_stands_out_at_any_width(found):
    best = found.frame.sort_values("excess").iloc[-1]
    assert best.excess > best.excess_narrower > 0
    assert best.excess_wider > 0
    same = find_discrepancies(models()[0], models()[0], n_directions=2)
    assert same.frame[["excess", "excess_narrower", "excess_wider"]].abs().max(axis=None) == 0


def test_a_width_that_cannot_be_reached_is_not_a_number(pair):
    few = [Embeddings(model.image[:13], ids=model.ids[:13]) for model in pair]
    frame = find_discrepancies(*few, modality="image", n_directions=1).frame
    assert frame.excess_narrower.isna().all()  # 13 samples: the leading eigenvalue is never below 1/13 = .077 > .075
    assert frame.excess_wider.notna().all()


def test_every_number_from_the_kernels(pair, found):
    a, b = kernels(pair, found)
    assert len(found.frame) == 8
    for row in found.frame.itertuples():
        x = found.directions[:, row.direction - 1]
        assert row.coherence_target == pytest.approx(x @ a @ x, rel=1e-9)
        assert row.coherence_reference == pytest.approx(x @ b @ x, rel=1e-9)
        assert row.coherence_reference <= 2 / N * (1 + 1e-9)
        part = found.subsets.query("direction == @row.direction and lobe == @row.lobe")
        rows = part.id.astype(int).to_numpy()
        sign = 1 if row.lobe == "positive" else -1
        np.testing.assert_array_equal(part.weight, sign * x[rows])
        assert part["rank"].tolist() == list(range(1, row.n + 1))
        assert (np.diff(part.weight) <= 0).all()
        w = np.zeros(N)
        w[rows] = x[rows] / np.linalg.norm(x[rows])
        assert row.lobe_coherence_target == pytest.approx(w @ a @ w, rel=1e-9)
        assert row.lobe_coherence_reference == pytest.approx(w @ b @ w, rel=1e-9)
        assert row.excess == row.lobe_coherence_target - row.lobe_coherence_reference
        i, j = np.triu_indices(row.n, 1)
        assert row.similarity_target == pytest.approx(N * a[rows[i], rows[j]].mean(), rel=1e-9)
        assert row.similarity_reference == pytest.approx(N * b[rows[i], rows[j]].mean(), rel=1e-9)
        kept = sign * x >= 2 / np.sqrt(N)
        assert row.n == max(kept.sum(), 3)


def test_spectrum_and_widths_are_those_of_both_models(pair, found):
    for role, gram in zip(("target", "reference"), kernels(pair, found), strict=True):
        np.testing.assert_allclose(found.spectrum[role], np.linalg.eigvalsh(gram)[::-1][:20], rtol=1e-8)
        assert found.bandwidths[role]["lambda_max"] == pytest.approx(0.15, rel=1e-9)


def test_directions_are_orthonormal_and_oriented(found):
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(4), atol=1e-12)
    assert (found.directions.max(axis=0) >= -found.directions.min(axis=0)).all()


def test_the_order_of_the_reference_does_not_matter(pair, found):
    shuffled = pair[1].aligned_to(tuple(np.random.default_rng(1).permutation(pair[1].ids)))
    pd.testing.assert_frame_equal(find_discrepancies(pair[0], shuffled, n_directions=4, halves=0).frame, found.frame)


def test_the_units_of_a_model_do_not_matter(pair, found):
    scaled = Embeddings(1000 * pair[0].image, 0.01 * pair[0].text)
    frame = find_discrepancies(scaled, pair[1], n_directions=4, halves=0).frame
    np.testing.assert_allclose(frame.coherence_target, found.frame.coherence_target, rtol=1e-7)


def test_a_model_against_itself_has_no_excess(pair):
    frame = find_discrepancies(pair[1], pair[1], n_directions=3).frame
    np.testing.assert_allclose(frame.excess, 0, atol=1e-15)
    np.testing.assert_allclose(frame.coherence_target, 2 / N, rtol=1e-9)


def test_fixed_multiplier(pair):
    a, b = kernels(pair, found := find_discrepancies(*pair, n_directions=3, multiplier=1.0))
    objective = found.frame.groupby("direction").first().eval("coherence_target - coherence_reference")
    np.testing.assert_allclose(objective, np.linalg.eigvalsh(a - b)[::-1][:3], rtol=1e-9)
    assert found.epsilon is None
    assert found.frame.epsilon.isna().all()


def test_fewer_directions_when_epsilon_runs_out(pair):
    with pytest.warns(FewerDirections, match="of 80 directions"):
        found = find_discrepancies(*pair, n_directions=80, epsilon=0.004, halves=0)
    assert 1 <= found.directions.shape[1] < 80
    assert found.frame.direction.max() == found.directions.shape[1]


def test_saved_files_hold_the_same(found, tmp_path):
    for _ in range(2):
        found.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "directions.npy",
        "frame.csv",
        "settings.json",
        "subsets.csv",
    ]
    np.testing.assert_array_equal(np.load(tmp_path / "out/directions.npy"), found.directions)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out/frame.csv"), found.frame, rtol=1e-12)
    assert len(pd.read_csv(tmp_path / "out/subsets.csv")) == len(found.subsets)
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert {key: settings[key] for key in found.settings} == found.settings
    assert settings["epsilon"] == 2 / N
    assert settings["bandwidths"]["target"]["rows"] == N


def test_class_prompts_stand_in_for_captions():
    random = np.random.default_rng(0)
    image, labels = random.standard_normal((40, 5)), np.arange(40) % 10
    first, second = (Embeddings(image, labels=labels, class_text=random.standard_normal((10, 4))) for _ in range(2))
    assert find_discrepancies(first, second, n_directions=1).settings["modality"] == "joint"


def only_image(n=20):
    return Embeddings(np.random.default_rng(n).standard_normal((n, 4)))


FAULTS = [
    (only_image(), {}, "the target has no text, which modality='joint' needs: use modality='image'"),
    (only_image(), {"modality": "imge"}, "unknown modality 'imge': did you mean 'image'"),
    (only_image(), {"modality": "image", "kernel": "rbv"}, "unknown kernel 'rbv': did you mean 'rbf'"),
    (only_image(), {"modality": "image", "features": "exac"}, "unknown features 'exac': did you mean 'exact'"),
    (only_image(), {"modality": "image", "epsilon": -1}, "epsilon is -1"),
    (only_image(), {"modality": "image", "epsilon": 1e-9}, "epsilon 1e-09 is below the smallest feasible value 0.0"),
    (only_image(), {"modality": "image", "multiplier": -1}, "multiplier is -1"),
    (only_image(), {"modality": "image", "epsilon": 0.1, "multiplier": 1}, "give either epsilon"),
    (only_image(), {"modality": "image", "n_directions": 19}, "at most n - 2 = 18"),
    (only_image(), {"modality": "image", "seed": -1}, "seed is -1"),
    (
        only_image(5),
        {"modality": "image", "n_directions": 1},
        "5 samples are too few .*: at least 7",
    ),
    (Embeddings(np.ones((9, 2))), {"modality": "image", "n_directions": 1}, "the image embeddings are constant"),
    (np.ones((9, 2)), {"modality": "image"}, "the target is of type ndarray: expected koda_audit.Embeddings"),
]


@pytest.mark.parametrize(("model", "options", "message"), FAULTS)
def test_faults_are_named(model, options, message):
    with pytest.raises(InputError, match=message):
        find_discrepancies(model, model, **options)


def test_ids_must_match():
    other = Embeddings(only_image().image, ids=[f"x{i}" for i in range(20)])
    with pytest.raises(DataError, match="20 missing"):
        find_discrepancies(only_image(), other, modality="image")


def test_memory_is_checked_before_any_matrix(monkeypatch):
    assert memory.available_memory() > 0
    monkeypatch.setattr("koda_audit.discrepancy.choices.available_memory", lambda device: 10_000)
    with pytest.raises(InputError, match=r"20 samples need 19,200 bytes .* dense path, and 10,000 .* fewer samples"):
        find_discrepancies(only_image(), only_image(), modality="image", features="exact")


def test_groups_lost_on_real_clip_features():
    """Three groups of like captions and images, mutually unlike, whose rows say nothing in the reference."""
    folder = os.environ.get("KODA_AUDIT_FIXTURES")
    if not folder:
        pytest.skip("KODA_AUDIT_FIXTURES names no folder with features_clip.npy")
    features = np.load(Path(folder) / "features_clip.npy")
    centred = features - features.mean(axis=1, keepdims=True)
    both = np.concatenate(list(centred), axis=1)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    cosine = both @ both.T
    density = np.sort(cosine, axis=1)[:, -15:].mean(axis=1)
    free, groups = np.ones(len(cosine), dtype=bool), []
    for _ in range(3):
        centre = np.argmax(np.where(free, density, -2))
        groups.append(np.argsort(-np.where(free, cosine[centre], -2))[:15])
        free &= cosine[centre] < 0.15
        free[groups[-1]] = False
    lost = features.copy()
    for group in groups:
        noise = np.random.default_rng(0).standard_normal((2, len(group), features.shape[2]))
        lost[:, group] = noise / np.linalg.norm(noise, axis=2, keepdims=True)
    found = find_discrepancies(Embeddings(*features), Embeddings(*lost), n_directions=5, halves=0)
    for group in groups:
        assert best_purity(found, group, least=8) >= 0.9
    assert found.frame.duality_gap.max() <= 1e-6
