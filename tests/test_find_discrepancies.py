"""Groups of samples from two models' embeddings: planted ones are found, and what must not matter does not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from koda_audit import Embeddings, find_discrepancies
from koda_audit._contrast.solve import FewerDirections
from koda_audit.discrepancy import memory
from koda_audit.discrepancy.find import find_both_ways
from koda_audit.discrepancy.paths import Features
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.errors import DataError, InputError, StoreError

Floats = NDArray[np.float64]
Pair = tuple[Embeddings, Embeddings]
N = 90
GROUPS = [set(range(15)), set(range(15, 30)), set(range(30, 45))]


def models(seed: int = 0) -> Pair:
    """Image and text of a model that holds the groups together, and of one that does not."""
    random = np.random.default_rng(seed)
    reference = [random.standard_normal((N, 12)), 4 * random.standard_normal((N, 6))]
    target = [part + random.standard_normal(part.shape) for part in reference]
    for part in target:
        for group in map(sorted, GROUPS):
            part[group] = part[group[0]] + 0.15 * part.std() * random.standard_normal((len(group), part.shape[1]))
    return Embeddings(*target), Embeddings(*reference)


def lost(seed: int, sizes: list[int], n: int, classes: int, spread: float = 0.6) -> tuple[Pair, list[set[int]]]:
    """Two noisy views of the same groups; those of ``sizes`` are noise in the second."""
    random = np.random.default_rng(seed)
    label = np.r_[np.repeat(np.arange(len(sizes)), sizes), len(sizes) + np.arange(n - sum(sizes)) % classes]
    sides: tuple[list[Floats], list[Floats]] = ([], [])
    for width in (32, 16):
        held = random.standard_normal((label.max() + 1, width))[label] + spread * random.standard_normal((n, width))
        other = held + 0.5 * random.standard_normal((n, width))
        gone = label < len(sizes)
        other[gone] = other.std() * random.standard_normal((gone.sum(), width))
        sides[0].append(held)
        sides[1].append(other)
    return (Embeddings(*sides[0]), Embeddings(*sides[1])), [
        set(np.flatnonzero(label == group).tolist()) for group in range(len(sizes))
    ]


def sets(found: Discrepancies, findings: bool = True) -> list[set[int]]:
    chosen = found.subsets[found.subsets.finding.astype(bool)] if findings else found.subsets
    return [set(part.id.astype(int)) for _, part in chosen.groupby("group")]


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other)


def overlaps(found: Discrepancies, groups: list[set[int]], findings: bool = True) -> list[float]:
    """Of each planted group with the most similar group that was found."""
    return [max((jaccard(group, part) for part in sets(found, findings)), default=0.0) for group in groups]


@pytest.fixture(scope="module")
def pair() -> Pair:
    return models()


@pytest.fixture(scope="module")
def found(pair: Pair) -> Discrepancies:
    return find_discrepancies(*pair, n_directions=4)


@pytest.mark.parametrize("features", ["exact", "random"])
@pytest.mark.parametrize("modality", ["joint", "image", "text"])
def test_planted_groups_are_findings(modality: str, features: str, pair: Pair) -> None:
    result = find_discrepancies(*pair, modality=modality, features=features, n_features=1000, halves=8)
    assert min(overlaps(result, GROUPS)) >= 0.75
    assert result.settings["path"] == ("dense" if features == "exact" else "sample")
    assert result.subspace["n_directions"] >= 3
    for name in ("used_target", "coherence_target"):
        assert result.subspace["duality_gap"] <= 1e-4 * result.subspace[name]


@pytest.mark.parametrize("features", ["exact", "random"])
def test_groups_that_are_not_the_largest_are_findings_too(features: str) -> None:
    """10, 6 and 6 % of 240 samples, among twelve groups that both hold, of which the reference keeps about half."""
    both, groups = lost(0, [24, 15, 15], 240, 12)
    result = find_discrepancies(*both, features=features, n_features=1000, halves=12)
    assert min(overlaps(result, groups)) >= 0.75
    findings = result.groups[result.groups.finding]
    assert (findings.retention < 0.1).sum() == 3
    assert len(findings) <= 4  # and at most one union of what is half kept
    assert (findings.retention[findings.retention >= 0.1] > 0.4).all()
    assert result.groups.finding.tolist() == sorted(result.groups.finding, reverse=True)  # findings first


@pytest.mark.parametrize("seed", [0, 1])
def test_two_noisy_views_of_the_same_groups_have_no_finding(seed: int) -> None:
    both, _ = lost(seed, [], 240, 12)
    for ways in (both, both[::-1]):
        assert not find_discrepancies(*ways, halves=12).groups.finding.any()


def test_two_overlapping_factors_of_eight_levels_are_found() -> None:
    """Each sample lies in two lost groups of about 60, so that no direction of a contrast is a group."""
    random = np.random.default_rng(2)
    factors = random.integers(0, 8, (2, 480))
    held = 0.4 * random.standard_normal((480, 48))
    for factor in factors:
        held += random.standard_normal((8, 48))[factor]
    result = find_discrepancies(Embeddings(held), Embeddings(random.standard_normal((480, 48))), "image", halves=12)
    groups = [set(np.flatnonzero(factor == level).tolist()) for factor in factors for level in range(8)]
    assert sum(share >= 0.75 for share in overlaps(result, groups)) >= 14
    assert all(max(jaccard(part, group) for group in groups) >= 0.5 for part in sets(result))  # and nothing else


@pytest.mark.parametrize(("large", "small"), [(100, 20), (200, 15), (300, 15)])
def test_a_large_group_among_small_ones_is_reported_once(large: int, small: int) -> None:
    """What varies within it takes as many directions as all the others, and more of them in a half than in all."""
    both, groups = lost(0, [large, *[small] * 7], 1_000, 20)
    result = find_discrepancies(*both, halves=10)
    assert min(overlaps(result, groups)) >= 0.9
    assert sum(len(part & groups[0]) > len(part) / 2 for part in sets(result)) == 1
    assert len(sets(result)) == 8


def kernels(pair: Pair, found: Discrepancies) -> list[Floats]:
    """K/n of both models from SciPy's distances and the reported widths."""
    return [
        np.exp(
            -cdist(model.image, model.image, "sqeuclidean") / (2 * found.bandwidths[role]["sigmas"]["image"] ** 2)
            - cdist(model.text, model.text, "sqeuclidean") / (2 * found.bandwidths[role]["sigmas"]["text"] ** 2)
        )
        / len(model)
        for role, model in zip(("target", "reference"), pair, strict=True)
    ]


def test_every_number_of_a_group_from_the_kernels(pair: Pair, found: Discrepancies) -> None:
    a, b = kernels(pair, found)
    assert found.groups.group.tolist() == list(range(1, len(found.groups) + 1))
    assert found.directions.shape == (N, len(found.groups))
    for row in found.groups.itertuples():
        x = found.directions[:, row.group - 1]
        part = found.subsets[found.subsets.group == row.group]
        rows = part.id.astype(int).to_numpy()
        np.testing.assert_array_equal(part.weight, x[rows])
        assert part["rank"].tolist() == list(range(1, row.n + 1))
        assert (np.diff(part.weight) <= 0).all()
        assert set(part.finding) == {row.finding}
        sizes = np.arange(3, N + 1)
        cosines = np.sort(x)[::-1].cumsum()[2:] / np.sqrt(sizes) / np.linalg.norm(x)
        assert (row.n, row.fit) == (sizes[cosines.argmax()], pytest.approx(cosines.max()))
        w = np.zeros(N)
        w[rows] = x[rows] / np.linalg.norm(x[rows])
        assert row.coherence_target == pytest.approx(w @ a @ w, rel=1e-9)
        assert row.coherence_reference == pytest.approx(w @ b @ w, rel=1e-9)
        assert row.excess == row.coherence_target - row.coherence_reference
        assert row.loss == pytest.approx(1 - row.coherence_reference / row.coherence_target)
        i, j = np.triu_indices(row.n, 1)
        within, kept = (N * gram[rows[i], rows[j]].mean() for gram in (a, b))
        assert row.similarity_target == pytest.approx(within, rel=1e-9)
        assert row.similarity_reference == pytest.approx(kept, rel=1e-9)
        others = np.setdiff1d(np.arange(N), rows)
        across, beyond = (N * gram[np.ix_(rows, others)].mean() for gram in (a, b))
        assert row.separation == pytest.approx(1 - across / within, rel=1e-9)
        assert row.retention == pytest.approx((kept - beyond) / (within - across), rel=1e-9)
        assert row.image_share + row.text_share == pytest.approx(row.excess, rel=1e-9)


def test_the_subspace_is_an_optimum_of_the_kernels(pair: Pair, found: Discrepancies) -> None:
    """Orthonormal columns, epsilon in the mean, and no span that holds more for it: Fan's bound."""
    a, b = kernels(pair, found)
    x, held = found.directions, found.subspace
    assert held["n_directions"] == x.shape[1] == 4  # each column has a group here
    np.testing.assert_allclose(x.T @ x, np.eye(4), atol=1e-9)
    mean = np.trace(x.T @ a @ x) / 4, np.trace(x.T @ b @ x) / 4
    assert (held["coherence_target"], held["coherence_reference"]) == pytest.approx(mean, rel=1e-9)
    assert (held["used_target"], held["used_reference"]) == pytest.approx(mean, rel=1e-6)
    assert mean[1] <= found.epsilon * (1 + 1e-9)
    assert found.epsilon == 2 / N
    price = held["multiplier"]
    bound = np.linalg.eigvalsh(a - price * b)[-4:].mean() + price * found.epsilon
    assert -1e-12 <= bound - mean[0] <= held["duality_gap"] + 1e-9
    assert held["duality_gap"] <= 1e-9
    assert (x**3).sum(axis=0).min() > 0  # the sign of a column means something


def test_spectrum_and_widths_are_those_of_both_models(pair: Pair, found: Discrepancies) -> None:
    for role, gram in zip(("target", "reference"), kernels(pair, found), strict=True):
        np.testing.assert_allclose(found.spectrum[role], np.linalg.eigvalsh(gram)[::-1][:20], rtol=1e-8)
        assert found.bandwidths[role]["lambda_max"] == pytest.approx(0.15, rel=1e-9)


def shown(model: Embeddings, order: NDArray[np.int64]) -> Embeddings:
    """The same samples in another order."""
    assert model.text is not None
    return Embeddings(model.image[order], model.text[order], ids=[model.ids[row] for row in order])


def turned(values: Any, seed: int = 5) -> Floats:
    """Rotated and moved."""
    width = values.shape[1]
    rotated: Floats = values @ np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0] + 3.0
    return rotated


ORDER = np.random.default_rng(6).permutation(N)
SAME: dict[str, Callable[[Embeddings, Embeddings], Pair]] = {
    "the same call": lambda a, b: (a, b),
    "rows of the target": lambda a, b: (shown(a, ORDER), b),
    "rows of the reference": lambda a, b: (a, shown(b, ORDER)),
    "rows of both": lambda a, b: (shown(a, ORDER), shown(b, ORDER[::-1])),
    "units of the target": lambda a, b: (Embeddings(1000 * a.image, 0.01 * a.text), b),
    "units of the reference": lambda a, b: (a, Embeddings(0.001 * b.image, 7 * b.text)),
    "rotation of the target": lambda a, b: (Embeddings(turned(a.image), turned(a.text)), b),
    "rotation of the reference": lambda a, b: (a, Embeddings(turned(b.image), turned(b.text))),
}


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_matter(change: str, pair: Pair, found: Discrepancies) -> None:
    other = find_discrepancies(*SAME[change](*pair), n_directions=4)
    assert sorted(map(sorted, sets(other, False))) == sorted(map(sorted, sets(found, False)))
    place = {frozenset(part): number for number, part in enumerate(sets(other, False))}
    again = other.groups.iloc[[place[frozenset(part)] for part in sets(found, False)]].reset_index(drop=True)
    for name in ("stability", "fit", "separation", "retention", "coherence_target", "coherence_reference"):
        np.testing.assert_allclose(again[name], found.groups[name], rtol=1e-6, atol=1e-6, err_msg=name)
    assert again.verdict.tolist() == found.groups.verdict.tolist()
    for name in ("multiplier", "coherence_target"):
        assert other.subspace[name] == pytest.approx(found.subspace[name], rel=1e-7)


def test_the_order_of_the_rows_does_not_change_what_is_chosen() -> None:
    """The number of directions, the halves and the sets, where groups are less clear."""
    both, _ = lost(2, [24, 15, 15], 240, 12, spread=0.9)
    order = np.random.default_rng(7).permutation(240)
    other = find_discrepancies(shown(both[0], order), shown(both[1], order[::-1]), halves=6)
    one = find_discrepancies(*both, halves=6)
    assert one.subspace["n_directions"] == other.subspace["n_directions"]
    assert sorted(map(sorted, sets(one, False))) == sorted(map(sorted, sets(other, False)))
    np.testing.assert_allclose(np.sort(one.groups.stability), np.sort(other.groups.stability), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e20, 1e-20])
def test_directions_that_hold_nothing_are_not_read(scale: float) -> None:
    """Of 16 columns in all: beyond them a direction is any vector of a null space, which rounding and order choose."""
    random = np.random.default_rng(1)
    other = random.standard_normal((120, 8))
    held = other.copy()
    for start in (0, 12, 24):
        held[start : start + 12] = held[start] + 0.1 * random.standard_normal((12, 8))
    ids, order = [f"s{row}" for row in range(120)], random.permutation(120)
    theirs = Embeddings(other, ids=ids)
    settings: dict[str, Any] = {"modality": "image", "kernel": "cosine", "halves": 8}
    one = find_discrepancies(Embeddings(held, ids=ids), theirs, **settings)
    again = Embeddings(scale * held[order], ids=[ids[row] for row in order])
    two = find_discrepancies(again, theirs, **settings)
    assert one.groups["finding"].sum() == 3
    assert one.groups["verdict"].tolist() == two.groups["verdict"].tolist()
    assert [set(part["id"]) for _, part in one.subsets.groupby("group")] == [
        set(part["id"]) for _, part in two.subsets.groupby("group")
    ]


@pytest.mark.parametrize("kernel", ["cosine", "polynomial"])
def test_samples_that_are_all_one_to_a_kernel_are_refused(kernel: str) -> None:
    model = Embeddings(np.random.default_rng(0).standard_normal((20, 3)))
    constant = Embeddings(np.ones((20, 3)), meta={"model": "blank"})
    for pair in ((constant, model), (model, constant)):
        with pytest.raises(InputError, match=f"blank: all samples are one to the kernel '{kernel}'"):
            find_discrepancies(*pair, modality="image", kernel=kernel)


@pytest.mark.parametrize(
    "settings", [{"n_directions": 6, "halves": 3}, {"path": "sample", "n_features": 150, "n_directions": 4}]
)
def test_the_same_call_twice_gives_the_same_bits(pair: Pair, settings: dict[str, Any]) -> None:
    one, other = (find_discrepancies(*pair, **settings) for _ in range(2))
    assert one.directions.tobytes() == other.directions.tobytes()
    for name in ("groups", "subsets", "quality"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    assert one.settings == other.settings
    assert one.subspace == other.subspace


def test_another_seed_draws_other_halves(pair: Pair, found: Discrepancies) -> None:
    other = find_discrepancies(*pair, n_directions=4, seed=1)
    assert other.groups.stability.tolist() != found.groups.stability.tolist()
    assert min(overlaps(other, GROUPS)) >= 0.75


def test_the_two_ways_are_two_questions(pair: Pair) -> None:
    assert max(overlaps(find_discrepancies(*pair[::-1], n_directions=4), GROUPS, findings=False)) < 0.5


@pytest.mark.parametrize("options", [{"halves": 5}, {"n_directions": 3}, {"path": "sample", "n_features": 150}])
def test_a_model_against_itself_has_no_excess_and_no_finding(pair: Pair, options: dict[str, Any]) -> None:
    result = find_discrepancies(pair[1], pair[1], **options)
    np.testing.assert_allclose(result.groups.excess.astype(float), 0, atol=1e-15)
    assert not result.groups.finding.astype(bool).any()
    assert set(result.groups.verdict) <= {"within floor"}


def test_fixed_multiplier(pair: Pair) -> None:
    a, b = kernels(pair, found := find_discrepancies(*pair, n_directions=3, multiplier=1.0))
    held = found.subspace
    expected = np.linalg.eigvalsh(a - b)[-3:].mean()
    assert held["coherence_target"] - held["coherence_reference"] == pytest.approx(expected, rel=1e-9)
    assert held["multiplier"] == 1
    assert found.epsilon is None
    assert found.settings["epsilon"] is None
    assert min(overlaps(found, GROUPS)) >= 0.75


def test_more_directions_are_sought_where_the_last_ones_add_groups() -> None:
    """24 lost groups of ten: more than the 20 directions that are tried first."""
    both, groups = lost(3, [10] * 24, 360, 12, spread=0.3)
    result = find_discrepancies(*both, modality="image", halves=5)
    assert result.subspace["n_directions"] > 20
    assert sum(share >= 0.75 for share in overlaps(result, groups, findings=False)) >= 20


def test_no_group_leaves_empty_tables_with_their_columns(tmp_path: Path) -> None:
    """Nine samples that have nothing in common: a direction is one of them, and a group has three."""
    alone = Embeddings(np.eye(9))
    result = find_discrepancies(alone, alone, modality="image", kernel="cosine", n_directions=1)
    assert result.groups.empty
    assert {"group", "n", "stability", "fit", "separation", "retention", "theme", "finding"} <= set(result.groups)
    assert result.subsets.columns.tolist() == ["group", "id", "weight", "rank", "finding"]
    assert len(result.groups) == result.directions.shape[1] == result.subsets.group.nunique()
    result.save(tmp_path)


def test_the_paper_s_read_out_has_groups_of_fifty_and_no_finding(pair: Pair) -> None:
    result = find_discrepancies(*pair, n_features=40, n_directions=2, preset="paper")
    assert result.groups.n.tolist() == [50, 50]
    assert not result.groups.finding.any()
    assert set(result.groups.verdict) <= {"not tested", "within floor", "not apart", "kept"}
    order = np.argsort(-np.abs(result.directions), axis=0)[:50]
    for number, rows in enumerate(order.T, 1):
        assert set(result.subsets[result.subsets.group == number].id.astype(int)) == set(rows.tolist())


def test_fewer_directions_when_epsilon_runs_out(pair: Pair) -> None:
    """One after the other each must meet the quantile."""
    settings = {"preset": "paper", "n_features": 50, "epsilon_quantile": 0.12, "n_directions": 80}
    with pytest.warns(FewerDirections, match="of 80 directions"):
        result = find_discrepancies(*pair, **settings)  # type: ignore[arg-type]
    assert 1 <= result.directions.shape[1] == len(result.groups) < 80


def test_saved_files_hold_the_same(found: Discrepancies, tmp_path: Path) -> None:
    for _ in range(2):
        found.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "directions.npy",
        "groups.csv",
        "quality.csv",
        "settings.json",
        "subsets.csv",
    ]
    np.testing.assert_array_equal(np.load(tmp_path / "out/directions.npy"), found.directions)
    kept = pd.read_csv(tmp_path / "out/groups.csv")
    assert kept.columns.tolist() == found.groups.columns.tolist()
    for name in found.groups.select_dtypes("number"):
        np.testing.assert_allclose(kept[name].astype(float), found.groups[name].astype(float), rtol=1e-12)
    assert kept.verdict.tolist() == found.groups.verdict.tolist()
    assert len(pd.read_csv(tmp_path / "out/subsets.csv")) == len(found.subsets)
    assert len(pd.read_csv(tmp_path / "out/quality.csv")) == len(found.quality)
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert {key: settings[key] for key in found.settings} == found.settings
    assert settings["epsilon"] == 2 / N
    assert settings["bandwidths"]["target"]["rows"] == N
    assert settings["subspace"] == found.subspace
    assert settings["spectrum"]["target"] == pytest.approx(found.spectrum.target.tolist())


def test_class_prompts_stand_in_for_captions() -> None:
    random = np.random.default_rng(0)
    image, labels = random.standard_normal((40, 5)), np.arange(40) % 10
    first, second = (Embeddings(image, labels=labels, class_text=random.standard_normal((10, 4))) for _ in range(2))
    assert find_discrepancies(first, second, n_directions=1).settings["modality"] == "joint"


def test_what_models_can_do_stands_beside_each_group() -> None:
    """Accuracy of both, the classes they say, and the same numbers as the table of quality has."""
    random = np.random.default_rng(1)
    labels, prompts = np.arange(96) % 8, 3 * np.eye(8)
    good = prompts[labels] + 0.3 * random.standard_normal((96, 8))
    bad = good.copy()
    bad[labels == 2] = random.standard_normal((12, 8))  # a class that the reference does not know
    both = [Embeddings(image, labels=labels, class_text=prompts, class_names=list("abcdefgh")) for image in (good, bad)]
    found = find_discrepancies(*both, modality="image")
    first = found.groups.iloc[0]
    assert first.finding
    assert set(found.subsets[found.subsets.group == 1].id.astype(int)) == set(np.flatnonzero(labels == 2).tolist())
    assert first.answers_target == "c 100%"
    assert first.accuracy_target == 1
    assert first.accuracy_reference < 0.5
    right = (bad[labels == 2] @ prompts.T).argmax(axis=1) == 2
    assert first.accuracy_reference == pytest.approx(right.mean())
    for role in ("target", "reference"):
        row = found.quality[(found.quality.group == 1) & (found.quality.model == role)]
        row = row[row.measure == "zeroshot_accuracy"].iloc[0]
        assert (first[f"accuracy_{role}"], first[f"accuracy_{role}_low"], first[f"accuracy_{role}_high"]) == (
            row.value,
            row.low,
            row.high,
        )
    assert first.witness_classes == 1
    assert first.witness_classes_p == 0.001
    assert first.theme == "c 100% (0%)"


def only_image(n: int = 20) -> Embeddings:
    return Embeddings(np.random.default_rng(n).standard_normal((n, 4)))


FAULTS: list[tuple[Any, dict[str, Any], str]] = [
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
def test_faults_are_named(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_discrepancies(model, model, **options)


def test_ids_must_match() -> None:
    other = Embeddings(only_image().image, ids=[f"x{i}" for i in range(20)])
    with pytest.raises(DataError, match="20 missing"):
        find_discrepancies(only_image(), other, modality="image")


def test_memory_is_checked_before_any_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.available_memory() > 0
    monkeypatch.setattr("koda_audit.discrepancy.choices.available_memory", lambda device: 10_000)
    with pytest.raises(InputError, match=r"20 samples need 19,200 bytes .* dense path, and 10,000 .* fewer samples"):
        find_discrepancies(only_image(), only_image(), modality="image", features="exact")


def test_groups_lost_on_real_clip_features() -> None:
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
    found = find_discrepancies(Embeddings(*features), Embeddings(*lost))
    assert min(overlaps(found, [set(group.tolist()) for group in groups])) >= 0.75
    assert len(sets(found)) == 3
    assert found.subspace["duality_gap"] <= 1e-6


@pytest.mark.parametrize(
    ("path", "random"), [("dense", {}), ("sample", {"n_features": 200}), ("reduced", {"n_features": 4})]
)
def test_both_orders_in_one_call_are_the_two_calls(path: str, random: dict[str, Any], pair: Pair) -> None:
    """With random features another draw is made for the second order alone, so there the first says it."""
    there, back = find_both_ways(*pair, halves=4, path=path, n_directions=3, **random)
    alone = find_discrepancies(*pair, halves=4, path=path, n_directions=3, **random)
    pd.testing.assert_frame_equal(there.groups, alone.groups)
    other = find_discrepancies(*pair[::-1], halves=4, path=path, n_directions=3, **random)
    assert back.bandwidths == other.bandwidths
    assert {**back.settings, "epsilon_over_lambda_max": 0} == {**other.settings, "epsilon_over_lambda_max": 0}
    if path == "dense":
        pd.testing.assert_frame_equal(back.groups, other.groups, check_exact=False, rtol=1e-6)
        pd.testing.assert_frame_equal(back.subsets[["group", "id"]], other.subsets[["group", "id"]])
    else:  # the same problem as with the models exchanged: the streamed directions hold what they say they hold
        held, kept = back.subspace["used_target"], back.subspace["used_reference"]
        assert held > kept
        assert kept <= back.epsilon * (1 + 1e-6)


def test_both_orders_make_the_gram_matrix_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[None] = []
    made = Features.chunks
    monkeypatch.setattr(Features, "chunks", lambda features: passes.append(None) or made(features))
    find_both_ways(*pair, halves=0, path="reduced", n_features=4, n_directions=2)
    assert len(passes) == 3  # one for the matrix, and one each for the directions over the samples


def test_what_is_saved_loads_and_is_shown(tmp_path):
    random = np.random.default_rng(0)
    a, b = (Embeddings(random.normal(size=(60, 8)), ids=[f"=s{row}" for row in range(60)]) for _ in range(2))
    found = find_discrepancies(a, b, modality="image", halves=4, n_directions=2)
    found.save(tmp_path)
    again = type(found).load(tmp_path)
    np.testing.assert_array_equal(again.directions, found.directions)
    assert again.groups["n"].tolist() == found.groups["n"].tolist()
    assert again.settings == found.settings
    assert repr(again) == repr(found)
    assert repr(found).startswith("Discrepancies(60 samples: ")
    assert repr(found).count("\n") < 5
    assert "data:image/png;base64," in found._repr_html_()
    assert len(found.plot().axes) == 1
    assert found.frame is found.groups
    (tmp_path / "groups.csv").unlink()
    with pytest.raises(StoreError, match="groups"):
        type(found).load(tmp_path)
