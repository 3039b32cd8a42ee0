"""What a task is: anything with these attributes, found under the entry-point group ``clip_benchmark.tasks``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Protocol

from koda_audit.document import Outcome
from koda_audit.embeddings.container import Embeddings


@dataclass(frozen=True)
class Inputs:
    """What the runner hands a task: one model on one dataset, and the reference model on the same samples.

    ``reference`` is None for a task that does not compare; where it is given, its rows follow the ids of ``target``.
    ``device`` is where to compute; None leaves it to the task. ``again`` are both models embedded once more in other
    batches, where that was asked for: what they show against themselves is no difference. ``fit`` are other samples, to
    fit an alignment on, where --koda_fit_split or --koda_fit_share asked for some.
    """

    target: Embeddings
    reference: Embeddings | None
    options: argparse.Namespace
    device: str | None = None
    again: tuple[Embeddings, Embeddings] | None = None
    fit: Embeddings | None = None


class Task(Protocol):
    """A task of ``clip_benchmark eval``: embeddings in, flat metrics and a document out.

    Two more attributes may be there. ``aligns``: it takes the options --koda_alignment and --koda_fit_…; else they are
    refused. ``kind``: it needs a dataset with "classes" or with "captions".
    """

    name: str  # what follows --task
    help: str  # one line for `list tasks` and for the option group
    compares: bool  # True: wants a reference model

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add this task's own options to the runner; every option starts with the task's prefix."""

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        """Raise InputError for options that cannot work.

        Called before anything is loaded, and again with the number of samples before anything is embedded.
        """

    def run(self, inputs: Inputs) -> Outcome:
        """Do the work. ``Outcome.metrics`` become the host's JSON, the rest lies beside it."""
