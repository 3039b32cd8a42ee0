"""Which tasks a suite asks for, with which settings, on which data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from pydantic import create_model

from koda_audit._yaml import Place
from koda_audit.registry import tasks
from koda_audit.settings import Settings
from koda_audit.suite.schema import OfModels, OfPairs, Suite
from koda_audit.tasks.benchmarks import BENCHMARKS
from koda_audit.tasks.protocol import Needs, Task

DISCREPANCY, SIMILARITY, GAP = "koda_discrepancy", "koda_similarity", "koda_modality_gap"
ROBUSTNESS = "koda_gap_robustness"
SECTIONS = {"discrepancy": DISCREPANCY, "similarity": SIMILARITY, "gap": GAP}


@dataclass(frozen=True)
class Asked:
    """One task of a suite.

    Attributes:
        place: of its section.
        settings: checked, of the task's own model.
        needs: the task's, as they are with these settings.
        on: names of datasets, or "all".
        pairs: [reference, model] each, or "all".
        alignments: names, or "all"; None is under none.
    """

    task: Task
    place: Place
    settings: Any
    needs: Needs
    on: Literal["all"] | list[str]
    pairs: Literal["all"] | list[list[str]]
    alignments: Literal["all"] | list[str | None]

    @property
    def metrics(self) -> set[str]:
        """The keys that it may measure."""
        return set(self.task.metrics(self.settings))


@lru_cache(maxsize=64)
def section_of(task: Task) -> type[Settings]:
    """The model of a task's section in a suite: where it is run, and its settings."""
    where = OfPairs if task.needs.models == 2 else OfModels
    return create_model(f"{task.name}_section", __base__=(task.Settings, where))


def asked(suite: Suite) -> Iterator[Asked]:
    """All of them, comparisons first."""
    for key, name in SECTIONS.items():
        section = getattr(suite, key)
        if section is not None:
            yield _asked(suite, tasks().load(name), (key,), section)
    if suite.gap is not None and suite.gap.robustness is not None:
        robustness, place = tasks().load(ROBUSTNESS), ("gap", "robustness")
        whole = _asked(suite, tasks().load(GAP), place, suite.gap)
        yield replace(whole, task=robustness, settings=suite.gap.robustness, needs=robustness.needs)
    for name, values in suite.tasks.items():
        task = tasks().load(name)
        yield _asked(suite, task, ("tasks", name), section_of(task).model_validate(values))
    yield from _benchmarks(suite)


def measured(suite: Suite) -> set[str]:
    """The keys that its table of results may have: some need data of one kind, as acc5 needs five classes."""
    return {key for one in asked(suite) for key in one.metrics}


def _asked(suite: Suite, task: Task, place: Place, section: Any) -> Asked:
    settings = task.Settings(**{name: getattr(section, name) for name in task.Settings.model_fields})
    if task.needs.models == 2:
        return Asked(task, place, settings, task.needs, section.on, section.pairs, [None])
    shown = section.alignments or (suite.benchmark.alignments if suite.benchmark else ["none"])
    shown = shown if task.needs.aligned else ["none"]
    return Asked(task, place, settings, task.needs, section.on, [], _named(shown))


def _benchmarks(suite: Suite) -> Iterator[Asked]:
    part = suite.benchmark
    if part is None:
        return
    given: Mapping[str, dict[str, Any]] = {
        "zeroshot_retrieval": {"recall_at": part.recall_at},
        "linear_probe": {"C": part.probe_C},
        "clustering": {"clusters": part.clusters, "protocol": part.clustering_protocol},
    }
    for name in part.tasks:
        task = BENCHMARKS[name]
        needs = task.needs
        if name == "clustering" and part.clusters is None:
            needs = replace(needs, kind="classes")  # captions have none, so clusters of them must be counted
        settings = task.Settings(**given.get(name, {}))
        place = ("benchmark", "tasks")
        yield Asked(task, place, settings, needs, part.on, [], _named(part.alignments))


def _named(alignments: Literal["all"] | list[str]) -> Literal["all"] | list[str | None]:
    return alignments if alignments == "all" else [None if name == "none" else name for name in alignments]
