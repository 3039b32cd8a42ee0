"""What each kind of cell computes. It imports torch, as its stock does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from koda_audit._files import digest
from koda_audit.alignment.fit import fit_alignment
from koda_audit.alignment.tower import CHECKPOINTS
from koda_audit.alignment.tower_choice import TRAINERS, tower_arguments
from koda_audit.document import Section
from koda_audit.embeddings.store import Store
from koda_audit.errors import DataError
from koda_audit.report.pictures import thumbnail, wanted_ids
from koda_audit.suite.asked import GAP, ROBUSTNESS, SIMILARITY
from koda_audit.suite.cells import Finished, as_plain
from koda_audit.suite.plan import AROUND, Cell, Plan
from koda_audit.suite.stock import OPERATOR, Stock
from koda_audit.tasks.benchmarks import BENCHMARKS
from koda_audit.tasks.protocol import Inputs, check_task


def _side_by_side(cell: Cell) -> bool:
    """Whether a report shows the numbers of a cell beside those of others alone, and no section of its own."""
    return cell.task in (SIMILARITY, ROBUSTNESS, *BENCHMARKS) or (cell.task == GAP and cell.alignment is not None)


class Workshop:
    """Computes cells of one plan; embeddings are read from the store.

    Args:
        store: of embeddings.
        quiet: no progress bars.
    """

    def __init__(self, plan: Plan, store: Store, quiet: bool) -> None:
        self.plan, self.suite, self.store = plan, plan.suite, store
        self.stock = Stock(plan, store, quiet)
        self.device = self.stock.device
        self._steps: Mapping[str, Callable[[Cell], Finished]] = {
            "embed": self._embed,
            "align": self._align,
            "task": self._task,
        }

    def do(self, cell: Cell) -> Finished:
        """Compute a cell whose needs are finished.

        Raises:
            KodaAuditError: it cannot be done.
        """
        return self._steps[cell.step](cell)

    def _embed(self, cell: Cell) -> Finished:
        found = self.stock.extracted(cell)
        meta = found.meta["ingredients"]
        model, data = meta["model"], meta["dataset"]
        expected = self.plan.on(cell).kind
        if expected not in (None, data["kind"]):
            raise DataError(
                f"dataset '{cell.dataset}' holds {data['kind']}: mend its task in the suite, or leave it out"
            )
        facts = {
            "embedding": self.store.path(meta).name,
            "n": len(found),
            "kind": data["kind"],
            "fingerprint": data["fingerprint"],
            "prompts": digest(meta["prompts"]),
            "weights": model["weights"],
            "preprocess": model["preprocess_text"],
            "device": found.meta["device"],
            "batch_size": found.meta["batch_size"],
            "dtype": meta["dtype"],
            "libraries": meta["libraries"],
            "ids": list(found.ids),
        }
        return Finished(facts=facts)

    def _task(self, cell: Cell) -> Finished:
        """One task, as ``clip_benchmark eval`` runs it."""
        one, inputs = self.plan.asked[cell.task], self._inputs(cell)
        check_task(one.task, one.settings, len(inputs.target))
        outcome = one.task.run(inputs, one.settings)
        shown = () if _side_by_side(cell) else outcome.sections
        sections, pictures = self._drawn(cell, shown, inputs.target.ids)
        return Finished(
            tuple(outcome.numbers), outcome.settings, sections, outcome.tables, pictures, outcome.queries, outcome.facts
        )

    def _inputs(self, cell: Cell) -> Inputs:
        target = self.stock.aligned(cell)
        unaligned = None if cell.alignment is None else self.stock.read(cell.needs[0])
        train = self.stock.aligned(cell, train=True) if self.plan.asked[cell.task].needs.train else None
        shared: dict[str, Any] = {"seed": self.suite.seed, "device": self.device}
        if cell.reference is None:
            return Inputs(target, unaligned=unaligned, train=train, **shared)
        models = {(need.dataset == cell.dataset, need.again, need.model): need for need in cell.needs}
        named = (cell.model, cell.reference)
        compared = [self.stock.read(models[True, False, name]) for name in named]
        if (False, False, cell.model) in models:
            classes = str(self.suite.datasets[cell.dataset].classes_of)
            try:
                labelled = [self.stock.read(models[False, False, name]) for name in named]
                compared = [each.with_classes(other) for each, other in zip(compared, labelled, strict=True)]
            except DataError as error:
                raise DataError(
                    f"classes_of of '{cell.dataset}' needs the sample ids of '{classes}': {error}"
                ) from error
        again = [self.stock.read(models[True, True, name]) for name in named if (True, True, name) in models]
        return Inputs(compared[0], compared[1], (again[0], again[1]) if again else None, **shared)

    def _align(self, cell: Cell) -> Finished:
        options = dict(cell.options)
        if "mode" in options:
            return self._trained(cell)
        if "teacher" in options:
            options["teacher"] = self.stock.read(cell.needs[1])
        operator = fit_alignment(options.pop("operator"), self.stock.read(cell.needs[0]), **options)
        info = {name: operator.info[name] for name in ("definition", "frame", "renormalised", "scoring", "samples")}
        info["figures"] = operator.info["figures"]
        return Finished(settings={**operator.params, **info}, save=lambda folder: operator.save(folder / OPERATOR))

    def _trained(self, cell: Cell) -> Finished:
        """A tower; its training goes on where it was interrupted, since its folder bears the cell's key."""
        settings = {name: value for name, value in cell.options.items() if name not in AROUND}
        student, dataset = self.stock.spec(cell.model), self.stock.dataset(cell.needs[0])
        chosen = tower_arguments(cell.options["operator"], student, settings)
        chosen["plan"] = replace(chosen["plan"], workers=self.suite.num_workers)
        if "teacher" in cell.options:
            chosen["teacher"] = self.stock.model(cell.needs[1], dataset.language)
        key = self.plan.key(cell)
        assert key is not None
        folder = self.store.folder / "towers" / key
        train = TRAINERS[cell.options["operator"]]
        figures = train(student, dataset=dataset, output=folder, store=self.store, device=self.device, **chosen)

        def save(home: Path) -> None:
            shutil.rmtree(folder / CHECKPOINTS)
            shutil.move(folder, home / OPERATOR)

        return Finished(settings={**cell.options, "figures": figures}, save=save)

    def _drawn(self, cell: Cell, sections: Iterable[Section], ids: tuple[str, ...]) -> tuple[tuple[Any, ...], Any]:
        """Sections as plain types, and their pictures by name, those of samples too while the images are at hand."""
        whole = list(sections)
        grids = [grid for section in whole for grid in section.grids]
        shown = self.stock.dataset(cell).images(wanted_ids(grids), ids) if grids else {}
        pictures, found = {f"sample {sample}": thumbnail(image) for sample, image in shown.items()}, []
        for section in whole:
            pictures |= {picture.name: picture.png for picture in section.pictures}
            found.append(
                {
                    "title": section.title,
                    "text": section.text,
                    "table": None if section.table is None else as_plain(section.table),
                    "figures": {picture.name: picture.title for picture in section.pictures},
                    "grids": [vars(grid) for grid in section.grids],
                    "folded": section.folded,
                    "key": section.key,
                }
            )
        return tuple(found), pictures
