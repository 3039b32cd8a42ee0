"""The table of metrics: what each key means, its range, and which way is better.

Chance levels depend on the data (1/C, k/n) and stand beside the number, not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

_ALIGNED = (
    Metric("acc1", "share of images whose nearest class prompt is that of their label", 0, 1, "up"),
    Metric("acc5", "share of images with it among the five nearest; not defined for fewer classes", 0, 1, "up"),
    Metric("mean_per_class_recall", "acc1 of each class that occurs, averaged over these classes", 0, 1, "up"),
    Metric("mean_average_precision", "average precision of each class, averaged over all classes", 0, 1, "up"),
    *(
        Metric(f"{sought}_retrieval_recall@{k}", f"share of {asked} with {found} among the {k} nearest", 0, 1, "up")
        for k in (1, 5, 10)
        for sought, asked, found in (("image", "texts", "their image"), ("text", "images", "one of their texts"))
    ),
    Metric("prediction_gini", "how unevenly zero-shot decisions spread over the classes: 0 evenly", 0, 1),
    Metric("prediction_entropy", "entropy of the decisions in parts of the largest: 1 evenly", 0, 1),
    Metric("class_bias_spread", "standard deviation over the classes of what the gap adds to their scores", 0, None),
    Metric("centroid_gap", "distance of the mean image and the mean text, all rows at length 1", 0, 2),
)
_CHANGE = {  # suffix -> what it is of the metric without it
    "_before": "{} before the alignment",
    "_change": "{} after minus before",
    "_change_low": "low end of the 95 % interval of {}_change",
    "_change_high": "high end of the 95 % interval of {}_change",
}

for _metric in _ALIGNED:
    _name = f"aligned_{_metric.key}"
    METRICS[_name] = replace(_metric, key=_name)
    for _suffix, _said in _CHANGE.items():
        _low = _metric.low if _suffix == "_before" else None if _metric.high is None else -_metric.high
        METRICS[_name + _suffix] = replace(_metric, key=_name + _suffix, meaning=_said.format(_name), low=_low)
METRICS["aligned_changed_decisions"] = Metric(
    "aligned_changed_decisions", "share of images that are decided otherwise than before the alignment", 0, 1
)
