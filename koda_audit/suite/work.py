"""What each kind of cell computes. It imports torch, as its stock does."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch

from koda_audit._files import digest
from koda_audit._gap.metrics import modality_gap
from koda_audit._gap.projection import gap_plane
from koda_audit._gap.robustness import gap_robustness
from koda_audit._gap.table import METRICS as GAP
from koda_audit._similarity.measure import similarity
from koda_audit._stats.chance import chance_level
from koda_audit._stats.clusters import mean_interval
from koda_audit.alignment.fit import fit_alignment
from koda_audit.alignment.tower import CHECKPOINTS
from koda_audit.alignment.tower_choice import TRAINERS, tower_arguments
from koda_audit.document import Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.store import Store
from koda_audit.errors import DataError
from koda_audit.evaluation.tasks import evaluate
from koda_audit.host_tasks.discrepancy import task as discrepancy
from koda_audit.host_tasks.gap_report import gap_projection
from koda_audit.host_tasks.gap_robustness import flat_metrics, flat_outcomes, gallery_of
from koda_audit.host_tasks.protocol import Inputs
from koda_audit.metrics import EVALUATED, P_VALUE, within
from koda_audit.registry import measures
from koda_audit.report.pictures import thumbnail, wanted_ids
from koda_audit.suite.cells import Finished, Number, Queries, as_plain
from koda_audit.suite.measured import variances
from koda_audit.suite.plan import AROUND, Cell, Plan
from koda_audit.suite.stock import OPERATOR, Stock

Record = dict[str, Any]


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
            "compare": self._compare,
            "similarity": self._similarity,
            "gap": self._gap,
            "align": self._align,
            "evaluate": self._evaluate,
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

    def _compare(self, cell: Cell) -> Finished:
        models = {(need.dataset == cell.dataset, need.again, need.model): self.stock.read(need) for need in cell.needs}
        named = (cell.model, str(cell.reference))
        target, reference = (models[True, False, name] for name in named)
        again = (
            (models[True, True, named[0]], models[True, True, named[1]]) if (True, True, named[0]) in models else None
        )
        if (False, False, named[0]) in models:
            classes = str(self.suite.datasets[cell.dataset].classes_of)
            try:
                target, reference = (
                    each.with_classes(models[False, False, name])
                    for each, name in zip((target, reference), named, strict=True)
                )
            except DataError as error:
                raise DataError(
                    f"classes_of of '{cell.dataset}' needs the sample ids of '{classes}': {error}"
                ) from error
        options = Namespace(**{name if name == "seed" else f"koda_{name}": each for name, each in cell.options.items()})
        discrepancy.check(options, len(target))
        outcome = discrepancy.run(Inputs(target, reference, options, self.device, again))
        sections, pictures = self._drawn(cell, outcome.sections, target.ids)
        numbers = [Number(metric, value, n=len(target)) for metric, value in outcome.metrics.items()]
        return Finished(tuple(numbers), outcome.settings, sections, outcome.files, pictures)

    def _similarity(self, cell: Cell) -> Finished:
        options = dict(cell.options)
        modality, k = options.pop("modality"), options.pop("k")
        if {"mutual_knn", "cknna"} & set(options["measures"]):
            options["k"] = k
        found = similarity(*(self.stock.units(need, modality) for need in cell.needs), **options)
        numbers = []
        for measure, row in found.iterrows():
            n = int(row["n"])
            metric = f"sim_{modality}_{measure}"
            numbers.append(Number(metric, row["value"], row["low"], row["high"], n))
            if options["permutations"]:
                numbers.append(Number(metric + P_VALUE, row["p_value"], n=n))
        settings = {**options, "modality": modality, "rows": sorted(set(found["rows"]))}
        known = [measures().load(measure) for measure in options["measures"]]
        equal = [f"sim_{modality}_{one.name}" for one in known if one.higher_is_similar and one.high == 1]
        tables = {"similarity": found.reset_index()}
        return Finished(tuple(numbers), settings, tables=tables, facts={"one_if_equal": equal})

    def _gap(self, cell: Cell) -> Finished:
        options, embedded = dict(cell.options), self.stock.aligned(cell)
        pairs = embedded.pairs()
        if pairs.text is None:
            raise DataError(f"dataset '{cell.dataset}' has no texts, and so no gap")
        image, text = np.asarray(pairs.image), np.asarray(pairs.text)
        n, seed = len(image), options["seed"]
        if options["interval"]:
            found = {key: tuple(each) for key, each in modality_gap(image, text, interval=True, seed=seed).items()}
        else:
            values = modality_gap(image, text, seed=seed)
            found = {key: (value, np.nan, np.nan, np.nan) for key, value in values.items()}
        numbers = [Number(f"gap_{key}", value, low, high, n) for key, (value, low, high, _) in found.items()]
        rows = [(key, *each, GAP[key].definition) for key, each in found.items()]
        tables = {"gap": pd.DataFrame(rows, columns=["metric", "value", "low", "high", "null", "definition"])}
        outcomes: dict[str, Queries] = {}
        plane = None if cell.alignment else gap_plane(image, text)
        pictures = {} if plane is None else {"gap": gap_projection(plane, cell.model, seed)}
        if options["robustness"]:
            more, outcomes, tables["robustness"] = self._robustness(embedded, **options["robustness"])
            numbers += more
        return Finished(tuple(numbers), options, tables=tables, outcomes=outcomes, pictures=pictures)

    def _robustness(
        self, embedded: Embeddings, total_var: list[float], alphas: list[float], **options: Any
    ) -> tuple[list[Number], dict[str, Queries], pd.DataFrame]:
        rows = np.arange(len(embedded))
        gallery = gallery_of(embedded, rows)
        classes = None if gallery.truth is None else gallery.classes
        numbers: list[Number] = []
        outcomes: dict[str, Queries] = {}
        frames = []
        for variance, end in zip(total_var, variances(total_var), strict=True):
            found = gap_robustness(
                np.asarray(gallery.text),
                np.asarray(embedded.image),
                gallery.truth,
                total_var=variance,
                alphas=[*alphas, 1.0],
                seed=self.suite.seed,
                classes=classes,
                **options,
            )
            means = {name + end: (values, rows) for name, values in flat_outcomes(found, gallery)}
            others = {name + end: value for name, value in flat_metrics(found).items()}
            more, kept = self._numbers(others, means, len(rows))
            numbers += more
            outcomes |= kept
            frames.append(found.frame.assign(total_var=variance))
        return numbers, outcomes, pd.concat(frames, ignore_index=True)

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

    def _evaluate(self, cell: Cell) -> Finished:
        embedded, options = self.stock.aligned(cell), dict(cell.options)
        name = "joint_clustering" if cell.task == "clustering" else cell.task
        if cell.task == "linear_probe":
            options["train"] = self.stock.aligned(cell, train=True)
        if cell.task == "side_effects" and cell.alignment is not None:
            options["unaligned"] = self.stock.read(cell.needs[0])
        found = evaluate(embedded, name, device=torch.device(self.device), **options)
        # side effects have a prefix in the table of metrics
        names = {key.partition("_")[2]: key for key in EVALUATED[cell.task]} if cell.task == "side_effects" else {}
        values = {names.get(metric, metric): value for metric, value in found.values.items()}
        means = {names.get(metric, metric): (each.values, each.image) for metric, each in found.outcomes.items()}
        spans = {names.get(metric, metric): ends for metric, ends in found.intervals.items()}
        numbers, outcomes = self._numbers(values, means, len(embedded), spans)
        chances = {metric: chance for metric in values if (chance := _chance(metric, embedded)) is not None}
        facts: Record = {"chance": chances}
        tables = {}
        if embedded.labels is not None and embedded.labels.ndim == 1:
            facts["majority"] = float(np.bincount(embedded.labels).max() / len(embedded))
            if cell.task == "zeroshot_classification":
                tables["by_class"] = _by_class(embedded, found.outcomes["acc1"].values)
        return Finished(tuple(numbers), dict(cell.options), tables=tables, outcomes=outcomes, facts=facts)

    def _numbers(
        self,
        values: Mapping[str, float],
        means: Mapping[str, tuple[Any, Any]],
        n: int,
        spans: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    ) -> tuple[list[Number], dict[str, Queries]]:
        """Numbers with their intervals, that of the mean over queries where they have none of their own; and outcomes
        of queries."""
        numbers = []
        for metric, value in values.items():
            queries = len(means[metric][0]) if metric in means else n
            ends = spans.get(metric)
            if ends is None and metric in means:
                ends = mean_interval(*means[metric], self.suite.seed)
            numbers.append(Number(metric, value, *within(metric, ends), n=queries))
        kept = {name: (each.astype(np.float32), image.astype(np.int32)) for name, (each, image) in means.items()}
        return numbers, kept

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
                }
            )
        return tuple(found), pictures


def _by_class(embedded: Embeddings, hits: Any) -> pd.DataFrame:
    """Name, number of images and share of hits of each class that occurs."""
    assert embedded.labels is not None
    counts = np.bincount(embedded.labels)
    occur = np.flatnonzero(counts)
    names = [str(number) for number in occur]
    if embedded.class_names is not None:
        names = [str(embedded.class_names[number]) for number in occur]
    recalls = np.bincount(embedded.labels, weights=hits)[occur] / counts[occur]
    return pd.DataFrame({"class": names, "samples": counts[occur], "recall": recalls})


def _chance(metric: str, embedded: Embeddings) -> float | None:
    """What blind guessing reaches; None where that is no one number."""
    classes = None if embedded.class_text is None else len(embedded.class_text)
    owner = embedded.text_image
    if metric.startswith("text_retrieval_recall") and owner is not None:
        right = np.bincount(owner, minlength=len(embedded))
        return chance_level(metric, gallery=len(owner), right=right)
    return chance_level(metric, classes=classes, gallery=len(embedded))
