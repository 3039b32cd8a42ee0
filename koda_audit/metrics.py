"""The table of metrics: what each key means, its range, and which way is better.

Chance levels depend on the data (1/C, k/n) and stand beside the number, not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """``better`` is "up", "down", or None for a number that is no merit."""

    key: str
    meaning: str
    low: float | None
    high: float | None
    better: Literal["up", "down"] | None = None
    unit: str | None = None


_KODA = (
    Metric("coherence_top1", "coherence x'Ax/n of direction 1 in the model that groups (exact kernel)", 0, 1),
    Metric("coherence_other_top1", "coherence x'Bx/n of that direction in the other model (exact kernel)", 0, 1),
    Metric("excess_top1", "largest excess of a lobe: its coherence in one model minus the other", -1, 1),
    Metric("findings", "lobes that are findings: stable, beyond the floor, and clearly lost in the other", 0, None),
    Metric("stability_top1", "stability of the lobe with the largest excess: mean Jaccard on random halves", 0, 1),
    Metric("loss_top1", "share of that lobe's coherence that the other model lacks", None, 1),
    Metric("floor", "largest excess that the model shows against itself in other batches", 0, 1),
    Metric("ami", "AMI of k-means clusters and lobes in the model that groups: 1 equal, 0 chance", -1, 1),
    Metric("ami_other", "the same in the other model", -1, 1),
    Metric("directions", "directions found (fewer than asked when the others are infeasible)", 0, None),
    Metric("epsilon", "the most the other model may show on the kernel used to find directions", 0, 1),
    Metric("duality_gap_max", "largest gap to the dual optimum over all directions: 0 is the global optimum", 0, None),
    Metric("lambda_max", "largest eigenvalue of the kernel K/n of the model that groups, after its bandwidth", 0, 1),
)

# each comparison is made both ways: what the model groups and the reference does not, and the reverse
METRICS: dict[str, Metric] = {
    f"{prefix}{metric.key}": Metric(f"{prefix}{metric.key}", metric.meaning, metric.low, metric.high, metric.better)
    for prefix in ("koda_", "koda_reverse_")
    for metric in _KODA
}
