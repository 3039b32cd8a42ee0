"""Verdicts for people and machines. Names come from files of unknown origin: nothing in them is markup or obeyed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tabulate import tabulate

from koda_audit.document import escape, printable
from koda_audit.gates.verdict import Verdict, Word

if TYPE_CHECKING:
    import pandas as pd

WORST_FIRST: tuple[Word, ...] = ("ERROR", "FAIL", "WARN", "PASS")
COLUMNS = ("verdict", "metric", "model", "against", "dataset", "alignment", "estimate", "bound", "tolerance", "n", "p")


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many gates came to what, worst first.

    >>> from koda_audit.gates.gate import Gate
    >>> summary([Verdict(Gate("acc1", "cifar10", "v2", min=0.9), "PASS", "is 0.95")])
    'PASS: 1 PASS of 1 gate'
    """
    words = [verdict.verdict for verdict in verdicts]
    counts = ", ".join(f"{words.count(word)} {word}" for word in WORST_FIRST if word in words)
    worst = next((word for word in WORST_FIRST if word in words), "PASS")
    return f"{worst}: {counts} of {len(words)} gate{'s' * (len(words) != 1)}"


def table_of(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The same columns with the sentences, for a report."""
    import pandas as pd

    rows = [
        {**verdict.record(), "tolerance": _asked(verdict), "sentence": f"{verdict.gate.name}: {verdict.sentence}"}
        for verdict in verdicts
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "sentence"])


def terminal(verdicts: Sequence[Verdict]) -> str:
    """A table, a sentence a gate, and the summary."""
    rows = [[printable(cell) for cell in _row(verdict)] for verdict in verdicts]
    table = tabulate(rows, headers=COLUMNS, tablefmt="simple", disable_numparse=True)
    lines = [printable(f"{verdict.verdict} {verdict.gate.name}: {verdict.sentence}") for verdict in verdicts]
    return "\n".join([table, "", *lines, "", summary(verdicts)])


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A comment for a pull request."""
    rows = [[_inert(cell) for cell in _row(verdict)] for verdict in verdicts]
    table = tabulate(rows, headers=COLUMNS, tablefmt="github", disable_numparse=True)
    lines = [f"- **{verdict.verdict}** {_inert(f'{verdict.gate.name}: {verdict.sentence}')}" for verdict in verdicts]
    return "\n".join([f"### koda-audit {summary(verdicts)}", "", table, "", *lines, ""])


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """JUnit XML, a test case a gate; WARN passes, and says so in its output."""
    words = [verdict.verdict for verdict in verdicts]
    counts = {"tests": len(words), "failures": words.count("FAIL"), "errors": words.count("ERROR")}
    suite = ElementTree.Element("testsuite", {"name": "koda-audit", **{name: str(n) for name, n in counts.items()}})
    for verdict in verdicts:
        gate = verdict.gate
        against = gate.against or ("the baseline" if gate.compares else None)
        name = f"{gate.name}, {_asked(verdict)}" + (f" against {against}" if against else "")
        case = ElementTree.SubElement(
            suite, "testcase", classname=printable(f"koda-audit.{gate.dataset}"), name=printable(name), time="0"
        )
        said = printable(verdict.sentence)
        if verdict.verdict in ("FAIL", "ERROR"):
            kind = "failure" if verdict.verdict == "FAIL" else "error"
            ElementTree.SubElement(case, kind, message=said, type=verdict.verdict).text = said
        else:
            ElementTree.SubElement(case, "system-out").text = f"{verdict.verdict}: {said}"
    ElementTree.indent(suite)
    whole: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return whole


def _row(verdict: Verdict) -> list[str]:
    record = {**verdict.record(), "tolerance": _asked(verdict)}
    return [_cell(record[column]) for column in COLUMNS]


def _asked(verdict: Verdict) -> str:
    return f"{verdict.gate.kind} {verdict.gate.tolerance:g}"


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _inert(text: str) -> str:
    """Markdown that shows the text and calls nobody: an @name would be told of the comment."""
    return re.sub(r"(?<!\w)@", "@\u200b", escape(text))
