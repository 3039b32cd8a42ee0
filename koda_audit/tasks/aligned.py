"""The tasks koda_aligned_…: benchmarks of the host before and after an alignment, from one set of embeddings."""

from __future__ import annotations

from typing import Any, Literal

from koda_audit.metrics import under
from koda_audit.settings import Settings
from koda_audit.tasks.benchmarks import RetrievalSettings
from koda_audit.tasks.protocol import Inputs, Needs, Outcome, Task


class AlignedTask(Task):
    """The host's numbers before and after an alignment, and their change."""

    prefix = "koda_aligned"
    meanings = under("aligned_")

    def __init__(
        self, name: str, kind: Literal["classes", "captions"], help: str, settings: type[Settings] = Settings
    ) -> None:
        self.name, self.help, self.Settings = name, help, settings
        self.needs = Needs(kind=kind, fit=True)

    def run(self, inputs: Inputs, settings: Any) -> Outcome:
        from koda_audit.tasks.aligned_run import run

        return run(inputs, settings)


classification = AlignedTask(
    "koda_aligned_classification",
    "classes",
    "zero-shot classification before and after an alignment of finished embeddings, and what else it changes",
)
retrieval = AlignedTask(
    "koda_aligned_retrieval",
    "captions",
    "zero-shot retrieval before and after an alignment of finished embeddings",
    RetrievalSettings,
)
