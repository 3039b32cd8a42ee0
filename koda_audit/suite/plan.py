"""The cells of a suite, what each needs, and which of them are done already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

from koda_audit._files import digest, slug
from koda_audit.errors import InputError
from koda_audit.suite.cells import FORM, Cells
from koda_audit.suite.checks import NEEDS
from koda_audit.suite.load import Loaded
from koda_audit.suite.names import OPERATORS, DataName, ModelName, all_data, calibration, model_name
from koda_audit.suite.schema import Suite
from koda_audit.suite.sources import data_source, libraries, model_source

Step = Literal["embed", "compare", "similarity", "gap", "align", "evaluate"]
# the names of tasks in the table of results
TASKS: dict[Step, str] = {
    "embed": "embed",
    "compare": "koda_discrepancy",
    "similarity": "koda_similarity",
    "gap": "koda_modality_gap",
    "align": "align",
}
NOT_YET = "not measured yet: koda-audit run"  # of a report that is made while the suite runs
AROUND = ("operator", "mode", "transductive", "gallery", "teacher")  # options of "align" that are no settings


@dataclass(frozen=True)
class Cell:
    """One step of a suite. ``needs`` are cells that come first; ``options`` what its numbers depend on besides."""

    step: Step
    model: str
    dataset: str
    split: str
    reference: str | None = None
    alignment: str | None = None
    task: str = ""
    again: bool = False  # of "embed": a second time in other batches, for the floor
    needs: tuple[Cell, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """A line for a reader, which no other cell of the suite has."""
        what = f"{self.task or TASKS[self.step]}: {self.model}"
        against = f" against {self.reference}" if self.reference else ""
        aligned = f", {self.alignment}" if self.alignment else ""
        again = " in other batches" if self.again else ""
        return f"{what}{against} on {self.dataset}:{self.split}{aligned}{again}"

    @property
    def file(self) -> str:
        """The same as the start of file names."""
        name = slug(self.name)
        return name if len(name.encode()) < 100 else f"{name[:60]}-{digest(self.name)[:8]}"


class Plan:
    """The cells of a suite in an order in which they can be done.

    Args:
        cells: where finished cells lie.
    """

    def __init__(self, loaded: Loaded, cells: Cells) -> None:
        self.loaded, self.suite, self.finished = loaded, loaded.suite, cells
        self.models = {key: model_name(key, model, loaded.base) for key, model in self.suite.models.items()}
        self.data = {one.key: one for some in all_data(self.suite, loaded.base).values() for one in some}
        self._keys: dict[Cell, str] = {}
        self._sources: dict[Any, Any] = {}

    @cached_property
    def cells(self) -> list[Cell]:
        """Each once, what a cell needs before it."""
        found: dict[Cell, None] = {}

        def add(cell: Cell) -> None:
            for need in cell.needs:
                add(need)
            found.setdefault(cell)

        for cell in self._wanted():
            add(cell)
        files: dict[str, Cell] = {}
        for cell in found:
            if files.setdefault(cell.file.casefold(), cell) != cell:
                twin = files[cell.file.casefold()].name
                raise InputError(
                    f"'{cell.name}' and '{twin}' would write the same files: give one of them another name"
                )
        # embeddings first, each model's together: it is loaded once, and what fails there fails before hours of work
        models = list(self.models)
        first = {cell: models.index(cell.model) for cell in found if cell.step == "embed" and cell.alignment is None}
        return sorted(found, key=lambda cell: first.get(cell, len(models)))

    def key(self, cell: Cell) -> str | None:
        """The digest that names a cell on disk; None while something it needs has never been embedded."""
        if cell in self._keys:
            return self._keys[cell]
        needs = [self._content(need) for need in cell.needs]
        if None in needs:
            return None
        names = [cell.step, cell.model, cell.reference, cell.dataset, cell.split, cell.alignment, cell.task, cell.again]
        if cell.step == "embed":
            ingredients = [self._source(self.models[cell.model]), self._source(self.on(cell)), cell.again, self._device]
            ingredients += needs  # the training of an aligned tower
            names = [cell.step, cell.model, cell.dataset]
        else:
            ingredients = [dict(cell.options), needs]
        self._keys[cell] = digest([FORM, names, ingredients, libraries()])[:32]
        return self._keys[cell]

    def done(self, cell: Cell) -> bool:
        """Whether it is finished."""
        key = self.key(cell)
        return key is not None and self.finished.read(key) is not None

    def forget(self, cell: Cell) -> None:
        """Look at the files of an embedded dataset again: the host may have downloaded them."""
        self._sources.clear()
        self._keys.pop(cell, None)

    def on(self, cell: Cell) -> DataName:
        """The dataset of a cell, in the cell's split."""
        return replace(self.data[cell.dataset], split=cell.split)

    def embed(self, model: str, dataset: str, split: str | None = None, again: bool = False) -> Cell:
        """The cell that embeds a dataset."""
        return Cell("embed", model, dataset, split or self.data[dataset].split, again=again)

    def gallery_bound(self, alignment: str | None) -> bool:
        """Whether it is made anew of the rows that are evaluated, and so is another one on each dataset."""
        if alignment is None:
            return False
        return OPERATORS.get(self.suite.alignments[alignment].operator, ("rows", ()))[0] == "gallery"

    def _content(self, cell: Cell) -> str | None:
        """What later cells know a cell by: the content of embeddings, not the files they came from."""
        key = self.key(cell)
        if cell.step != "embed" or key is None:
            return key
        record = self.finished.read(key)
        return None if record is None else str(record["facts"]["embedding"])

    def _source(self, named: ModelName | DataName) -> Any:
        if named not in self._sources:
            self._sources[named] = model_source(named) if isinstance(named, ModelName) else data_source(named)
        return self._sources[named]

    @property
    def _device(self) -> list[Any]:
        return [self.suite.dtype, self.suite.device if self.suite.dtype == "host" else None]

    def _wanted(self) -> Iterator[Cell]:
        suite = self.suite
        yield from self._compare(suite)
        yield from self._similarity(suite)
        yield from self._gap(suite)
        yield from self._evaluate(suite)
        if not (suite.discrepancy or suite.similarity or suite.gap or suite.benchmark):
            yield from (self.embed(model, one) for model in self.models for one in self.data)

    def _compare(self, suite: Suite) -> Iterator[Cell]:
        part = suite.discrepancy
        if part is None:
            return
        options = part.model_dump(exclude={"pairs", "on", "floor"}) | {"seed": suite.seed}
        for one in self._on(part.on):
            for reference, model in self._pairs(part.pairs):
                needs = [self.embed(model, one), self.embed(reference, one)]
                if part.floor == "batch":
                    needs += [self.embed(model, one, again=True), self.embed(reference, one, again=True)]
                classes = self.suite.datasets[one].classes_of if one in self.suite.datasets else None
                if classes is not None:
                    needs += [self.embed(each, classes, self.data[one].split) for each in (model, reference)]
                yield self._cell("compare", model, one, tuple(needs), options, reference=reference)

    def _similarity(self, suite: Suite) -> Iterator[Cell]:
        part = suite.similarity
        if part is None:
            return
        options = part.model_dump(exclude={"pairs", "on"}) | {"seed": suite.seed}
        for one in self._on(part.on):
            for reference, model in self._pairs(part.pairs):
                needs = (self.embed(model, one), self.embed(reference, one))
                yield self._cell("similarity", model, one, needs, options, reference=reference)

    def _gap(self, suite: Suite) -> Iterator[Cell]:
        part = suite.gap
        if part is None:
            return
        options = part.model_dump(exclude={"on", "alignments"}) | {"seed": suite.seed}
        shown = part.alignments or (suite.benchmark.alignments if suite.benchmark else ["none"])
        for one in self._on(part.on):
            for model in self.models:
                for alignment in self._alignments(shown, model):
                    needs = (self.embed(model, one), *self._align(model, one, alignment))
                    yield self._cell("gap", model, one, needs, options, alignment=alignment)

    def _evaluate(self, suite: Suite) -> Iterator[Cell]:
        part = suite.benchmark
        if part is None:
            return
        options: dict[str, dict[str, Any]] = {
            "zeroshot_retrieval": {"at": part.recall_at},
            "linear_probe": {"C": part.probe_C, "seed": suite.seed},
            "clustering": {"clusters": part.clusters, "protocol": part.clustering_protocol, "seed": suite.seed},
        }
        for one in self._on(part.on):
            only = suite.datasets[one.partition("/")[0]].only
            for task in part.tasks:
                if only is not None and task not in only:
                    continue
                # captions have no classes, so clusters of them must be counted
                needed = NEEDS.get(task, "classes" if part.clusters is None else None)
                if None not in (needed, self.data[one].kind) and needed != self.data[one].kind:
                    continue
                for model in self.models:
                    for alignment in self._alignments(part.alignments, model):
                        if task == "linear_probe" and self.gallery_bound(alignment):
                            continue  # it is made from the rows that are evaluated, and leaves none to train on
                        needs = [self.embed(model, one), *self._align(model, one, alignment)]
                        if task == "linear_probe":
                            split = self.data[one].train_split
                            tower = alignment is not None and suite.alignments[alignment].mode == "tower"
                            needs.append(replace(needs[1], split=split) if tower else self.embed(model, one, split))
                        yield self._cell(
                            "evaluate", model, one, tuple(needs), options.get(task, {}), alignment=alignment, task=task
                        )

    def _align(self, model: str, dataset: str, alignment: str | None) -> Iterator[Cell]:
        if alignment is None:
            return
        chosen = self.suite.alignments[alignment]
        fitted, split = (dataset, None) if chosen.fit_on is None else calibration(chosen.fit_on)
        embedded = self.embed(model, fitted, split)
        teacher = chosen.parameters.get("teacher")
        needs = (embedded,) if teacher is None else (embedded, self.embed(teacher, fitted, split))
        tower = chosen.mode == "tower"
        options = chosen.model_dump(exclude={"fit_on"} if tower else {"fit_on", "mode"})
        cell = Cell("align", model, fitted, embedded.split, alignment=alignment, needs=needs, options=options)
        if tower:
            yield replace(self.embed(model, dataset), alignment=alignment, needs=(cell,))
        yield cell

    def _cell(
        self,
        step: Step,
        model: str,
        dataset: str,
        needs: tuple[Cell, ...],
        options: Mapping[str, Any],
        reference: str | None = None,
        alignment: str | None = None,
        task: str = "",
    ) -> Cell:
        split = self.data[dataset].split
        return Cell(step, model, dataset, split, reference, alignment, task, needs=needs, options=options)

    def _on(self, names: str | list[str]) -> Iterator[str]:
        for one in self.data:
            if names == "all" or one in names or one.rpartition("/")[0] in names:
                yield one

    def _pairs(self, pairs: Literal["all"] | list[list[str]]) -> Iterator[tuple[str, str]]:
        """(reference, model): the one listed first is the reference, as in clip_benchmark."""
        if pairs == "all":
            yield from combinations(self.models, 2)
        else:
            yield from ((reference, model) for reference, model in pairs)

    def _alignments(self, names: str | list[str], model: str) -> Iterator[str | None]:
        """Those of a model, whose towers are not trained towards itself."""
        for name in ["none", *self.suite.alignments] if names == "all" else names:
            chosen = self.suite.alignments.get(name)
            if chosen is None or chosen.mode == "feature" or chosen.parameters.get("teacher") != model:
                yield None if name == "none" else name
