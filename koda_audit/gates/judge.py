"""From gates and an audit to verdicts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from koda_audit._stats.clusters import DRAWS
from koda_audit._stats.evidence import Evidence, beyond, exact, holm_levels, stated, stated_difference
from koda_audit._stats.paired import fall_evidence, mean_evidence
from koda_audit.errors import KodaAuditWarning, StoreError
from koda_audit.gates.gate import Gate
from koda_audit.gates.run import SAME, GateError, Row, Run
from koda_audit.gates.sentences import sentence
from koda_audit.gates.verdict import Verdict, Word
from koda_audit.metrics import listed

MOST_DRAWS = 1_000_000
ROUNDED = 1e-5  # outcomes are kept in float32


class Found(NamedTuple):
    """``evidence`` has large numbers for bad ones: for ``min`` it is of 1 minus the number."""

    evidence: Evidence
    values: tuple[float, ...]  # of the model, and of the other side
    chance: float | None
    provenance: str | None = None


def judge(gates: Sequence[Gate], run: Run | Path | Any, baseline: Run | Path | Any | None = None) -> list[Verdict]:
    """A verdict on every gate, in their order.

    ======= =======================================================================================================
    PASS    neither of the next two; ``smallest`` says what this sample could have shown
    WARN    the estimate is beyond the tolerance, its bound is not
    FAIL    the bound is beyond the tolerance: with ``confidence``, the truth is
    ERROR   missing, not finite, another protocol, no sample in common, neither outcomes nor an interval, damaged
    ======= =======================================================================================================

    Per-sample outcomes are compared in pairs (``fall_evidence``: exact McNemar, or a bootstrap over images). A number
    without them is judged by its stated 95 % interval. A metric that is marked ``exact`` in ``koda_audit.metrics``, or
    whose interval has no width, is compared as it is. All others share one Holm correction, so that the chance of any
    false FAIL among them is at most the largest of their levels.

    Args:
        run: an audit or its folder.
        baseline: an earlier one, for gates without ``against``.

    Raises:
        InputError: a folder holds no audit, or its table is damaged.
    """
    ours, theirs = _run(run), None if baseline is None else _run(baseline)
    if theirs is not None and not any(gate.compares and gate.against is None for gate in gates):
        warnings.warn(
            "no gate is compared with the baseline: those with min, max or against never are; leave against out of one "
            "with max_drop or max_rise",
            KodaAuditWarning,
            stacklevel=2,
        )
    draws = max(DRAWS, math.ceil(10 * len(gates) / min((gate.level for gate in gates), default=1.0)))
    draws = min(draws, MOST_DRAWS)  # beyond, a bound at so small a level has fewer than ten draws below it, or none
    found: list[Found | str] = []
    for gate in gates:
        try:
            found.append(_found(gate, ours, theirs, draws))
        except (GateError, StoreError) as error:
            found.append(str(error))
    p_values = [
        each.evidence.p_value(_limit(gate)) if isinstance(each, Found) else None
        for gate, each in zip(gates, found, strict=True)
    ]
    tested = [number for number, p_value in enumerate(p_values) if p_value is not None]
    levels = [gate.level for gate in gates]
    shared = holm_levels([p for p in p_values if p is not None], [levels[number] for number in tested])
    for number, level in zip(tested, shared, strict=True):
        levels[number] = level
    return [
        Verdict(gate, "ERROR", each) if isinstance(each, str) else _verdict(gate, each, level, p_value)
        for gate, each, level, p_value in zip(gates, found, levels, p_values, strict=True)
    ]


def _run(given: Any) -> Run:
    return given if isinstance(given, Run) else Run.read(Path(getattr(given, "folder", given)))


def _limit(gate: Gate) -> float:
    return 1 - gate.tolerance if gate.kind == "min" else gate.tolerance


def _verdict(gate: Gate, found: Found, level: float, p_value: float | None) -> Verdict:
    evidence, limit = found.evidence, _limit(gate)

    def shown(bad: float | None) -> float | None:
        return None if bad is None or not math.isfinite(bad) else 1 - bad if gate.kind == "min" else bad

    bound = None if evidence.bound is None else evidence.bound(level)
    failed = beyond(evidence.estimate if bound is None else bound, limit)
    word: Word = "FAIL" if failed else "WARN" if beyond(evidence.estimate, limit) else "PASS"
    smallest = None if bound is None else shown(evidence.smallest_detectable(limit, level))
    confidence = None if bound is None else 1 - level
    estimate = 1 - evidence.estimate if gate.kind == "min" else evidence.estimate
    worst = None if evidence.above is None else shown(evidence.above(level))
    seen = (estimate, shown(bound), confidence, evidence.n, p_value, smallest, worst, found.chance, found.provenance)
    verdict = Verdict(gate, word, "", *seen)
    return replace(verdict, sentence=sentence(verdict, found.values, evidence.method))


def _found(gate: Gate, run: Run, baseline: Run | None, draws: int) -> Found:
    reference = {"reference": gate.against} if gate.against is not None and not gate.compares else {}
    row = run.row(gate, gate.model, **reference)
    value = run.value(row)
    if not gate.compares:
        return Found(_own(gate, run, row, draws), (value,), run.chance(row))
    if gate.against is None and baseline is None:
        raise GateError("no baseline is given: name one, or say against which model")
    other = run if gate.against is not None or baseline is None else baseline
    before = other.row(gate, gate.against or gate.model, **{name: row.get(name) for name in SAME})
    earlier = other.value(before)
    run.check_protocol(row, other, before)
    sides = ((other, before), (run, row)) if gate.kind == "max_drop" else ((run, row), (other, before))
    provenance = "same" if row.get("provenance") == before.get("provenance") else "changed"
    evidence, numbers = _change(gate, *sides, draws)
    if numbers is not None:
        value, earlier = numbers[::-1] if gate.kind == "max_drop" else numbers
    chances = run.chance(row), other.chance(before)
    return Found(evidence, (value, earlier), None if None in chances else chances[0], provenance)


def _own(gate: Gate, run: Run, row: Row, draws: int) -> Evidence:
    low = gate.kind == "min"
    if _exact(gate):
        return exact(1 - run.value(row) if low else run.value(row))
    queries = _queries(run, row)
    if queries is not None and queries[0].max() <= 1:  # weighted ones vary otherwise than the number they add up to
        return mean_evidence(1 - queries[0] if low else queries[0], queries[1], draws)
    value, *ends = run.interval(row)
    return stated(1 - value, 1 - ends[1], 1 - ends[0]) if low else stated(value, *ends)


def _change(
    gate: Gate, left: tuple[Run, Row], right: tuple[Run, Row], draws: int
) -> tuple[Evidence, tuple[float, float] | None]:
    """By how much the left side is larger; and the numbers of both on the samples that they share, where not on all."""
    if _exact(gate):
        return exact(left[0].value(left[1]) - right[0].value(right[1])), None
    first, second = _queries(*left), _queries(*right)
    if first is None and second is None:
        return stated_difference(left[0].interval(left[1]), right[0].interval(right[1])), None
    if first is None or second is None:
        name = (left if first is None else right)[0].name
        raise GateError(
            f"0 samples paired: {name} lacks the per-sample outcomes of {gate.metric}, the other side has them"
        )
    larger, smaller, samples = _paired(first, second)
    partly = len(samples) < max(len(first[1]), len(second[1]))
    numbers = (float(larger.mean()), float(smaller.mean())) if partly else None
    return fall_evidence(larger, smaller, samples, draws), numbers


def _exact(gate: Gate) -> bool:
    metric = listed(gate.metric)
    return metric is not None and metric.exact


Queries = tuple[NDArray[np.float64], NDArray[np.object_]]


def _queries(run: Run, row: Row) -> Queries | None:
    """The outcomes of a row and their sample ids; None where there are none."""
    cell = run.cell(row)
    if cell not in run.outcomes.cells():
        return None
    values, samples = run.outcomes.of(cell)
    if abs(values.mean() - run.value(row)) > ROUNDED:
        raise GateError(f"{run.name} is of two runs: the number is {run.value(row)}, its outcomes say {values.mean()}")
    return values, samples


def _paired(left: Queries, right: Queries) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.object_]]:
    """Values of both sides and sample ids of the queries that both have: the first of a sample with the first of it."""
    if left[1].shape == right[1].shape and bool((left[1] == right[1]).all()):
        return left[0], right[0], left[1]
    places = {key: place for place, key in enumerate(_numbered(right[1]))}
    both = [(place, places[key]) for place, key in enumerate(_numbered(left[1])) if key in places]
    if not both:
        counts = " and ".join(str(len(set(side[1]))) for side in (left, right))
        raise GateError(f"0 samples paired: the {counts} samples of both sides have no id in common")
    mine, yours = (list(part) for part in zip(*both, strict=True))
    return left[0][mine], right[0][yours], left[1][mine]


def _numbered(samples: NDArray[np.object_]) -> list[tuple[str, int]]:
    """Each sample id with how often it came before."""
    seen: dict[str, int] = {}
    found = []
    for sample in samples:
        found.append((sample, seen.get(sample, 0)))
        seen[sample] = seen.get(sample, 0) + 1
    return found
