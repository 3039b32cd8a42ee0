"""What a reader sees of similarity, of the modality gap, and of robustness to noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from koda_audit.document import Picture, Section
from koda_audit.suite.asked import GAP, SIMILARITY
from koda_audit.suite.benchmark_sections import interval_of
from koda_audit.suite.cells import Finished
from koda_audit.suite.pictures import model_maps, robustness_curves, symmetric
from koda_audit.suite.plan import Cell
from koda_audit.tasks.protocol import Number

SHOWN_GAP = ("centroid_gap", "raw_gap_rms", "dist_gap_paired", "rmg", "linear_sep", "mix_bias_image", "frechet_cov")


PANELS = 3  # maps side by side
Cells = Mapping[Cell, Finished]


def similarity_section(finished: Cells) -> Iterator[Section]:
    rows = [
        {
            "dataset": cell.dataset,
            "model": cell.model,
            "reference": cell.reference,
            "measure": f"sim_{row['modality']}_{row['measure']}",
            "value": row["value"],
            "95 % interval": interval_of(Number("", None, _known(row["low"]), _known(row["high"]))),
            "itself": _known(row.get("itself")),
            "chance": _known(row["null_mean"]),
            "p": _known(row["p_value"]),
        }
        for cell, done in finished.items()
        if cell.task == SIMILARITY
        for row in done.tables["tables/similarity.csv"].to_dict("records")
    ]
    if not rows:
        return
    table = pd.DataFrame(rows)
    text = "How alike two models represent the same samples; rows were brought to length 1."
    if table["chance"].isna().all():
        text += " What samples paired at random would show is measured with `permutations` in the suite."
    equal = tuple({f"_{one}" for done in finished.values() for one in done.facts.get("one_if_equal", ())})
    alike = table[table["measure"].str.endswith(equal)]
    pictures = tuple(picture for dataset, part in alike.groupby("dataset") for picture in _alike(str(dataset), part))
    yield Section("Similarity", text, table.dropna(axis="columns", how="all"), pictures=pictures)


def _alike(dataset: str, table: pd.DataFrame) -> Iterator[Picture]:
    """Maps of measures, where there are more than two models."""
    if len({*table["model"], *table["reference"]}) < 3:
        return
    maps = {
        str(metric): symmetric(list(zip(part["model"], part["reference"], part["value"].astype(float), strict=True)))
        for metric, part in table.groupby("measure", sort=False)
    }
    for first in range(0, len(maps), PANELS):
        title = f"Similarity of the models on {dataset}"
        shown = dict(list(maps.items())[first : first + PANELS])
        yield Picture(f"similarity-{dataset}-{first // PANELS + 1}", title, model_maps(shown, title, "", ""))


def gap_sections(finished: Cells) -> Iterator[Section]:
    """The gap of every model under every alignment, with a picture of those that were not aligned; and robustness."""
    done = {cell: each for cell, each in finished.items() if cell.task == GAP}
    if not done:
        return
    rows = [
        {
            "dataset": cell.dataset,
            "model": cell.model,
            "alignment": cell.alignment or "none",
            **{name: value for row in _wanted(each, SHOWN_GAP) for name, value in row.items()},
        }
        for cell, each in done.items()
    ]
    text = (
        "How far apart images and texts of a model lie; in brackets the same between two halves of one modality. "
        "`tables/` has every metric with its definition and interval."
    )
    pictures = tuple(
        Picture(f"{cell.file}-{name}", f"Images and texts of {cell.model} on {cell.dataset} along the gap", picture)
        for cell, each in done.items()
        if cell.alignment is None
        for name, picture in each.pictures.items()
    )
    yield Section("Modality gap", text, pd.DataFrame(rows).dropna(axis="columns", how="all"), pictures=pictures)
    tables = [
        table.assign(dataset=cell.dataset, model=cell.model, alignment=cell.alignment or "none")
        for cell, each in finished.items()
        if (table := each.tables.get("tables/robustness.csv")) is not None
    ]
    if tables:
        yield _robustness(pd.concat(tables))


def _robustness(table: pd.DataFrame) -> Section:
    first = ["dataset", "model", "alignment", "total_var", "alpha"]
    shown = ["gap", "agreement", "agreement_gain", "clean_accuracy", "noisy_accuracy"]
    text = "Share of images whose nearest text stays the same under noise on the texts, as the gap is closed (alpha)."
    pictures = []
    for (dataset, variance), part in table[table["alignment"] == "none"].groupby(["dataset", "total_var"]):
        title = f"Robustness on {dataset} to noise of total variance {variance:g}"
        picture = robustness_curves(part, title)
        pictures.append(Picture(f"robustness-{dataset}-{variance:g}", title, picture))
    return Section(
        "Robustness to noise, as the gap is closed",
        text,
        table[[name for name in (*first, *shown) if name in table]],
        pictures=tuple(pictures),
    )


def _known(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _wanted(done: Finished, metrics: Iterable[str]) -> Iterator[dict[str, str]]:
    table = done.tables["tables/gap.csv"].set_index("metric").reindex(columns=["value", "null"])
    for metric in metrics:
        value, null = (pd.to_numeric(table[column])[metric] for column in ("value", "null"))
        if value == value:
            yield {metric: f"{value:.4g}" + (f" ({null:.2g})" if null == null else "")}
