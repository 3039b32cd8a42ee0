"""The task koda_gap_robustness: does noise on the gallery change answers, and does closing the gap help?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field

from koda_audit.metrics import under
from koda_audit.settings import AtLeastOne, Distinct, FromZero, Settings, Some
from koda_audit.tasks.protocol import Inputs, Needs, Outcome, Task

Alpha = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class GapRobustnessSettings(Settings):
    """How often noise on the texts changes the nearest one of an image, as the gap is closed."""

    noise: Literal["gaussian", "quantise"] = Field(  # other prompts, as noise, are for the Python function
        default="gaussian", description="on the texts, which are prompts of the classes or else captions"
    )
    total_var: Annotated[list[FromZero], Some, Distinct] = Field(
        default=[0.02],
        description="of gaussian noise: its expected squared length, where texts have length 1; of several each",
    )
    bins: Annotated[int, Field(ge=2, le=2**31)] = Field(
        default=64, description="of quantise: equal bins from the smallest to the largest entry"
    )
    metric: Literal["euclidean", "cosine", "dot"] = Field(
        default="euclidean", description="by which the nearest text is found"
    )
    alphas: Annotated[list[Alpha], Some] = Field(
        default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5],
        description="how far the texts are moved along the gap; 0 and 1 are always measured",
    )
    rank: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="principal directions of the texts that the move leaves alone: a number, or a share of the "
        "variance with a point in it; default: all, which keeps every ranking",
    )
    trials: AtLeastOne = Field(default=20, description="draws of the noise")
    queries: AtLeastOne = Field(
        default=5_000, description="images at most, drawn with the seed (and with captions, theirs)"
    )

    def variants(self) -> list[tuple[float, str]]:
        """Each variance of the noise, and what tells its numbers from those of others: the end of their keys.

        >>> GapRobustnessSettings().variants(), GapRobustnessSettings(total_var=[0.005, 0.04]).variants()
        ([(0.02, '')], [(0.005, '@0.005'), (0.04, '@0.04')])
        """
        if self.noise == "quantise" or len(self.total_var) == 1:
            return [(self.total_var[0], "")]
        return [(variance, f"@{float(variance)!r}") for variance in self.total_var]


class GapRobustnessTask(Task):
    """``gap_robustness`` of zero-shot classification where classes exist, else of the retrieval of captions."""

    name = "koda_gap_robustness"
    help = (
        "how often noise on the texts changes which of them is nearest to an image, and whether closing the gap helps"
    )
    prefix = "koda_gaprob"
    needs = Needs(aligned=True)
    Settings = GapRobustnessSettings
    meanings = under("gaprob_")

    def metrics(self, settings: Any) -> Collection[str]:
        return [metric.key + end for _, end in settings.variants() for metric in self.meanings]

    def run(self, inputs: Inputs, settings: Any) -> Outcome:
        from koda_audit.tasks.gap_robustness_run import run

        return run(inputs, settings)


task = GapRobustnessTask()
