"""What a task is: anything with these attributes, found under the entry-point group ``clip_benchmark.tasks``.

``clip_benchmark eval``, a suite and Python all call it alike. Importing a task's module imports no torch: ``run`` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from koda_audit.document import Section
from koda_audit.errors import InputError
from koda_audit.metrics import Metric
from koda_audit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from koda_audit.alignment.operator import Alignment
    from koda_audit.embeddings.container import Embeddings

Queries = tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]
"""(q,) the outcome of each query, and (q,) the row of the image that it belongs to."""


@dataclass(frozen=True)
class Needs:
    """What a task is run on.

    Attributes:
        models: one, or two on the same samples.
        kind: a dataset with "classes" or with "captions"; None: either.
        aligned: whether a suite may run it under alignments, too.
        train: also embeddings to train on, as a probe does.
        classes: also the classes of the dataset that ``classes_of`` names, where it does.
        fit: it fits the alignment that the host's options name.
        samples: at least so many.
    """

    models: Literal[1, 2] = 1
    kind: Literal["classes", "captions"] | None = None
    aligned: bool = False
    train: bool = False
    classes: bool = False
    fit: bool = False
    samples: int = 1


@dataclass(frozen=True)
class Inputs:
    """What a task is given; the rows of all but ``train`` are the same samples in the same order.

    Attributes:
        target: the model.
        reference: the one that it is compared with; None for a task of one model.
        again: both once more, embedded in other batches, where its settings say ``floor: batch``: what they show
            against themselves is no difference.
        unaligned: ``target`` as it came, where it is aligned.
        alignment: what the host's options name, fitted; ``fitted_on`` says on what.
        train: to train on.
        seed: of all draws.
        device: where to compute; None leaves it to the task.
    """

    target: Embeddings
    reference: Embeddings | None = None
    again: tuple[Embeddings, Embeddings] | None = None
    unaligned: Embeddings | None = None
    alignment: Alignment | None = None
    fitted_on: str = ""
    train: Embeddings | None = None
    seed: int = 0
    device: str | None = None


@dataclass(frozen=True)
class Number:
    """One number, as it goes into the table of results.

    Attributes:
        metric: its key, which begins with the task's prefix: the host joins columns of one name.
        value: None where it is not defined.
        low, high: of its 95 % interval.
        n: samples or queries that it is made of; default: all.
        chance: what blind guessing reaches.
        settings: what *this* number depends on besides models, data and the task's version, in plain types. Two numbers
            are compared only where these are equal, so what does not change it does not belong here.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """All that one run of a task gives back.

    Attributes:
        numbers: for the table of results, the host's JSON and gates.
        sections: what a reader sees; the first table is also shown on the terminal.
        tables: by a name, or a relative path such as ``subsets/group-01.csv``.
        queries: of numbers that are means over queries, so that any two models can be compared pair by pair later.
        settings: how it was measured, for a reader.
        facts: what a suite's report needs besides, in plain types.
    """

    numbers: Sequence[Number]
    sections: tuple[Section, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    queries: Mapping[str, Queries] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float | None]:
        """The numbers as the host has them: flat."""
        return {number.metric: number.value for number in self.numbers}


class Task:
    """Embeddings and settings in, numbers and sections out. A subclass sets ``name``, ``help`` and ``run``.

    Attributes:
        name: what follows --task, and names it in suites and results.
        help: one line, for `list tasks` and the options.
        prefix: its options are --PREFIX_SETTING, its keys begin with it.
        version: raised where a number changes its meaning; it is not compared with those of other versions then.
        needs: what it is run on.
        Settings: all that it may be told.
        meanings: what its keys mean, also where ``@`` and a number follow.
    """

    name: str
    help: str
    prefix: str
    version: int = 1
    needs: Needs = Needs()
    Settings: type[Settings] = Settings
    meanings: tuple[Metric, ...] = ()

    def metrics(self, settings: Any) -> Collection[str]:
        """The keys that it may measure with these settings; which of them it does may depend on the data."""
        return [metric.key for metric in self.meanings]

    def check(self, settings: Any, samples: int) -> None:
        """Raise InputError for settings that cannot work with so many samples; called before anything is embedded."""

    def run(self, inputs: Inputs, settings: Any) -> Outcome:
        """Do the work.

        Raises:
            KodaAuditError: it cannot be done.
        """
        raise NotImplementedError


def check_task(task: Task, settings: Any, samples: int) -> None:
    """Raises InputError for too few samples, and for settings that cannot work with them."""
    if samples < task.needs.samples:
        raise InputError(f"{task.name} needs at least {task.needs.samples} samples: {samples} found")
    task.check(settings, samples)
