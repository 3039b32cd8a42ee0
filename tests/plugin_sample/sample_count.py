"""The smallest useful task of a third party: the number of samples and of dimensions, checked against a minimum."""

from __future__ import annotations

from pydantic import Field

from koda_audit.document import Section
from koda_audit.errors import InputError
from koda_audit.metrics import Metric
from koda_audit.settings import AtLeastOne, Settings
from koda_audit.tasks.protocol import Inputs, Needs, Number, Outcome, Task


class SampleCountSettings(Settings):
    """How few samples are too few."""

    min: AtLeastOne = Field(default=1, description="at least so many samples")


class SampleCount(Task):
    """Counts what was embedded."""

    name = "sample_count"
    help = "count samples and dimensions"
    prefix = "sample_count"
    needs = Needs(aligned=True)
    Settings = SampleCountSettings
    meanings = (
        Metric("sample_count_n", "samples", 1, None, exact=True),
        Metric("sample_count_dim", "dimensions of an image vector", 1, None, exact=True),
    )

    def check(self, settings: SampleCountSettings, samples: int) -> None:
        """Raise InputError for fewer samples than were asked for."""
        if samples < settings.min:
            raise InputError(f"{samples} samples are fewer than the {settings.min} of sample_count's min")

    def run(self, inputs: Inputs, settings: SampleCountSettings) -> Outcome:
        """Count."""
        samples, dimensions = inputs.target.image.shape
        numbers = (Number("sample_count_n", samples), Number("sample_count_dim", dimensions))
        text = f"{samples} samples of {dimensions} dimensions."
        return Outcome(numbers, (Section("Samples", text),), settings=settings.model_dump())


task = SampleCount()
