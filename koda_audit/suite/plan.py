"""The cells of a suite, what each needs, and which of them are done already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

from koda_audit._files import digest, slug
from koda_audit.errors import InputError
from koda_audit.suite.asked import Asked, asked
from koda_audit.suite.cells import FORM, Cells
from koda_audit.suite.load import Loaded
from koda_audit.suite.names import OPERATORS, DataName, ModelName, all_data, calibration, model_name
from koda_audit.suite.sources import data_source, libraries, model_source

Step = Literal["embed", "align", "task"]
NOT_YET = "not measured yet: koda-audit run"  # of a report that is made while the suite runs
AROUND = ("operator", "mode", "transductive", "gallery", "teacher")  # options of "align" that are no settings


@dataclass(frozen=True)
class Cell:
    """One step of a suite. ``needs`` are cells that come first; ``options`` what it depends on besides.

    ``task``: the name of a task, of a step of that kind. ``again``: of "embed", a second time in other batches.
    """

    step: Step
    model: str
    dataset: str
    split: str
    reference: str | None = None
    alignment: str | None = None
    task: str = ""
    again: bool = False
    needs: tuple[Cell, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """A line for a reader, which no other cell of the suite has."""
        what = f"{self.task or self.step}: {self.model}"
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
    def asked(self) -> Mapping[str, Asked]:
        """The tasks of the suite, by name."""
        return {one.task.name: one for one in asked(self.suite)}

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
        benchmarks = [one for one in self.asked.values() if one.place[0] == "benchmark"]
        for one in self.asked.values():
            for dataset in self._on(one) if one not in benchmarks else ():
                yield from self._cells(one, dataset)
        on = {one.task.name: set(self._on(one)) for one in benchmarks}
        for dataset in self.data:  # each dataset's benchmarks together
            for one in benchmarks:
                yield from self._cells(one, dataset) if dataset in on[one.task.name] else ()
        if not self.asked:
            yield from (self.embed(model, data) for model in self.models for data in self.data)

    def _cells(self, one: Asked, dataset: str) -> Iterator[Cell]:
        return self._compared(one, dataset) if one.needs.models == 2 else self._measured(one, dataset)

    def _compared(self, one: Asked, dataset: str) -> Iterator[Cell]:
        for reference, model in self._pairs(one.pairs):
            needs = [self.embed(model, dataset), self.embed(reference, dataset)]
            if getattr(one.settings, "floor", "none") == "batch":
                needs += [self.embed(each, dataset, again=True) for each in (model, reference)]
            classes = self.suite.datasets[dataset].classes_of if dataset in self.suite.datasets else None
            if one.needs.classes and classes is not None:
                needs += [self.embed(each, classes, self.data[dataset].split) for each in (model, reference)]
            yield self._cell(one, model, dataset, needs, reference=reference)

    def _measured(self, one: Asked, dataset: str) -> Iterator[Cell]:
        for model in self.models:
            for alignment in self._alignments(one.alignments, model):
                if one.needs.train and self.gallery_bound(alignment):
                    continue  # it is made from the rows that are evaluated, and leaves none to train on
                needs = [self.embed(model, dataset), *self._align(model, dataset, alignment)]
                if one.needs.train:
                    split = self.data[dataset].train_split
                    tower = alignment is not None and self.suite.alignments[alignment].mode == "tower"
                    needs.append(replace(needs[1], split=split) if tower else self.embed(model, dataset, split))
                yield self._cell(one, model, dataset, needs, alignment=alignment)

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
        self, one: Asked, model: str, dataset: str, needs: Sequence[Cell], reference: str | None = None,
        alignment: str | None = None,
    ) -> Cell:  # fmt: skip
        options = {**one.settings.model_dump(), "seed": self.suite.seed, "version": one.task.version}
        split, name = self.data[dataset].split, one.task.name
        return Cell("task", model, dataset, split, reference, alignment, name, needs=tuple(needs), options=options)

    def _on(self, one: Asked) -> Iterator[str]:
        """The datasets of a task that have what it needs, as far as that is known."""
        for key, data in self.data.items():
            only = self.suite.datasets[key.partition("/")[0]].only
            if one.place[0] == "benchmark" and only is not None and one.task.name not in only:
                continue
            if None not in (one.needs.kind, data.kind) and one.needs.kind != data.kind:
                continue
            if one.on == "all" or key in one.on or key.rpartition("/")[0] in one.on:
                yield key

    def _pairs(self, pairs: Literal["all"] | list[list[str]]) -> Iterator[tuple[str, str]]:
        """(reference, model): the one listed first is the reference, as in clip_benchmark."""
        if pairs == "all":
            yield from combinations(self.models, 2)
        else:
            yield from ((reference, model) for reference, model in pairs)

    def _alignments(self, names: Literal["all"] | list[str | None], model: str) -> Iterator[str | None]:
        """Those of a model, whose towers are not trained towards itself."""
        for name in [None, *self.suite.alignments] if names == "all" else names:
            chosen = None if name is None else self.suite.alignments[name]
            if chosen is None or chosen.mode == "feature" or chosen.parameters.get("teacher") != model:
                yield name
