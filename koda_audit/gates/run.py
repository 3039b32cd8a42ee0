"""A finished audit as gates see it: the rows of its table, and its per-sample outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from koda_audit._files import file_sha256
from koda_audit.errors import InputError, StoreError, unknown
from koda_audit.gates.gate import Gate
from koda_audit.outcomes import Cell, Outcomes, load_outcomes
from koda_audit.protocols import FILE as PROTOCOLS
from koda_audit.protocols import Protocol, differing
from koda_audit.protocols import read as read_protocols

RESULTS = "results.json"
OUTCOMES = "outcomes"
ACCEPTED = "baseline.json"  # of an accepted baseline: a checksum a file
SAME = ("task", "reference", "split", "language")  # what two compared rows share, besides dataset, metric and alignment
LARGEST = 1e100  # a number beyond is none that was measured
Row = Mapping[str, Any]


class GateError(Exception):
    """Why a gate cannot be judged, in one sentence."""


class Interval(NamedTuple):
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """``rows`` as in results.json; ``load`` gives the outcomes, or raises StoreError where they are damaged.

    ``name`` is what messages call it, ``protocols`` are by their digests in the rows, as far as they were kept.
    """

    rows: Sequence[Row]
    load: Callable[[], Outcomes] = field(default=lambda: Outcomes({}, {}))
    name: str = "the audit"
    protocols: Mapping[str, Protocol] = field(default_factory=dict)

    @cached_property
    def outcomes(self) -> Outcomes:
        return self.load()

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The audit, or the accepted baseline, in a folder.

        Raises:
            InputError: there is none, or its results are damaged.
            StoreError: a baseline was changed after it was accepted.
        """
        _verify(folder)
        path = folder / RESULTS
        try:
            rows = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise InputError(f"{folder} holds no audit: {RESULTS}: {(error.strerror or str(error)).lower()}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
        fields = ("model", "dataset", "metric", "status")
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and all(isinstance(row.get(name), str) for name in fields) for row in rows
        ):
            raise InputError(f"{path} is damaged: expected a list of rows with {', '.join(fields)}")
        try:
            protocols = read_protocols(folder)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{folder / PROTOCOLS} is damaged: {error}") from error
        return cls(rows, lambda: load_outcomes(folder / OUTCOMES), str(folder), protocols)

    def row(self, gate: Gate, model: str, **same: Any) -> Row:
        """The one row that a gate means.

        Args:
            same: columns that must be equal, too.

        Raises:
            GateError: there is none or more than one, or it is of a cell that failed.
        """
        wanted = {"metric": gate.metric, "dataset": gate.dataset, "model": model, **same}
        for name in ("dataset", "model", "metric"):
            known = {row[name] for row in self.rows if row["status"] == "ok" or name != "metric"}
            if not known:
                raise GateError(f"nothing was measured (in {self.name}){self._failed(wanted)}")
            if wanted[name] not in known:
                if name == "metric" and (failed := self._failed(wanted)):
                    raise GateError(f"{gate.metric} is not measured in {self.name}{failed}")
                raise GateError(f"{unknown(name, str(wanted[name]), known)} (in {self.name})")
        found = [
            row
            for row in self.rows
            if all(row.get(name) == value for name, value in wanted.items())
            and (row.get("alignment") or "none") == (gate.alignment or "none")
            and gate.task in (None, row.get("task"))
        ]
        if not found:
            others = ", ".join(f"{name} {value}" for name, value in same.items() if value is not None)
            with_ = f" with {others}" if others else ""
            raise GateError(
                f"{self.name} has no {gate.metric} of {model} on {gate.dataset}, task {gate.task or 'any'}, "
                f"alignment {gate.alignment or 'none'}{with_}{self._failed(wanted)}"
            )
        if len(found) > 1:
            listed = "; ".join(" ".join(str(row.get(name) or "–") for name in SAME) for row in found[:4])
            raise GateError(
                f"{len(found)} numbers of {self.name} fit ({', '.join(SAME)}: {listed}): say which by task or against"
            )
        if found[0]["status"] != "ok":
            raise GateError(f"not measured in {self.name}: {found[0].get('error')}")
        return found[0]

    def cell(self, row: Row) -> Cell:
        """Where the outcomes of a row lie."""
        alignment = row.get("alignment")
        task = str(row.get("task"))
        return Cell(row["model"], row["dataset"], task, row["metric"], None if alignment == "none" else alignment)

    def value(self, row: Row) -> float:
        """The number of a row.

        Raises:
            GateError: it is missing or not finite.
        """
        value = _real(row.get("value"))
        if value is None:
            raise GateError(f"the number is not defined in {self.name}: {row.get('value')}")
        return value

    def interval(self, row: Row) -> Interval:
        """The number of a row with its stated interval.

        Raises:
            GateError: either is missing, not finite, or the ends are exchanged.
        """
        low, high = _real(row.get("ci_low")), _real(row.get("ci_high"))
        if low is None or high is None or low > high:
            raise GateError(f"{row['metric']} has neither per-sample outcomes nor an interval in {self.name}")
        return Interval(self.value(row), low, high)

    def chance(self, row: Row) -> float | None:
        """The chance level of a number that is not surely above it; None of any other, and where none is known."""
        chance, low = _real(row.get("chance")), _real(row.get("ci_low"))
        return None if chance is None or low is None or low > chance else chance

    def check_protocol(self, row: Row, other: Run, before: Row) -> None:
        """Raises GateError where a row was measured by another protocol than one of another run."""
        ours, theirs = row.get("protocol"), before.get("protocol")
        if ours is not None and ours == theirs:
            return
        known = self.protocols.get(str(ours)), other.protocols.get(str(theirs))
        how = f"{ours} in {self.name}, {theirs} in {other.name}"
        if known[0] is not None and known[1] is not None:
            how = differing(known[0], known[1])
        raise GateError(
            f"measured by another protocol: {how}; measure both alike (data, prompts, settings, seed), or accept a new "
            "baseline"
        )

    def _failed(self, wanted: Mapping[str, Any]) -> str:
        """What is known of failed cells of the same model and dataset."""
        names = ("model", "dataset")
        failed = [
            str(row.get("error") or "no reason is given")
            for row in self.rows
            if row["status"] != "ok" and all(row[name] == wanted[name] for name in names)
        ]
        return f"; failed there: {failed[0]}" if failed else ""


def _verify(baseline: Path) -> None:
    """Refuse an accepted baseline that was edited; any other folder is an audit and has nothing to verify."""
    path = baseline / ACCEPTED
    if not path.exists():
        return
    try:
        sums = json.loads(path.read_text("utf-8"))["sha256"]
        files = {baseline / name: sha256 for name, sha256 in sums.items()}
        if RESULTS not in sums:
            raise ValueError(f"it has no checksum of {RESULTS}")
        changed = [file for file, sha256 in files.items() if not file.is_file() or file_sha256(file) != sha256]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}; accept the baseline again") from error
    if changed:
        raise StoreError(
            f"{changed[0]} was changed after it was accepted: only `koda-audit baseline --accept` changes a baseline"
        )


def _real(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < LARGEST:
        return None
    return float(value)
