"""One record a number, in long form: the only thing that reports and gates read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from koda_audit._files import digest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """One number. ``protocol`` signs what was measured, ``provenance`` on what; ``chance``: of blind guessing.

    Two numbers are comparable when their protocols are equal; provenance is compared and shown, and never refuses.
    """

    model: str
    pretrained: str
    dataset: str
    task: str
    metric: str
    value: float | None
    suite: str | None = None
    reference: str | None = None
    split: str | None = None
    language: str | None = None
    alignment: str | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    chance: float | None = None
    unit: str | None = None
    n: int | None = None
    seed: int | None = None
    status: str = "ok"
    error: str | None = None
    protocol: str | None = None
    provenance: str | None = None


# the order of the columns in results.csv
COLUMNS = (
    *("suite", "model", "pretrained", "reference", "dataset", "split", "language", "task", "alignment", "metric"),
    *("value", "ci_low", "ci_high", "chance", "unit", "n", "seed", "status", "error", "protocol", "provenance"),
)
assert set(COLUMNS) == {field.name for field in fields(Result)}


def records(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Plain dicts in the order of the columns."""
    return [{column: getattr(result, column) for column in COLUMNS} for result in results]


def frame(results: Iterable[Result]) -> pd.DataFrame:
    """The results as a table."""
    import pandas as pd

    return pd.DataFrame(records(results), columns=list(COLUMNS))


def signature(ingredients: Any) -> str:
    """A short digest of plain types, for ``protocol`` and ``provenance``."""
    return digest(ingredients)[:12]
