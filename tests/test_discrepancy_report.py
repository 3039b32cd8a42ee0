"""What a reader sees of a comparison: findings in the open, what is none folded away, no table without its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from koda_audit import Embeddings, find_discrepancies
from koda_audit.discrepancy.describe import COLUMNS
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.document import Section
from koda_audit.tasks.discrepancy_report import quality_section, sections
from koda_audit.tasks.discrepancy_summary import strongest_groups, unlike_groups

GROUP = 20


@pytest.fixture(scope="module")
def pair() -> tuple[Embeddings, Embeddings]:
    """The first model alone holds 20 of 120 samples together; both have six classes."""
    random = np.random.default_rng(0)
    classes = random.standard_normal((6, 16))
    labels = np.repeat(np.arange(6), GROUP)
    held = classes[labels] + 0.3 * random.standard_normal((120, 16))
    other = held + 0.3 * random.standard_normal((120, 16))
    other[:GROUP] = random.standard_normal((GROUP, 16))
    mine, theirs = (
        Embeddings(image, labels=labels, class_text=classes, class_names=list("abcdef"), meta={"model": name})
        for image, name in ((held, "new <1>"), (other, "old"))
    )
    return mine, theirs


@pytest.fixture(scope="module")
def found(pair: tuple[Embeddings, Embeddings]) -> Discrepancies:
    return find_discrepancies(*pair, modality="image", n_directions=4, halves=8)


def shown(found: Discrepancies, pair: tuple[Embeddings, Embeddings]) -> list[Section]:
    row_of = {sample: row for row, sample in enumerate(pair[0].ids)}
    members = found.subsets.assign(row=found.subsets["id"].map(row_of))
    return sections(found, *pair, members, "")


def test_findings_stand_open_and_all_else_is_folded(found: Discrepancies, pair: tuple[Embeddings, Embeddings]) -> None:
    assert 0 < found.groups["finding"].sum() < len(found.groups)
    main, others = shown(found, pair)
    assert not main.folded
    assert others.folded
    assert "none is a finding" in others.title
    assert main.table is not None
    assert others.table is not None
    finding = found.groups["finding"].astype(bool)
    assert main.table["group"].tolist() == found.groups[finding]["group"].tolist()
    assert others.table["group"].tolist() == found.groups[~finding]["group"].tolist()
    assert [grid.name for grid in main.grids] == [f"group-{group:02d}" for group in main.table["group"]]
    assert not others.grids
    assert not others.pictures
    assert strongest_groups(found, *pair)["group"].tolist() == main.table["group"].tolist()


def test_the_text_says_where_epsilon_holds(found: Discrepancies, pair: tuple[Embeddings, Embeddings]) -> None:
    text = shown(found, pair)[0].text
    assert found.settings["priced_directions"] == 4
    assert f"the leading 4 hold ε = {2 / 120:.4g} there in the mean" in text
    assert f"{found.subspace['n_directions']} directions" in text
    assert "new &lt;1&gt;" in text
    assert "<1>" not in text
    fixed = find_discrepancies(*pair, modality="image", multiplier=1.0, halves=0)
    assert "at a price of coherence in old that is given" in shown(fixed, pair)[0].text


def test_without_any_finding_the_summary_names_one_group(pair: tuple[Embeddings, Embeddings]) -> None:
    found = find_discrepancies(*pair, modality="image", halves=0)
    assert not found.groups["finding"].any()
    assert len(strongest_groups(found, *pair)) == 1
    main, others = shown(found, pair)
    assert main.table is None
    assert others.folded


def test_a_comparison_without_any_group_has_a_report() -> None:
    """Nine samples that have nothing in common: a direction is one of them, and a group has three."""
    alone = Embeddings(np.eye(9))
    found = find_discrepancies(alone, alone, modality="image", kernel="cosine", n_directions=1)
    assert found.groups.empty
    (main,) = shown(found, (alone, alone))
    assert main.table is None
    assert "0 of 0 groups" in main.text
    for table in (strongest_groups(found, alone, alone), unlike_groups(found, alone, alone)):
        assert isinstance(table, pd.DataFrame)
        assert table.empty
    assert isinstance(quality_section(found, alone, alone), list)


def test_every_frame_has_the_columns_of_an_empty_one(found: Discrepancies) -> None:
    assert [name for name in found.groups if name in COLUMNS] == list(COLUMNS)
