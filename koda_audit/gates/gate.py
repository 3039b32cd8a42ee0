"""What a gate asks of one number, and the files that hold gates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from koda_audit._options import finite_number
from koda_audit._yaml import read_yaml
from koda_audit.errors import InputError, unknown
from koda_audit.metrics import listed

Kind = Literal["max_drop", "max_rise", "min", "max"]
LEAST_LEVEL = 0.0001  # a bound at a smaller one rests on no draws
KINDS: tuple[Kind, ...] = ("max_drop", "max_rise", "min", "max")


@dataclass(frozen=True)
class Gate:
    """One number and its tolerance: exactly one of ``max_drop``, ``max_rise``, ``min`` and ``max``.

    Attributes:
        metric, dataset, model: as in the table of results.
        task: needed where the metric stands under several.
        alignment: default none.
        against: another model of the same audit; None for the same model in the baseline. For ``min`` and ``max`` it
            is the reference of a metric that compares two models.
        max_drop, max_rise: 0 or more; how far the number may lie below or above the other side's.
        min, max: the least and the most the number may be.
        level: the chance of a false FAIL, with Holm over all gates that are judged together.

    Raises:
        InputError: none or several tolerances, one that is no number, a level outside of 0.0001 to 0.5.

    >>> Gate("acc1", "cifar10", "candidate", against="deployed", max_drop=0.01).tolerance
    0.01
    """

    # for the schema of suites, which is made of this class
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "json_schema_extra": {"description": "A number and exactly one of max_drop, max_rise, min and max."},
    }
    metric: str
    dataset: str
    model: str
    task: str | None = None
    alignment: str | None = None
    against: str | None = None
    max_drop: float | None = None
    max_rise: float | None = None
    min: float | None = None
    max: float | None = None
    level: float = 0.05

    def __post_init__(self) -> None:
        for name in ("metric", "dataset", "model", "task", "alignment", "against"):
            text = getattr(self, name)
            if not (isinstance(text, str) and text) and (text is not None or name in ("metric", "dataset", "model")):
                raise InputError(f"a gate's {name} must be a text, found {text!r}")
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise InputError(f"{self.name}: exactly one of {', '.join(KINDS)}, found {' and '.join(given) or 'none'}")
        if not _number(self.tolerance) or (self.compares and self.tolerance < 0):
            wanted = "a number of 0 or more" if self.compares else "a number"
            raise InputError(f"{self.name}: {self.kind} must be {wanted}, found {self.tolerance!r}")
        if self.compares and self.tolerance >= (width := _width(self.metric)):
            raise InputError(
                f"{self.name}: {self.kind} of {self.tolerance:g} is never exceeded: {self.metric} changes by at most "
                f"{width:g}; write 0.02 for 2 points of 100"
            )
        if not _number(self.level) or not LEAST_LEVEL <= self.level < 0.5:
            raise InputError(f"{self.name}: level must be {LEAST_LEVEL} or more and below 0.5, found {self.level!r}")
        if self.against == self.model:
            raise InputError(f"{self.name}: against the model itself there is nothing to compare")

    @property
    def kind(self) -> Kind:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def tolerance(self) -> float:
        value: float = getattr(self, self.kind)
        return value

    @property
    def compares(self) -> bool:
        """Whether it looks at a change, which needs another side."""
        return self.kind in ("max_drop", "max_rise")

    @property
    def name(self) -> str:
        """For messages: what it is about, without its tolerance."""
        words = f"{self.metric} of {self.model} on {self.dataset}"
        return words + (f", alignment {self.alignment}" if self.alignment else "")


def gate_of(record: Any) -> Gate:
    """A gate from plain types.

    Raises:
        InputError: no mapping, an unknown or missing key, or what ``Gate`` refuses.

    >>> gate_of({"metric": "acc1", "dataset": "cifar", "model": "v2", "levle": 0.1, "min": 0})
    Traceback (most recent call last):
    koda_audit.errors.InputError: unknown key of a gate 'levle': did you mean 'level'?
    """
    names = [field.name for field in fields(Gate)]
    if not isinstance(record, Mapping):
        raise InputError(f"a gate must be a mapping such as {{metric: acc1, …}}, found {record!r:.100}")
    for key in record:
        if key not in names:
            raise InputError(unknown("key of a gate", str(key), names))
    missing = [name for name in names[:3] if name not in record]
    if missing:
        raise InputError(f"a gate needs metric, dataset and model: {missing[0]} is missing in {dict(record)!r:.200}")
    return Gate(**record)


def read_gates(path: Path) -> list[Gate]:
    """The gates of a YAML or JSON file: a list of them, or a mapping with a list ``gates``, such as a suite.

    Raises:
        InputError: the file cannot be read, or holds anything else; one line a fault, with the line of the file.
    """
    written = read_yaml(path)
    inside = isinstance(written.value, Mapping)
    listed = written.value.get("gates") if isinstance(written.value, Mapping) else written.value
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path} holds no gates: expected a list, or a mapping with a list 'gates'")
    found, faults = [], []
    for number, record in enumerate(listed):
        try:
            found.append(gate_of(record))
        except InputError as error:
            line = written.line(("gates", number) if inside else (number,))
            faults.append(f"{path}:{line}: gates[{number}]: {error}")
    if faults:
        raise InputError("\n".join(faults))
    return found


def _width(metric: str) -> float:
    """By how much the metric can change at most."""
    known = listed(metric)
    return math.inf if known is None or known.low is None or known.high is None else known.high - known.low


def _number(value: Any) -> bool:
    try:
        finite_number(value, "number", -1e300, 1e300)
    except InputError:
        return False
    return True
