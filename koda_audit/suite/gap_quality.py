"""Does the gap predict quality? TPC-CMA's claim, put to the test on the models and alignments of a suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from koda_audit._gap.table import METRICS
from koda_audit._stats.prediction import MIN_MODELS, MIN_POINTS, explained
from koda_audit.document import Picture, Section
from koda_audit.suite.asked import GAP
from koda_audit.suite.cells import Finished
from koda_audit.suite.plan import Cell, Plan
from koda_audit.tasks.benchmarks import BENCHMARKS

TITLE = "Does the gap predict quality?"
FILE = "tables/gap_against_quality.csv"
CLAIM = (
    "TPC-CMA (arXiv 2604.00279) claims that what is left of the gap once the centroids coincide predicts cross-modal "
    "quality, with an R² of .986, far better than the raw gap does, with .691. Here that claim is put to the test on "
    "the models and alignments of this suite."
)
READING = (
    "A point is a model under one alignment, *R²* that of the straight line through all of them, and *slope* what one "
    "unit of the gap adds to the benchmark. That paper's code is not published, and these are our formulas: "
    "raw_gap_rms² = centroid_gap² + dist_gap_paired², an identity, and dist_gap_rel is dist_gap_paired² in parts of "
    "what it would be if no pair belonged together. An alignment that is made of the very rows that are evaluated "
    "counts for the benchmarks of that dataset alone."
)
SHOWN = ("raw_gap_rms", "centroid_gap", "dist_gap_paired", "dist_gap_rel")
PANELS = ("raw_gap_rms", "dist_gap_paired")
# these, and all others that are neither counts nor p-values
GAPS = tuple(dict.fromkeys([*SHOWN, *(key for key, metric in METRICS.items() if metric.null or metric.interval)]))
NO_QUALITY = ("probe_C", "probe_converged", "modality_purity", "pair_together")  # a setting, and the gap by other names
HEADLINES = ("acc1", "mean_average_precision", "probe_accuracy", "ari")  # and the first recall either way
MARKERS = "osD^vP*X<>"
NAMED = 7  # models in the legend, as many as there are colours

Point = tuple[str, str | None]  # model and alignment


@dataclass(frozen=True)
class Cloud:
    """A row a point: ``model``, ``under`` (the alignment), gap metrics on one dataset, and one task's on another."""

    gap_on: str
    dataset: str
    task: str
    table: pd.DataFrame
    benchmarks: tuple[str, ...]


def clouds(plan: Plan, finished: Mapping[Cell, Finished]) -> Iterator[Cloud]:
    """Each benchmark beside the gap on its own dataset; where that was not measured, beside that on each other one."""
    gaps: dict[str, dict[Point, dict[str, Any]]] = {}
    found: dict[tuple[str, str], dict[Point, dict[str, Any]]] = {}
    for cell, done in finished.items():
        numbers = {number.metric: number.value for number in done.numbers}
        point = (cell.model, cell.alignment)
        if cell.task == GAP:
            gaps.setdefault(cell.dataset, {})[point] = {
                key: numbers[f"gap_{key}"] for key in GAPS if f"gap_{key}" in numbers
            }
        elif cell.task in BENCHMARKS and cell.task != "side_effects":
            quality = {metric: value for metric, value in numbers.items() if metric not in NO_QUALITY}
            found.setdefault((cell.dataset, cell.task), {})[point] = quality
    for (dataset, task), measured in found.items():
        for gap_on in [dataset] if dataset in gaps else gaps:
            rows = [
                {"model": model, "under": alignment or "none", **gaps[gap_on][model, alignment], **quality}
                for (model, alignment), quality in measured.items()
                if (model, alignment) in gaps[gap_on] and (gap_on == dataset or not plan.gallery_bound(alignment))
            ]
            benchmarks = tuple(dict.fromkeys(metric for quality in measured.values() for metric in quality))
            table = pd.DataFrame(rows, columns=["model", "under", *GAPS, *benchmarks])
            numeric = table.drop(columns=["model", "under"]).astype(np.float64)
            yield Cloud(gap_on, dataset, task, table[["model", "under"]].join(numeric), benchmarks)


def gap_against_quality(plan: Plan, finished: Mapping[Cell, Finished]) -> tuple[list[Section], dict[str, pd.DataFrame]]:
    """The section, and the table with every gap metric against every benchmark; none where either was not measured."""
    every = list(clouds(plan, finished))
    if not every:
        return [], {}
    points = max(len(cloud.table) for cloud in every)
    if points < MIN_POINTS:
        counted = f"This suite has {points} points, a model under one alignment each; at least {MIN_POINTS} are needed."
        return [Section(TITLE, f"{CLAIM} {counted}")], {}
    found = [
        explained(cloud.table, GAPS, cloud.benchmarks, seed=plan.suite.seed).assign(
            gap_on=cloud.gap_on, dataset=cloud.dataset, task=cloud.task
        )
        for cloud in every
    ]
    table = pd.concat(found, ignore_index=True)
    table = table[["dataset", "task", "benchmark", "gap_on", "gap", "r2", "low", "high", "slope", "n", "models"]]
    headlines = [metric for metric in dict.fromkeys(table["benchmark"]) if _is_headline(metric, plan)]
    shown = table[table["benchmark"].isin(headlines) & table["gap"].isin(SHOWN) & table["r2"].notna()]
    pictures = [
        picture
        for cloud in every
        for metric in cloud.benchmarks
        if metric in headlines and (picture := _picture(cloud, metric))
    ]
    return [Section(TITLE, _text(table), _readable(shown) if len(shown) else None, pictures=tuple(pictures))], {
        FILE: table
    }


def _is_headline(metric: str, plan: Plan) -> bool:
    first = plan.suite.benchmark.recall_at[0] if plan.suite.benchmark else None
    return metric in (*HEADLINES, f"image_retrieval_recall@{first}", f"text_retrieval_recall@{first}")


def _text(table: pd.DataFrame) -> str:
    models, known = table["models"].max(), int(table["r2"].notna().sum())
    interval = (
        "The interval is the 95 % percentile interval over models drawn again, each with all of its alignments, which "
        "are no independent points; R² cannot fall below 0, so look at its width."
        if models >= MIN_MODELS
        else f"An interval needs {MIN_MODELS} models, and there are {models}: alignments of one model are no "
        "independent points."
    )
    return (
        f"{CLAIM} {READING} {interval} Benchmarks with fewer than {MIN_POINTS} points, or of one value throughout, are "
        f"left out. `{FILE}` has all {known:,} pairs of a gap metric and a benchmark; of so many, "
        "some have a large R² by chance."
    )


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    table = table.sort_values(["dataset", "task", "benchmark", "gap_on"], kind="stable")
    ends = [
        None if np.isnan(low) else f"{low:.3f} to {high:.3f}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    columns = {
        "benchmark": table["benchmark"] + " on " + table["dataset"],
        "gap": table["gap"].where(table["gap_on"] == table["dataset"], table["gap"] + " on " + table["gap_on"]),
        "R²": table["r2"],
        "95 % interval": ends,
        "slope": table["slope"],
        "points": table["n"],
        "models": table["models"],
    }
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _picture(cloud: Cloud, metric: str) -> Picture | None:
    """None where there are too few points."""
    known = cloud.table.dropna(subset=[metric, *PANELS])
    if len(known) < MIN_POINTS:
        return None
    on = "" if cloud.gap_on == cloud.dataset else f", the gap on {cloud.gap_on}"
    title = f"{metric} on {cloud.dataset} against the gap{on}"
    name = f"gap-quality-{cloud.dataset}-{cloud.task}-{metric}-{cloud.gap_on}"
    return Picture(name, title, scatter(known, metric, title))


def scatter(table: pd.DataFrame, metric: str, title: str) -> bytes:
    """A benchmark over the raw gap, and over what is left of it once the centroids coincide, with both lines.

    Args:
        table: ``model``, ``under``, the two gap metrics and the benchmark's; no holes.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> table = pd.DataFrame({"model": ["a", "b"], "under": "none", "raw_gap_rms": [1.0, 1.2],
    ...                       "dist_gap_paired": [0.8, 0.9], "acc1": [0.5, 0.4]})
    >>> scatter(table, "acc1", "acc1 against the gap")[1:4]
    b'PNG'
    """
    from koda_audit.figures import COLOURS, FAINT, INK, drawn, legend, short

    models, under = list(dict.fromkeys(table["model"])), list(dict.fromkeys(table["under"]))
    colour = {
        model: COLOURS[place % len(COLOURS)] if len(models) <= NAMED else INK for place, model in enumerate(models)
    }
    marker = {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(under)}
    with drawn(4.6 + 0.25 * ((len(models) + len(under)) // 4), title, len(PANELS)) as (figure, panels, stream):
        for axes, gap in zip(panels, PANELS, strict=True):
            x, y = (table[name].to_numpy(np.float64) for name in (gap, metric))
            if np.ptp(x) > 0:
                slope, at_0 = np.polyfit(x, y, 1)
                ends = np.array([x.min(), x.max()])
                axes.plot(ends, slope * ends + at_0, color=FAINT, linewidth=1.5, zorder=0)
            for name in under:
                rows = (table["under"] == name).to_numpy()
                edges = [colour[model] for model in table["model"][rows]]
                axes.scatter(x[rows], y[rows], s=36, c=edges, marker=marker[name], alpha=0.8)
            axes.set_xlabel(gap)
        panels[0].set_ylabel(metric)
        panels[1].sharey(panels[0])
        named = models if len(models) <= NAMED else []
        handles = [panels[0].plot([], [], linewidth=6, color=colour[name], label=short(name))[0] for name in named]
        handles += [panels[0].plot([], [], marker[name], color=INK, label=short(name))[0] for name in under]
        legend(figure, handles, 4)
    return stream.getvalue()
