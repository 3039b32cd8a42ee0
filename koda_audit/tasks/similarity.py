"""The task koda_similarity: how alike a model and a reference represent the same samples."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from koda_audit.errors import unknown
from koda_audit.metrics import P_VALUE
from koda_audit.registry import measures
from koda_audit.settings import AtLeastOne, Distinct, Settings, Some
from koda_audit.tasks.protocol import Inputs, Needs, Outcome, Task

MODALITIES = ("image", "text", "joint")


def _installed(names: list[str]) -> list[str]:
    known = measures().names()
    for name in names:
        if name not in known:
            raise ValueError(unknown("measure", name, known))
    return names


class SimilaritySettings(Settings):
    """How alike two models represent the same samples; rows are brought to length 1."""

    measures: Annotated[list[str], Some, Distinct, AfterValidator(_installed)] = Field(
        default=["cka_linear", "cka_linear_debiased", "procrustes", "cka_rbf", "rsa", "mutual_knn", "cknna"],
        description="names of `koda-audit list measures`; svcca and pwcca need many more samples than columns",
    )
    modality: Literal["all", "image", "text", "joint"] = Field(
        default="all", description="which rows are compared; joint: the image's beside the text's"
    )
    interval: bool = Field(
        default=True,
        description="95 % intervals, by leaving out each of 20 groups of samples: slow for thousands of them",
    )
    permutations: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=20, description="random pairings of the samples, for the chance level and the p-value"
    )
    k: AtLeastOne = Field(default=10, description="neighbours of mutual_knn and cknna")
    floor: Literal["batch", "none"] = Field(
        default="none", description="batch: embed once more, in other batches, and compare the model with itself"
    )


class SimilarityTask(Task):
    """``similarity`` of images, of texts, and of both together, on rows of length 1."""

    name = "koda_similarity"
    help = "how alike a model and the reference represent the same images and texts"
    prefix = "koda_sim"
    needs = Needs(models=2, samples=12)  # ten neighbours of each, and one that an interval leaves out
    Settings = SimilaritySettings

    def metrics(self, settings: Any) -> Collection[str]:
        ends = ("", P_VALUE) if settings.permutations else ("",)
        shown = MODALITIES if settings.modality == "all" else (settings.modality,)
        return [f"sim_{modality}_{one}{end}" for modality in shown for one in settings.measures for end in ends]

    def run(self, inputs: Inputs, settings: Any) -> Outcome:
        from koda_audit.tasks.similarity_run import run

        return run(inputs, settings)


task = SimilarityTask()
