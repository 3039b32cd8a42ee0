"""A verdict in words."""

from __future__ import annotations

from koda_audit._stats.evidence import LEAST, Evidence
from koda_audit.gates.gate import Gate


def sentence(
    gate: Gate,
    values: tuple[float, ...],
    estimate: float,
    bound: float | None,
    confidence: float | None,
    evidence: Evidence,
    p_value: float | None,
    smallest: float | None,
    failed: bool,
) -> str:
    """What was found, how sure it is, what is allowed, on how many samples, and what could have been found.

    Args:
        values: the number of the model, and that of the other side.
        estimate, bound, confidence, p_value, smallest: as in a verdict.
    """
    sure = "" if confidence is None else f" with {100 * confidence:.4g} % confidence"
    if gate.compares:
        verb = "fell" if (gate.kind == "max_drop") == (estimate >= 0) else "rose"
        said = f"{verb} by {abs(estimate):.4g}, from {values[1]:.4g} to {values[0]:.4g}"
        if values[0] == values[1]:
            said = f"stayed {values[0]:.4g}"
        word, other = ("fall", "rise") if gate.kind == "max_drop" else ("rise", "fall")
        edge = "" if bound is None else f"; {word} of at least {bound:.4g}{sure}"
        if bound is not None and bound < 0:
            edge = f"; no {other} of more than {-bound:.4g}{sure}"
    else:
        word = "number"
        said = f"is {values[0]:.4g}"
        edge = "" if bound is None else f"; at {'most' if gate.kind == 'min' else 'least'} {bound:.4g}{sure}"
    paired = "paired " if gate.compares else ""
    count = "" if evidence.n is None else f", {evidence.n} {paired}samples"
    tested = "" if p_value is None else f", p {'<' if p_value <= LEAST else '='} {p_value:.2g}"
    seen = ""
    if bound is not None and not failed:
        seen = "; too few samples to show any"
        if smallest is not None:
            seen = f"; a {word} of {smallest:.4g} would have shown with a chance of 80 %"
    return f"{said}{edge}; {gate.kind} is {gate.tolerance:g} ({evidence.method}{count}{tested}){seen}"
