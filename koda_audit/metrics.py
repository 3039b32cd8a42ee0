"""The table of metrics: what each key means, its range, and which way is better.

Chance levels depend on the data (1/C, k/n) and stand beside the number, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from koda_audit._gap.table import METRICS as GAP
from koda_audit._gap.table import VARIANTS
from koda_audit.registry import measures, tasks

P_VALUE = "_p_value"  # of a measure of similarity


@dataclass(frozen=True)
class Metric:
    """``better`` is "up", "down", or None for a number that is no merit.

    ``exact``: a count or a setting, which has no interval; a gate compares it as it is. ``bare``: it has none either,
    nor outcomes, and is a matter of chance: no gate can be judged by it.
    """

    key: str
    meaning: str
    low: float | None
    high: float | None
    better: Literal["up", "down"] | None = None
    unit: str | None = None
    exact: bool = False
    bare: bool = False

    @property
    def span(self) -> str:
        """Range and better direction in words.

        >>> Metric("acc1", "share of hits", 0, 1, "up").span
        '0 to 1, higher is better'
        """
        low, high = (
            ("-inf" if self.low is None else f"{self.low:g}"),
            ("inf" if self.high is None else f"{self.high:g}"),
        )
        better = {"up": ", higher is better", "down": ", lower is better", None: ""}[self.better]
        return f"{low} to {high}{better}"


_KODA = (
    Metric("coherence", "mean coherence of the directions in the model that groups (exact kernel)", 0, 1),
    Metric("coherence_other", "mean coherence of those directions in the other model (exact kernel)", 0, 1),
    Metric("excess_top1", "largest excess of a group: its coherence in one model minus the other", -1, 1),
    Metric(
        "findings",
        "groups that are findings: stable, held apart, not kept by the other model, and beyond the floor",
        0,
        None,
        exact=True,
    ),
    Metric(
        "near",
        "groups whose stability is within two standard errors of the bound",
        0,
        None,
        exact=True,
    ),
    Metric("finding_samples", "share of the samples that lie in a finding", 0, 1),
    Metric("stability_top1", "stability of the group with the largest excess: mean Jaccard on random halves", 0, 1),
    Metric("retention_top1", "how much of that group the other model keeps: 0 nothing, 1 all", None, None),
    Metric("loss_top1", "share of that group's coherence that the other model lacks", None, 1),
    Metric("floor", "largest excess that the model shows against itself in other batches", 0, 1),
    Metric("ami", "AMI of k-means clusters and groups in the model that groups: 1 equal, 0 chance", -1, 1),
    Metric("ami_other", "the same in the other model", -1, 1),
    Metric("directions", "directions that the groups were read off", 0, None, exact=True),
    Metric(
        "epsilon", "what sets the price of coherence in the other model: its mean over the leading directions", 0, 1
    ),
    Metric(
        "duality_gap_max",
        "gap to the dual optimum, a direction: 0 is the global optimum",
        0,
        None,
        exact=True,
    ),
    Metric("lambda_max", "largest eigenvalue of the kernel K/n of the model that groups, after its bandwidth", 0, 1),
)

# zero-shot side effects: how decisions spread over the classes, and what a gap does to their scores
_DECISIONS = (
    Metric("prediction_gini", "Gini coefficient of how often each class is decided for: 0 equally often", 0, 1, "down"),
    Metric("prediction_entropy", "entropy of the same over log C: 1 equally often, 0 always one class", 0, 1, "up"),
    Metric("label_gini", "Gini coefficient of the labels: what prediction_gini of a right model would be", 0, 1),
    Metric("class_bias_spread", "standard deviation over classes of what closing the gap adds to a score", 0, None),
)

_ROBUSTNESS = (
    Metric("agreement", "share of queries whose nearest gallery row is the same under noise", 0, 1, "up"),
    Metric("agreement_se", "its standard error over trials", 0, None),
    Metric("agreement_closed", "agreement once the gallery has moved by all that keeps its ranking", 0, 1, "up"),
    Metric("agreement_gain", "agreement_closed minus agreement, in the same trials", -1, 1, "up"),
    Metric("agreement_gain_se", "its standard error over trials", 0, None),
    Metric("best_alpha", "how far to move for the largest agreement, of the alphas measured", None, None),
    Metric("clean_kept", "share of clean answers that the move leaves as they were", 0, 1, "up"),
    Metric("clean_accuracy", "share of queries whose nearest gallery row is right, without noise", 0, 1, "up"),
    Metric("clean_accuracy_closed", "the same once the gallery has moved", 0, 1, "up"),
    Metric("noisy_accuracy", "share of queries whose nearest gallery row is right under noise", 0, 1, "up"),
    Metric("noisy_accuracy_closed", "the same once the gallery has moved", 0, 1, "up"),
    Metric("noisy_accuracy_gain", "noisy_accuracy_closed minus noisy_accuracy, in the same trials", -1, 1, "up"),
    Metric("gap", "distance of the centroids of gallery and queries", 0, 2),
    Metric("orthogonal_gap", "length of the part of the gap that can be closed", 0, 2),
    Metric("residual_gap", "distance of the centroids once it is closed", 0, 2),
    Metric("movable", "1 where there is a part of the gap that can be closed, else 0", 0, 1, exact=True),
    Metric("rank", "principal directions of the gallery that the move leaves alone", 0, None, exact=True),
    Metric("n_gallery", "rows that are retrieved", 1, None, exact=True),
    Metric("n_queries", "queries", 1, None, exact=True),
)
# those of them that are means over queries; their change and all that describes the gap are not
_ANSWERS = tuple(
    f"{answers}{end}" for answers in ("agreement", "clean_accuracy", "noisy_accuracy") for end in ("", "_closed")
)


def _recalls(at: str, k: str) -> Iterator[Metric]:
    for sought, who in (("image", "texts with their image"), ("text", "images with one of their texts")):
        yield Metric(f"{sought}_retrieval_recall{at}", f"share of {who} among the {k} nearest", 0, 1, "up")


_CLASSIFICATION = (
    Metric("acc1", "share of images whose nearest class prompt is that of their label", 0, 1, "up"),
    Metric("acc5", "share of images with it among the five nearest; not defined for fewer classes", 0, 1, "up"),
    Metric("mean_per_class_recall", "acc1 of each class that occurs, averaged over these classes", 0, 1, "up"),
    Metric("mean_average_precision", "average precision of each class, averaged over all classes", 0, 1, "up"),
)
_PROBE = (
    Metric("probe_accuracy", "share of images that logistic regression on the embeddings gets right", 0, 1, "up"),
    Metric("probe_mean_per_class_recall", "the same of each class that occurs, averaged over these", 0, 1, "up"),
    Metric("probe_C", "inverse strength of its L2 penalty", 0, None, exact=True),
    Metric("probe_converged", "1 where it converged within 1,000 iterations, else 0", 0, 1, exact=True),
)
_CLUSTERING = (
    Metric("ari", "adjusted Rand index of k-means clusters of all rows and the classes", -0.5, 1, "up"),
    Metric("nmi", "their normalised mutual information", 0, 1, "up"),
    Metric("homogeneity", "1 where each cluster holds one class", 0, 1, "up"),
    Metric("v_measure", "harmonic mean of homogeneity and completeness", 0, 1, "up"),
    Metric("modality_purity", "share of rows of the more frequent modality of their cluster", 0.5, 1, "down"),
    Metric("pair_together", "share of pairs in one cluster", 0, 1, "up"),
)
_ALIGNED = (
    *_CLASSIFICATION,
    *(metric for k in ("1", "5", "10") for metric in _recalls(f"@{k}", k)),
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


def _aligned(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Each metric after the alignment, before it, and the change with its interval."""
    for metric in metrics:
        yield metric
        for suffix, said in _CHANGE.items():
            low = metric.low if suffix == "_before" else None if metric.high is None else -metric.high
            yield replace(metric, key=metric.key + suffix, meaning=said.format(f"aligned_{metric.key}"), low=low)
    yield Metric("changed_decisions", "share of images that are decided otherwise than before the alignment", 0, 1)


def _bare(metrics: Iterable[Metric], but: Iterable[str] = ()) -> Iterator[Metric]:
    """Metrics of which only the exact ones, and ``but``, can be judged."""
    for metric in metrics:
        yield replace(metric, bare=not metric.exact and metric.key not in but)


def _prefixed(prefix: str, metrics: Iterable[Metric]) -> dict[str, Metric]:
    return {f"{prefix}{metric.key}": replace(metric, key=f"{prefix}{metric.key}") for metric in metrics}


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        # each comparison is made both ways: what the model groups and the reference does not, and the reverse
        **_prefixed("koda_", _bare(_KODA)),
        **_prefixed("koda_reverse_", _bare(_KODA)),
        **_prefixed(
            "gap_",
            (
                Metric(m.key, m.definition, m.low, m.high, m.better, bare=not m.interval)
                for m in {**GAP, **VARIANTS}.values()
            ),
        ),
        **_prefixed("gap_", _DECISIONS),
        **_prefixed("gaprob_", _bare(_ROBUSTNESS, but=_ANSWERS)),
        **_prefixed("aligned_", _aligned(_ALIGNED)),
        **_prefixed("", (*_CLASSIFICATION, *_recalls("", "k"), *_PROBE, *_CLUSTERING)),
    }
)


def under(prefix: str) -> tuple[Metric, ...]:
    """Those of the table whose keys begin so.

    >>> [metric.key for metric in under("koda_near")]
    ['koda_near']
    """
    return tuple(metric for key, metric in METRICS.items() if key.startswith(prefix))


# task of a benchmark -> its metrics; those of retrieval are followed by @k
EVALUATED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "zeroshot_classification": tuple(metric.key for metric in _CLASSIFICATION),
        "zeroshot_retrieval": tuple(metric.key for metric in _recalls("", "k")),
        "linear_probe": tuple(metric.key for metric in _PROBE),
        "clustering": tuple(metric.key for metric in _CLUSTERING),
        "side_effects": (*(f"gap_{metric.key}" for metric in _DECISIONS), "aligned_changed_decisions"),
    }
)


def listed(key: str) -> Metric | None:
    """The metric of that key in the table; what follows an @ (the k of a recall, the variance of noise) is a setting.

    >>> listed("image_retrieval_recall@7").meaning
    'share of texts with their image among the k nearest'
    """
    base = key.partition("@")[0]
    return METRICS.get(key) or METRICS.get(base) or _others().get(base)


@lru_cache(maxsize=1)
def _others() -> Mapping[str, Metric]:
    """Those of the tasks of other packages."""
    return {metric.key: metric for _, task in tasks().usable() for metric in task.meanings if metric.key not in METRICS}


def within(key: str, interval: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """An interval cut to the range that its metric has; None twice where there is none.

    >>> within("acc1", (0.98, 1.02)), within("acc1", None)
    ((0.98, 1.0), (None, None))
    """
    if interval is None:
        return None, None
    metric = listed(key)
    ends = interval
    if metric is not None and metric.low is not None:
        ends = max(ends[0], metric.low), max(ends[1], metric.low)
    if metric is not None and metric.high is not None:
        ends = min(ends[0], metric.high), min(ends[1], metric.high)
    return float(ends[0]), float(ends[1])


def described(key: str) -> Metric | None:
    """What a key means; None for one that is not ours.

    ``sim_MODALITY_MEASURE`` is described by the measure, which may be another package's; only then is it imported.

    >>> described("gap_centroid_gap").high, described("sim_text_rsa").low, described("recall@5")
    (2, -1.0, None)
    """
    task, _, rest = key.removesuffix(P_VALUE).partition("_")
    modality, _, name = rest.partition("_")
    if task != "sim" or name not in measures().names():
        return listed(key)
    measure = measures().load(name)
    if key.endswith(P_VALUE):
        return Metric(key, f"p-value of {name} under random pairings ({modality})", 0, 1)
    return Metric(key, f"{measure.meaning} ({modality})", measure.low, measure.high)
