"""What a group was not made from: does it say that the samples belong together, by chance or not?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse, stats

from koda_audit import Embeddings, find_discrepancies
from koda_audit.discrepancy.groups import Group
from koda_audit.discrepancy.themes import Themes
from koda_audit.discrepancy.witness import DRAWS, witness_columns, witnessed, witnesses

N = 120


def unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return scaled


def group(rows: Any) -> Group:
    rows = np.asarray(rows)
    return Group(rows, np.ones(len(rows)), 1.0)


def clustered(seed: int = 0) -> NDArray[np.float64]:
    """(N, 8) rows of length 1; the first 15 lie together."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((N, 8))
    values[:15] += 4 * random.standard_normal(8)
    return unit(values)


def test_likeness_is_the_mean_over_pairs() -> None:
    rows = clustered()
    for members in (range(15), [3, 90], np.random.default_rng(1).choice(N, 40, False)):
        ((alike, _),) = witnessed(rows, [group(members)])
        pairs = [rows[i] @ rows[j] for i in members for j in members if i < j]
        assert alike == pytest.approx(np.mean(pairs))


def test_p_is_small_for_a_group_and_even_for_samples_at_random() -> None:
    rows, random = clustered(), np.random.default_rng(2)
    chance = [group(random.choice(N, int(random.integers(5, 30)), False)) for _ in range(60)]
    (_, real), *others = witnessed(rows, [group(range(15)), *chance])
    assert real == 1 / (1 + DRAWS)
    ps = [p for _, p in others]
    assert min(ps) >= 1 / (1 + DRAWS)
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_p_counts_the_sets_that_are_at_least_as_alike() -> None:
    """Where all rows are equal so are all sets: every one counts."""
    assert witnessed(np.ones((30, 1)), [group(range(6))]) == [(1.0, 1.0)]


@pytest.mark.parametrize("members", [range(15), range(40, 50), range(60, 66)])
def test_sparse_and_dense_rows_agree(members: Any) -> None:
    rows = np.where(clustered() > 0.3, clustered(), 0.0)
    dense, thin = (witnessed(form, [group(members)])[0] for form in (rows, sparse.csr_matrix(rows)))
    assert dense == pytest.approx(thin)


def test_the_seed_decides_and_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups = clustered(), [group([1, 30, 60, 90, 100])]
    whole = witnessed(rows, groups)
    assert whole == witnessed(rows, groups)
    assert whole != witnessed(rows, groups, seed=1)
    monkeypatch.setattr("koda_audit.discrepancy.witness.SETS", 37)  # seven sets at a time
    assert witnessed(rows, groups) == [pytest.approx(pair) for pair in whole]


def test_classes_are_the_chance_that_two_are_of_one() -> None:
    labels = np.arange(N) % 4
    rows = sparse.csr_matrix((np.ones(N), (np.arange(N), labels)))
    members = [0, 4, 8, 1]  # three of one class: 3 of 6 pairs
    assert witnessed(rows, [group(members)])[0][0] == pytest.approx(0.5)


RANDOM = np.random.default_rng(3)
IMAGE, TEXT, LABELS = RANDOM.standard_normal((N, 6)), RANDOM.standard_normal((N, 5)), np.arange(N) % 3
PROMPTS = RANDOM.standard_normal((3, 6))
CAPTIONED = Embeddings(IMAGE, TEXT)
LABELLED = Embeddings(IMAGE, TEXT, labels=LABELS)
CLASSED = Embeddings(IMAGE, labels=LABELS, class_text=PROMPTS)
WORDS = Themes(
    ["a red thing" if row < 15 else f"a {['blue', 'green', 'black', 'white'][row % 4]} thing" for row in range(N)]
)

SEEN = [  # what was not used: the other modality, captions' words, and classes that no text was made of
    (CAPTIONED, "image", None, ["text"]),
    (CAPTIONED, "image", WORDS, ["text", "captions"]),
    (CAPTIONED, "text", WORDS, ["image"]),
    (CAPTIONED, "joint", WORDS, []),
    (LABELLED, "joint", WORDS, ["classes"]),
    (LABELLED, "image", None, ["text", "classes"]),
    (CLASSED, "image", WORDS, ["classes"]),
    (CLASSED, "joint", None, []),
    (CLASSED, "text", None, ["image"]),
    (Embeddings(IMAGE), "image", None, []),
    (Embeddings(IMAGE, labels=np.eye(N, 4, dtype=int), class_text=PROMPTS[[0, 0, 1, 2]]), "image", None, []),
]


@pytest.mark.parametrize(("model", "modality", "themes", "names"), SEEN)
def test_only_what_was_not_used_is_a_witness(
    model: Embeddings, modality: str, themes: Themes | None, names: list[str]
) -> None:
    assert [name for name, _ in witnesses(model, modality, themes)] == names
    (row,) = witness_columns(model, modality, themes, [group(range(5))], 0)
    assert list(row) == [f"witness_{name}{end}" for name in names for end in ("", "_p")]


def test_rows_of_witnesses_say_what_they_should() -> None:
    seen = dict(witnesses(LABELLED, "image", WORDS))
    expected = unit(TEXT) - unit(TEXT).mean(axis=0)
    np.testing.assert_allclose(seen["text"], expected, atol=1e-12)
    np.testing.assert_array_equal(seen["classes"].toarray(), np.eye(3)[LABELS])
    (words,) = witness_columns(CAPTIONED, "image", WORDS, [group(range(15))], 0)
    assert words["witness_captions"] == pytest.approx(1)
    assert words["witness_captions_p"] == 1 / (1 + DRAWS)


def test_no_groups_have_no_witness() -> None:
    assert witness_columns(CAPTIONED, "image", None, [], 0) == []
    assert witnessed(clustered(), []) == []


def test_captions_bear_witness_to_a_lost_group_of_images() -> None:
    """Texts follow the group too, but nothing of them is used; the texts of a second set do not."""
    random = np.random.default_rng(4)
    other = random.standard_normal((N, 8))
    mine = other.copy()
    mine[:15] = mine[0] + 0.1 * random.standard_normal((15, 8))
    texts = random.standard_normal((N, 5))
    telling = texts.copy()
    telling[:15] += 4 * random.standard_normal(5)
    results = [
        find_discrepancies(Embeddings(mine, text), Embeddings(other, text), modality="image", n_directions=1)
        for text in (telling, texts)
    ]
    (first, second) = (result.groups.iloc[0] for result in results)
    assert first.finding
    assert second.finding
    assert first.witness_text_p == 1 / (1 + DRAWS) < second.witness_text_p
    assert first.witness_text > 0.3 > second.witness_text
