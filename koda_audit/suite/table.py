"""Finished cells as one table of results, and the folder of an audit around it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import koda_audit
from koda_audit._files import digest, write_json
from koda_audit.errors import StoreError
from koda_audit.gates.check import VERDICTS
from koda_audit.gates.judge import judge
from koda_audit.gates.outputs import table_of
from koda_audit.gates.run import OUTCOMES, Run
from koda_audit.gates.verdict import Verdict
from koda_audit.outcomes import Cell as Place
from koda_audit.outcomes import Outcomes, save_outcomes
from koda_audit.protocols import FILE, Protocol, protocol_of, signed
from koda_audit.report.write import is_current, write_report
from koda_audit.results import Result, records, signature
from koda_audit.suite.cells import Finished
from koda_audit.suite.plan import Cell, Plan
from koda_audit.suite.sections import sample_pictures, sections_of
from koda_audit.suite.sources import libraries, stamps
from koda_audit.tasks.protocol import Queries


def write_audit(
    plan: Plan,
    finished: Mapping[Cell, Finished],
    failures: Mapping[Cell, str],
    folder: Path,
    baseline: Run | None = None,
) -> tuple[list[Result], list[Verdict], str | None]:
    """The report, the table, the outcomes, the verdicts on the suite's gates and all else that an audit leaves; an
    earlier report there is replaced, unless it is the same.

    Returns:
        The table, the verdicts, and why nothing could be written, as on a full disk: the verdicts are not lost with it.
    """
    protocols = protocols_of(plan, finished)
    rows = [*results(plan, finished, protocols), *errors(plan, failures)]
    environment = environment_of(plan, finished)
    outcomes, ids = outcomes_of(finished), ids_of(finished)
    run = Run(records(rows), lambda: Outcomes(outcomes, ids), protocols=signed(protocols.values()))
    verdicts = judge(plan.suite.gates, run, baseline)
    judged = [verdict.record() for verdict in verdicts]
    cells = [[cell.name, plan.key(cell)] for cell in finished]
    ours = [path for path in Path(koda_audit.__file__).parent.rglob("*") if path.suffix != ".pyc"]
    made_of = digest([cells, records(rows), judged, environment, stamps(ours)])
    if is_current(folder, made_of):
        return rows, verdicts, None
    sections, tables = sections_of(plan, finished, failures)
    pictures = sample_pictures(finished)

    def thumbnails(wanted: Sequence[str]) -> dict[str, bytes]:
        return {name: pictures[name] for name in wanted}

    def beside(work: Path) -> None:
        write_json(work / "environment.json", environment)
        write_json(work / FILE, signed(protocols.values()))
        save_outcomes(work / OUTCOMES, outcomes, ids)
        if verdicts:
            write_json(work / VERDICTS, judged)
        for cell, record in host_records(plan, finished, protocols):
            write_json(work / "json" / f"{cell.file}.json", record)

    title = f"Audit: {plan.suite.suite}"
    shown = table_of(verdicts) if verdicts else None
    try:
        write_report(folder, title, sections, tables, rows, thumbnails, shown, environment, beside, made_of)
    except StoreError as error:
        return rows, verdicts, str(error)
    return rows, verdicts, None


def results(
    plan: Plan, finished: Mapping[Cell, Finished], protocols: Mapping[tuple[Cell, str], Protocol]
) -> Iterator[Result]:
    """A row a number."""
    for cell, done in finished.items():
        where = _where(plan, cell) if cell.step == "task" else {}
        for number in done.numbers:
            yield Result(
                **where,
                metric=number.metric,
                value=number.value,
                ci_low=number.low,
                ci_high=number.high,
                chance=number.chance,
                n=finished[cell.needs[0]].facts["n"] if number.n is None else number.n,
                seed=plan.suite.seed,
                protocol=signature(protocols[cell, number.metric]),
                provenance=_provenance(cell, finished),
            )


def protocols_of(plan: Plan, finished: Mapping[Cell, Finished]) -> dict[tuple[Cell, str], Protocol]:
    """What each number was measured by."""
    found = {}
    for cell, done in finished.items():
        aligned = [dict(need.options) for need in cell.needs if need.step == "align"]
        # classes from another dataset say what is in a group, and are no part of any number
        used = [one for one in _embedded(cell) if aligned or one.dataset == cell.dataset]
        facts = [(one.split, finished[one].facts) for one in used]
        data = [(split, known["fingerprint"], known["prompts"]) for split, known in facts]
        for number in done.numbers:
            version = plan.asked[cell.task].task.version
            found[cell, number.metric] = protocol_of(cell.task, version, number, data, aligned)
    return found


def errors(plan: Plan, failures: Mapping[Cell, str]) -> Iterator[Result]:
    """A row a cell that failed; it has no number."""
    for cell, error in failures.items():
        yield Result(**_where(plan, cell), metric="", value=None, seed=plan.suite.seed, status="error", error=error)


def outcomes_of(finished: Mapping[Cell, Finished]) -> dict[Place, Queries]:
    """The outcome of each query with the row of its image, by the columns that its number has in the table."""
    return {
        Place(cell.model, cell.dataset, cell.task, metric, cell.alignment): queries
        for cell, done in finished.items()
        for metric, queries in done.outcomes.items()
    }


def ids_of(finished: Mapping[Cell, Finished]) -> dict[str, list[str]]:
    """The sample ids of each dataset that was embedded, in the order of the rows."""
    return {
        need.dataset: finished[need].facts["ids"]
        for cell in finished
        for need in cell.needs
        if need.step == "embed" and (need.dataset, need.split) == (cell.dataset, cell.split)
    }


def host_records(
    plan: Plan, finished: Mapping[Cell, Finished], protocols: Mapping[tuple[Cell, str], Protocol]
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """What ``clip_benchmark build`` reads: flat metrics a cell, and keys that tell cells apart, as its columns."""
    for cell, done in finished.items():
        if cell.step == "task":
            where = _where(plan, cell)
            whole = signature([protocols[cell, number.metric] for number in done.numbers])
            where["alignment"] = cell.alignment or "none"
            metrics = {number.metric: number.value for number in done.numbers}
            made = {"protocol": whole, "provenance": _provenance(cell, finished)}
            yield cell, {**where, **made, "metrics": metrics}


def environment_of(plan: Plan, finished: Mapping[Cell, Finished]) -> dict[str, Any]:
    """Versions, machine, seed, and what models and data were."""
    facts = {cell: done.facts for cell, done in finished.items() if cell.step == "embed" and not cell.alignment}
    model_keys = ("weights", "preprocess", "device", "dtype", "batch_size")
    return {
        "suite": plan.suite.suite,
        "suite_sha256": plan.loaded.sha256,
        "seed": plan.suite.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": libraries(),
        "models": {cell.model: {key: known[key] for key in model_keys} for cell, known in facts.items()},
        "datasets": {
            f"{cell.dataset}:{cell.split}": {key: known[key] for key in ("fingerprint", "prompts", "kind", "n")}
            for cell, known in facts.items()
        },
    }


def _where(plan: Plan, cell: Cell) -> dict[str, Any]:
    """The columns that say what a row is about."""
    return {
        "suite": plan.suite.suite,
        "model": cell.model,
        "pretrained": plan.models[cell.model].written,
        "reference": cell.reference,
        "dataset": cell.dataset,
        "split": cell.split,
        "language": plan.data[cell.dataset].language,
        "task": cell.task or cell.step,
        "alignment": cell.alignment,
    }


def _provenance(cell: Cell, finished: Mapping[Cell, Finished]) -> str:
    """By which weights, code and machine."""
    facts = [finished[one].facts for one in _embedded(cell)]
    return signature([[[known[key] for key in ("embedding", "device", "libraries")] for known in facts], libraries()])


def _embedded(cell: Cell) -> Iterator[Cell]:
    for need in cell.needs:
        if need.step == "embed":
            yield need
        yield from _embedded(need)
