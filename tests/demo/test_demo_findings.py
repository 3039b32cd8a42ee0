"""What is known to be true of the demo's models, each model's obvious difference from `colour`, is what is found."""

from __future__ import annotations

import re

import pytest

from koda_audit import Embeddings, find_discrepancies
from koda_audit.data.load import load_dataset
from koda_audit.demo.export import write_demo
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.models import ModelSpec, load_model

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "purple")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Embeddings]:
    home = tmp_path_factory.mktemp("demo")
    write_demo(home)
    data = load_dataset("wds/digits_captions", str(home / "data" / "digits_captions"))
    store = Store(home / "store")
    return {
        name: embed(load_model(ModelSpec(f"local-dir:{home / 'models' / name}")), data, store, quiet=True)
        for name in ("colour", "plain", "broken", "reseeded")
    }


def factors(model: Embeddings) -> dict[str, set[str]]:
    """Ink and ground of each colour -> the ids of the samples that have it."""
    assert model.captions is not None
    found: dict[str, set[str]] = {}
    for sample, caption in zip(model.ids, model.captions, strict=True):
        words = re.findall("|".join(COLOURS), caption)
        assert len(words) == 2, caption
        for kind, colour in zip(("ink", "ground"), words, strict=True):
            found.setdefault(f"{colour} {kind}", set()).add(sample)
    return found


def found_of(found: Discrepancies, truth: dict[str, set[str]], purity: float, coverage: float) -> set[str]:
    """The factors that some finding consists of to ``purity`` and holds ``coverage`` of."""
    findings = found.subsets[found.subsets["finding"].astype(bool)]
    return {
        name
        for name, members in truth.items()
        for _, group in findings.groupby("group")
        if len(members & set(group["id"])) >= max(purity * len(group), coverage * len(members))
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_the_colours_that_only_one_model_learnt_are_found(embedded: dict[str, Embeddings], seed: int) -> None:
    truth = factors(embedded["colour"])
    assert len(truth) == 16
    found = find_discrepancies(embedded["colour"], embedded["plain"], seed=seed)
    assert len(found_of(found, truth, purity=0.9, coverage=0.9)) >= 14
    assert found.groups[found.groups["finding"].astype(bool)]["retention"].max() < 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_ground_that_the_broken_upgrade_mixes_up_is_found_first(embedded: dict[str, Embeddings], seed: int) -> None:
    truth = factors(embedded["colour"])
    found = find_discrepancies(embedded["broken"], embedded["colour"], seed=seed)
    first = set(found.subsets[found.subsets["group"] == 1]["id"])
    black = truth["black ground"]
    assert found.groups["finding"][0]
    assert len(first & black) >= 0.85 * len(black)
    assert len(first & black) >= 0.95 * len(first)


def test_another_seed_of_training_is_at_most_one_finding_a_way(embedded: dict[str, Embeddings]) -> None:
    for pair in (("reseeded", "colour"), ("colour", "reseeded")):
        found = find_discrepancies(*(embedded[name] for name in pair))
        assert found.groups["finding"].sum() <= 1, pair


def test_a_model_against_itself_is_no_finding(embedded: dict[str, Embeddings]) -> None:
    found = find_discrepancies(embedded["colour"], embedded["colour"])
    assert set(found.groups["verdict"]) <= {"within floor"}
