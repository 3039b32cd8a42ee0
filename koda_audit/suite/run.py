"""A suite from its file to its report. Torch is imported only where a cell is left to compute."""

from __future__ import annotations

import html
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koda_audit._files import check_writable, checked_folder, default_store
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError, KodaAuditError
from koda_audit.gates.check import verdicts_of
from koda_audit.gates.run import Run
from koda_audit.gates.verdict import Verdict, exit_code
from koda_audit.report.write import check_replaceable
from koda_audit.results import COLUMNS, frame
from koda_audit.suite.cells import Finished
from koda_audit.suite.gated import checked_plan
from koda_audit.suite.load import Loaded, load_suite
from koda_audit.suite.plan import NOT_YET, Cell, Plan

STRONGEST = "tables/strongest_groups.csv"  # of an audit with comparisons

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Audit:
    """A finished run: its folder, its table (``koda_audit.results.COLUMNS``), what failed, and the verdicts.

    ``strongest``: the strongest group of each comparison and way; None without comparisons. ``unwritten``: why the
    folder could not be written, as on a full disk.
    """

    folder: Path
    frame: pd.DataFrame
    failures: Mapping[str, str]
    verdicts: tuple[Verdict, ...]
    strongest: pd.DataFrame | None
    unwritten: str | None = None

    @property
    def exit_code(self) -> int:
        """2 where a cell failed or a gate has an error, else 1 where a gate failed, else 2 without a folder, else 0."""
        return 2 if self.failures else exit_code(self.verdicts) or (2 if self.unwritten else 0)

    def __repr__(self) -> str:
        words = [verdict.verdict for verdict in self.verdicts]
        counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)) or "no gates"
        return f"Audit({self.folder}: {len(self.frame)} numbers, {len(self.failures)} steps failed; {counted})"

    def _repr_html_(self) -> str:
        """The verdicts, and the first group of each comparison, for a notebook."""
        from koda_audit.gates.outputs import table_of

        tables = [table_of(self.verdicts)] if self.verdicts else []
        tables += [] if self.strongest is None else [self.strongest]
        return "".join([f"<p>{html.escape(repr(self))}</p>", *(table.to_html(index=False) for table in tables)])


def load_audit(folder: str | Path) -> Audit:
    """An earlier audit, from its folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    import pandas as pd

    place = Path(folder)
    rows = Run.read(place).rows
    failed = {f"{row['task']}: {row['model']} on {row['dataset']}": row["error"] for row in rows if row["error"]}
    table = place / STRONGEST
    strongest = pd.read_csv(table) if table.is_file() else None
    whole = pd.DataFrame([{name: row.get(name) for name in COLUMNS} for row in rows], columns=list(COLUMNS))
    return Audit(place, whole, failed, verdicts_of(place), strongest)


def planned(loaded: Loaded, store: Path | None = None) -> Plan:
    """The cells of a suite, and where finished ones lie.

    Raises:
        SuiteError: gates on what none of them measures, one line each.
    """
    return checked_plan(loaded, (store or default_store()) / "cells")


def run_suite(
    suite: str | Path | Mapping[str, Any],
    output: str | Path = "reports/latest",
    *,
    store: str | Path | None = None,
    baseline: str | Path | None = None,
    allow_code: bool = False,
    quiet: bool = True,
    say: Callable[[str], object] = lambda line: None,
    compute: bool = True,
) -> Audit:
    """Do what is missing of a suite, and write its report.

    Args:
        suite: the YAML file, or what stands in one as a mapping, with paths relative to the working folder.
        output: folder of the report; an earlier report there is replaced.
        store: of embeddings and finished cells; default: that of ``clip_benchmark eval``.
        baseline: folder of an accepted baseline, or of an earlier audit, for gates without ``against``.
        allow_code: whether models given as ``py:`` may run.
        quiet: no progress bars.
        say: is told what is being done, a line a cell.
        compute: False: report what is finished, as while a long run goes on; all else counts as failed.

    Raises:
        SuiteError: the suite is wrong, one line a fault; nothing was started.
        InputError: the output or the store cannot be written; the baseline is no audit.
        StoreError: the baseline was changed after it was accepted.
    """
    from koda_audit.suite.sections import strongest
    from koda_audit.suite.table import write_audit

    loaded = load_suite(suite, allow_code)
    folder, place = checked_folder(output), checked_folder(store or default_store())
    if folder.resolve() in (place.resolve(), *place.resolve().parents):
        raise InputError(f"{folder} holds the store {place}: choose another folder for the report")
    check_writable(folder.parent, "the folder of --output")
    check_replaceable(folder)
    earlier = None if baseline is None else Run.read(Path(baseline))
    plan = planned(loaded, place)
    if compute and not all(plan.done(cell) for cell in plan.cells):
        from koda_audit.suite.host import alignment_faults, device_faults

        loaded.refuse([*device_faults(plan), *alignment_faults(plan)])
    home = Store(place)
    for fault in loaded.missing:
        say(f"warning: {fault.sentence}: what needs it will fail")
    unheld = [gate.name for gate in plan.suite.gates if gate.compares and gate.against is None]
    if unheld and earlier is None:
        say(f"warning: no --baseline is given, so {len(unheld)} gates will be ERROR: {', '.join(unheld)}")
    finished, failures = complete(plan, home, quiet, say, compute)
    rows, verdicts, unwritten = write_audit(plan, finished, failures, folder, earlier)
    failed = {cell.name: error for cell, error in failures.items()}
    return Audit(folder, frame(rows), failed, tuple(verdicts), strongest(finished), unwritten)


def complete(
    plan: Plan, store: Store, quiet: bool, say: Callable[[str], object], compute: bool = True
) -> tuple[dict[Cell, Finished], dict[Cell, str]]:
    """Compute the cells that are missing; one that fails takes with it only those that need it."""
    workshop: Any = None
    finished: dict[Cell, Finished] = {}
    failures: dict[Cell, str] = {}
    kept = 0
    for number, cell in enumerate(plan.cells, 1):
        lost = next((need for need in cell.needs if need in failures), None)
        if lost is not None:
            failures[cell] = f"needs what failed ({lost.name}): {failures[lost]}"
            continue
        try:
            key = plan.key(cell)
            done = None if key is None else plan.finished.load(key)
            kept += done is not None
            if done is None and not compute:
                failures[cell] = NOT_YET
                continue
            if done is None:
                if workshop is None:
                    from koda_audit.suite.work import Workshop

                    workshop = Workshop(plan, store, quiet)
                say(f"[{number}/{len(plan.cells)}] {cell.name}")
                made = workshop.do(cell)
                plan.forget(cell)  # the host may have downloaded files, which are a part of the key
                key = plan.key(cell)
                assert key is not None
                plan.finished.write(key, made)
                done = plan.finished.load(key)  # what a rerun will read, so that it says the same
                assert done is not None
            finished[cell] = done
        except Exception as error:  # whatever one cell raises must not stop the others; it is reported, and ends in 2
            if os.environ.get("KODA_AUDIT_DEBUG") == "1":
                traceback.print_exc()
            kind = "" if isinstance(error, KodaAuditError) else f"{type(error).__name__}: "
            failures[cell] = kind + " ".join(str(error).split())
            say(f"error: {cell.name}: {failures[cell]}")
    say(f"{kept} of {len(plan.cells)} steps were finished before")
    return finished, failures
