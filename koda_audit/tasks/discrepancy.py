"""The task koda_discrepancy: groups of samples that one model clusters and the other does not, in both directions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from koda_audit.metrics import under
from koda_audit.settings import AtLeastOne, Settings, Share
from koda_audit.tasks.protocol import Inputs, Needs, Outcome, Task

DIFFER = "differ"  # the key of the section with the groups on which models differ most, which a suite shows first


def _halves(number: int) -> int:
    if number == 1:
        raise ValueError("give at least 2, whose spread is the error of a stability, or 0 for none")
    return number


class DiscrepancySettings(Settings):
    """Groups of samples that one model clusters and the other does not, both ways."""

    modality: Literal["joint", "image", "text"] = Field(
        default="joint", description="what a pair is compared by; joint: image and text"
    )
    kernel: Literal["rbf", "cosine", "polynomial"] = Field(default="rbf", description="kernel of each modality")
    features: Literal["auto", "exact", "random"] = Field(
        default="auto", description="exact kernel matrices, random features, or auto: exact up to 10,000 samples"
    )
    n_features: AtLeastOne = Field(default=3000, description="random frequencies (rbf) or projections of a model")
    directions: AtLeastOne | None = Field(
        default=None,
        description="directions each way; default: the number that shows most groups that come back on random halves",
    )
    epsilon: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None,
        description="mean coherence that the other model may show at most; default: 2/n, twice that of a random "
        "direction, and with random features at least 1/R",
    )
    preset: Literal["paper"] | None = Field(
        default=None,
        description="paper: KODA as published, random features, as epsilon the median eigenvalue of the other model, "
        "and the 50 heaviest samples of each direction; needs more than R samples, and has no findings",
    )
    halves: Annotated[int, Field(ge=0, le=10_000), AfterValidator(_halves)] = Field(
        default=25,
        description="random halves of the samples for the stability of each group, more near the bound; 0 for no "
        "findings",
    )
    min_stability: Share = Field(
        default=0.7, description="of a finding: how much of a group comes back on random halves"
    )
    floor: Literal["batch", "none"] = Field(
        default="batch", description="batch: embed once more, in other batches, and compare each model with itself"
    )


class DiscrepancyTask(Task):
    """Groups of samples by KODA's contrast (ICML 2026, arXiv 2606.04180) between a model and a reference, each way."""

    name = "koda_discrepancy"
    help = "groups of samples that one model clusters and the reference does not, and the reverse"
    prefix = "koda"
    needs = Needs(models=2, classes=True)
    Settings = DiscrepancySettings
    meanings = under("koda_")

    def check(self, settings: Any, samples: int) -> None:
        from koda_audit._arrays import choose_device
        from koda_audit.discrepancy.choices import plan

        chosen = settings.model_dump(exclude={"modality", "directions", "halves", "min_stability", "floor"})
        plan(samples, n_directions=settings.directions, device=choose_device(None), **chosen)

    def run(self, inputs: Inputs, settings: Any) -> Outcome:
        from koda_audit.tasks.discrepancy_run import run

        return run(inputs, settings)


task = DiscrepancyTask()
