"""A verdict in words."""

from __future__ import annotations

from koda_audit._stats.evidence import LEAST
from koda_audit.gates.verdict import Verdict


def sentence(verdict: Verdict, values: tuple[float, ...], method: str) -> str:
    """What was found, how sure it is, what is allowed, on how many samples, and what could have been found.

    A FAIL says how bad the truth is at least, any other verdict how bad it may be.

    Args:
        values: the number of the model, and that of the other side.
        method: of the evidence, in words.
    """
    gate, estimate, failed = verdict.gate, verdict.estimate, verdict.verdict == "FAIL"
    assert estimate is not None
    sure = "" if verdict.confidence is None else f" with {100 * verdict.confidence:.4g} % confidence"
    edge = verdict.bound if failed else verdict.worst
    chance = "" if verdict.chance is None else f" better than chance ({verdict.chance:.4g})"
    if gate.compares:
        word, other = ("fall", "rise") if gate.kind == "max_drop" else ("rise", "fall")
        verb = "fell" if (gate.kind == "max_drop") == (estimate >= 0) else "rose"
        said = f"{verb} by {abs(estimate):.4g}, from {values[1]:.4g} to {values[0]:.4g}"
        if values[0] == values[1]:
            said = f"stayed {values[0]:.4g}"
        said += chance and f", neither{chance}"
        if edge is not None:
            least = failed == (edge >= 0)
            said += f"; {word if edge >= 0 else other} of at {'least' if least else 'most'} {abs(edge):.4g}{sure}"
    else:
        word = "number"
        said = f"is {values[0]:.4g}" + (chance and f", no{chance}")
        if edge is not None:
            said += f"; at {'most' if failed == (gate.kind == 'min') else 'least'} {edge:.4g}{sure}"
    paired = "paired " if gate.compares else ""
    count = "" if verdict.n is None else f", {verdict.n} {paired}samples"
    tested = "" if verdict.p is None else f", p {'<' if verdict.p <= LEAST else '='} {verdict.p:.2g}"
    seen = ""
    if verdict.bound is not None and not failed:
        seen = "; too few samples to show any"
        if verdict.smallest is not None:
            seen = f"; a {word} of {verdict.smallest:.4g} would have shown with a chance of 80 %"
    return f"{said}; {gate.kind} is {gate.tolerance:g} ({method}{count}{tested}){seen}"
