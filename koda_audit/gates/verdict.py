"""Verdicts. One rule makes text and exit code: any ERROR is 2, else any FAIL is 1, else 0."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from koda_audit.gates.gate import Gate

Word = Literal["PASS", "WARN", "FAIL", "ERROR"]


@dataclass(frozen=True)
class Verdict:
    """What a gate came to.

    Attributes:
        estimate: the fall of ``max_drop``, the rise of ``max_rise``, the number itself of ``min`` and ``max``.
        bound: one-sided confidence bound of the estimate, at ``confidence``: FAIL exactly where it is beyond the
            tolerance. An upper one for ``min``, else a lower one; None where a number is compared as it is.
        confidence: 1 minus the level that Holm leaves to this gate.
        n: samples (images), paired where two sides are compared.
        p: one-sided, before Holm; 1 where it is no less than 1/2.
        smallest: the smallest true change (or value of the number) that would have been found with a chance of 80 %;
            None where there are too few samples for any.
        worst: the bound on the other side: how bad the truth may be, with the same confidence.
        chance: the level of blind guessing, where no side is surely above it.
        provenance: "same" or "changed" between both sides.
    """

    gate: Gate
    verdict: Word
    sentence: str
    estimate: float | None = None
    bound: float | None = None
    confidence: float | None = None
    n: int | None = None
    p: float | None = None
    smallest: float | None = None
    worst: float | None = None
    chance: float | None = None
    provenance: str | None = None

    def record(self) -> dict[str, Any]:
        """The fields of the gate and of the verdict side by side, in plain types."""
        own = {name: value for name, value in vars(self).items() if name != "gate"}
        return {"verdict": own.pop("verdict"), **asdict(self.gate), "tolerance": self.gate.tolerance, **own}


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """2 with any ERROR, else 1 with any FAIL, else 0."""
    words = {verdict.verdict for verdict in verdicts}
    return 2 if "ERROR" in words else 1 if "FAIL" in words else 0
