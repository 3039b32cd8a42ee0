"""The smallest useful task of a third party: the number of samples and of dimensions, checked against a minimum."""

from __future__ import annotations

import argparse

from koda_audit.document import Outcome, Section
from koda_audit.errors import InputError
from koda_audit.host_tasks.protocol import Inputs


class SampleCount:
    """Counts what was embedded."""

    name = "sample_count"
    help = "count samples and dimensions"
    compares = False

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """One option: how few samples are too few."""
        group.add_argument("--sample_count_min", type=int, default=1, help="at least so many; default: %(default)s")

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        """Raise InputError for a minimum below one, or above the number of samples."""
        if options.sample_count_min < 1:
            raise InputError(f"--sample_count_min {options.sample_count_min}: expected 1 or more")
        if samples is not None and samples < options.sample_count_min:
            raise InputError(f"{samples} samples are fewer than --sample_count_min {options.sample_count_min}")

    def run(self, inputs: Inputs) -> Outcome:
        """Count."""
        samples, dimensions = inputs.target.image.shape
        return Outcome(
            metrics={"sample_count_n": float(samples), "sample_count_dim": float(dimensions)},
            sections=(Section("Samples", f"{samples} samples of {dimensions} dimensions."),),
        )


task = SampleCount()
