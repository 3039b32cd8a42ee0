"""Which cell of a suite each of its gates asks about, known before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from koda_audit.gates.gate import Gate
from koda_audit.suite.cells import Cells
from koda_audit.suite.checks import Fault
from koda_audit.suite.load import Loaded
from koda_audit.suite.plan import Cell, Plan


def checked_plan(loaded: Loaded, folder: Path) -> Plan:
    """The cells of a suite.

    Args:
        folder: of finished cells.

    Raises:
        SuiteError: gates on what no cell measures, one line each.
    """
    plan = Plan(loaded, Cells(folder))
    loaded.refuse(gate_faults(plan))
    return plan


def gate_faults(plan: Plan) -> Iterator[Fault]:
    """Gates on numbers that no cell of the suite gives; a dataset whose kind is not known may give any."""
    for number, gate in enumerate(plan.suite.gates):
        if not any(_answers(plan, cell, gate) for cell in plan.cells):
            asked = f"{gate.metric} of {gate.model} on {gate.dataset}"
            asked += f" against {gate.against}" if gate.against and not gate.compares else ""
            asked += f", task {gate.task}" if gate.task else ""
            asked += f", alignment {gate.alignment}" if gate.alignment else ""
            sentence = f"gates[{number}]: nothing in this suite measures {asked}{_instead(plan, gate)}"
            yield Fault(("gates", number), sentence)


def _answers(plan: Plan, cell: Cell, gate: Gate) -> bool:
    """Whether the number of a gate is one of a cell's; that of ``against``, too, where both are compared."""
    if (cell.model, cell.dataset, cell.alignment) != (gate.model, gate.dataset, _none(gate.alignment)):
        return False
    if gate.task not in (None, cell.task):
        return False
    if gate.against and cell.reference != (None if gate.compares else gate.against):
        return False
    return cell.step == "task" and gate.metric in plan.asked[cell.task].metrics


def _none(alignment: str | None) -> str | None:
    return None if alignment == "none" else alignment


def _instead(plan: Plan, gate: Gate) -> str:
    """The pairs or datasets that it is measured of."""

    def near() -> Iterator[str]:
        for cell in plan.cells:
            if cell.step == "task" and gate.metric in plan.asked[cell.task].metrics:
                yield f"{cell.model}{f' against {cell.reference}' if cell.reference else ''} on {cell.dataset}"

    known = list(dict.fromkeys(near()))
    return f"; it is measured of {', '.join(known[:4])}{', …' if len(known) > 4 else ''}" if known else ""
