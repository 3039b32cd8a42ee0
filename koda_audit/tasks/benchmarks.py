"""The benchmarks of a suite: the host's evaluations from stored embeddings, aligned or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from koda_audit.metrics import EVALUATED
from koda_audit.settings import AtLeastOne, Distinct, Positive, Settings, Some
from koda_audit.tasks.protocol import Inputs, Needs, Outcome, Task


class Benchmark(Task):
    """One evaluation; the names of those that the host has are its own."""

    prefix = ""

    def __init__(self, name: str, help: str, needs: Needs, settings: type[Settings] = Settings) -> None:
        self.name, self.help, self.needs, self.Settings = name, help, needs, settings

    def metrics(self, settings: Any) -> Collection[str]:
        ends = [f"@{k}" for k in settings.recall_at] if self.name == "zeroshot_retrieval" else [""]
        return [key + end for key in EVALUATED[self.name] for end in ends]

    def run(self, inputs: Inputs, settings: Any) -> Outcome:
        from koda_audit.tasks.benchmarks_run import run

        return run(self.name, inputs, settings)


class RetrievalSettings(Settings):
    """Recall of captions and of images."""

    recall_at: Annotated[list[AtLeastOne], Some, Distinct] = Field(
        default=[1, 5, 10], description="numbers of nearest candidates among which the right one counts"
    )


class ProbeSettings(Settings):
    """Logistic regression on the embeddings of the train split."""

    C: Positive | None = Field(
        default=None, description="inverse strength of the L2 penalty; default: chosen on a part of the train split"
    )


class ClusteringSettings(Settings):
    """k-means of images and texts together."""

    clusters: AtLeastOne | None = Field(default=None, description="how many; default: as many as there are classes")
    protocol: Literal["default", "grassucci2026"] = Field(default="default", description="whose")


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        one.name: one
        for one in (
            Benchmark(
                "zeroshot_classification",
                "accuracy of the nearest class prompt",
                Needs(kind="classes", aligned=True),
            ),
            Benchmark(
                "zeroshot_retrieval",
                "recall of captions and of images",
                Needs(kind="captions", aligned=True),
                RetrievalSettings,
            ),
            Benchmark(
                "linear_probe",
                "accuracy of a logistic regression on the embeddings",
                Needs(kind="classes", aligned=True, train=True),
                ProbeSettings,
            ),
            Benchmark("clustering", "k-means of images and texts together", Needs(aligned=True), ClusteringSettings),
            Benchmark(
                "side_effects",
                "how zero-shot decisions spread over the classes, and what an alignment changes of them",
                Needs(kind="classes", aligned=True),
            ),
        )
    }
)
