"""Which metrics a suite measures, known without running it."""

from __future__ import annotations

from collections.abc import Iterator

from koda_audit._gap.table import METRICS as GAP
from koda_audit.metrics import EVALUATED, METRICS, P_VALUE
from koda_audit.suite.schema import Suite


def metrics_of(suite: Suite, step: str | None = None, task: str | None = None) -> set[str]:
    """The keys that its table of results may have: some need data of one kind, as acc5 needs five classes.

    Args:
        step: those of one kind of cell alone.
        task: those of one task of the benchmark alone.
    """
    parts = {"compare": _compared, "similarity": _similarity, "gap": _gap}
    found = {key for name, part in parts.items() if step in (None, name) for key in part(suite)}
    return found | set(_evaluated(suite, task) if step in (None, "evaluate") else ())


def _compared(suite: Suite) -> Iterator[str]:
    if suite.discrepancy is not None:
        yield from (key for key in METRICS if key.startswith("koda_"))


def _similarity(suite: Suite) -> Iterator[str]:
    part = suite.similarity
    if part is not None:
        for measure in part.measures:
            yield from (f"sim_{part.modality}_{measure}{end}" for end in ("", P_VALUE)[: 2 if part.permutations else 1])


def _gap(suite: Suite) -> Iterator[str]:
    if suite.gap is None:
        return
    yield from (f"gap_{key}" for key in GAP)
    if suite.gap.robustness is not None:
        ends = variances(suite.gap.robustness.total_var)
        yield from (key + end for key in METRICS if key.startswith("gaprob_") for end in ends)


def variances(total_var: list[float]) -> list[str]:
    """What tells the numbers of several variances of noise apart: the end of their metrics' names.

    >>> variances([0.02]), variances([0.005, 0.04])
    ([''], ['@0.005', '@0.04'])
    """
    return [f"@{float(variance)!r}" for variance in total_var] if len(total_var) > 1 else [""]


def _evaluated(suite: Suite, only: str | None) -> Iterator[str]:
    if suite.benchmark is None:
        return
    for task in suite.benchmark.tasks if only is None else [only]:
        ends = [f"@{k}" for k in suite.benchmark.recall_at] if task == "zeroshot_retrieval" else [""]
        yield from (key + end for key in EVALUATED[task] for end in ends)
