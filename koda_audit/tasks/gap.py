"""The task koda_modality_gap: how far apart the images and the texts of one model lie, and in what way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import Field

from koda_audit._gap.table import METRICS, VARIANTS
from koda_audit.metrics import EVALUATED, under
from koda_audit.settings import Settings
from koda_audit.tasks.protocol import Inputs, Needs, Outcome, Task

DECISIONS = [key for key in EVALUATED["side_effects"] if key.startswith("gap_")]


class GapSettings(Settings):
    """How far apart images and texts of one model lie."""

    interval: bool = Field(
        default=True,
        description="95 % intervals and nulls, which take three to seven times as long as the values alone",
    )
    variants: bool = Field(
        default=False, description="also other definitions that papers use under the same names, to compare with theirs"
    )
    pairwise_rows: Annotated[int, Field(ge=4, le=2**31)] = Field(
        default=20_000, description="rows a side, drawn with the seed, for metrics made of all pairs of rows"
    )


class ModalityGapTask(Task):
    """Every metric of ``modality_gap`` between the images and their first captions, or the prompts of their classes."""

    name = "koda_modality_gap"
    help = "how far apart the images and the texts of a model lie, and in what way"
    prefix = "koda_gap"
    needs = Needs(aligned=True, samples=2)
    Settings = GapSettings
    meanings = under("gap_")

    def metrics(self, settings: Any) -> Collection[str]:
        return [*(f"gap_{key}" for key in (*METRICS, *(VARIANTS if settings.variants else ()))), *DECISIONS]

    def run(self, inputs: Inputs, settings: Any) -> Outcome:
        from koda_audit.tasks.gap_run import run

        return run(inputs, settings)


task = ModalityGapTask()
