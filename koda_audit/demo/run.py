"""The embedded default: audit four small models on drawn digits, offline, and write one report.

``colour`` is compared with ``plain`` (trained without colour words), with ``broken`` (the same weights behind the wrong
preprocessing: an upgrade that broke in silence), with ``reseeded`` (trained again with another seed) and, as a control,
with itself in other batches.
"""

from __future__ import annotations

import sys
import textwrap
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from koda_audit._files import cache_folder, check_writable
from koda_audit.data.dataset import Dataset
from koda_audit.data.load import load_dataset
from koda_audit.demo.digits import write_webdatasets
from koda_audit.demo.models import write_models
from koda_audit.document import Outcome, Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.host_tasks import gap, gap_report, gap_robustness, gap_robustness_report, similarity, similarity_report
from koda_audit.host_tasks.discrepancy import task
from koda_audit.host_tasks.discrepancy_report import READING
from koda_audit.host_tasks.protocol import Inputs, Task
from koda_audit.models import ModelSpec, load_model
from koda_audit.report.markdown import terminal_table
from koda_audit.report.measured import how_measured
from koda_audit.report.write import check_replaceable, write_report
from koda_audit.results import Result, signature

Run = tuple[Task, str, str | None, Outcome]  # the model, and what it was compared with


def _options(tasks: Iterable[Task], **chosen: object) -> Namespace:
    """The defaults of the tasks, but for what was chosen."""
    parser = ArgumentParser()
    for each in tasks:
        each.add_options(parser.add_argument_group(each.name))
    return Namespace(**{**vars(parser.parse_args([])), **chosen})


OPTIONS = _options(
    (task, gap.task, gap_robustness.task, similarity.task),
    koda_features="exact",
    koda_directions=4,
    koda_sim_permutations=5,  # the chance level alone is shown
    seed=0,
)
DATA, CLASSES = "digits_captions", "digits"  # the same drawings with captions, and with the digit as class
REFERENCE = "colour"
OTHERS = {
    "plain": "the same images, but its captions never named a colour",
    "broken": "the weights of colour behind the wrong preprocessing: an upgrade that broke in silence",
    "reseeded": "colour trained again with another seed",
    "again": "colour itself, in batches of another size: the control",
}

# columns of the summaries -> metrics
GAP = {name: f"gap_{name}" for name in ("centroid_gap", "dist_gap_rel", "rmg", "linear_sep", "prediction_gini")}
ROBUSTNESS = {
    name: f"gaprob_{name}"
    for name in (
        *("agreement", "agreement_closed", "agreement_gain", "agreement_gain_se"),
        *("clean_accuracy", "noisy_accuracy", "noisy_accuracy_closed"),
    )
}
SIMILARITY = {
    f"{measure}, {modality}": f"sim_{modality}_{measure}"
    for measure in ("cka_linear_debiased", "mutual_knn")
    for modality in ("image", "text")
}


def main(output: Path, quiet: bool) -> int:
    """Write the report to ``output`` and print where it lies.

    Returns:
        0.

    Raises:
        KodaAuditError: a folder that cannot be written.
    """
    check_writable(output.parent, "the folder of --output")
    check_replaceable(output)
    started = time.monotonic()
    home = cache_folder() / "demo"
    models, exports = write_models(home / "models"), write_webdatasets(home / "data")
    root = exports[DATA]
    store = Store(home / "store")
    dataset, classes = (
        load_dataset(f"wds/{name}", str(exports[name]), hash_file=store.file_sha256) for name in (DATA, CLASSES)
    )

    def embedded(name: str, store: Store, batch_size: int = 64) -> Embeddings:
        model = load_model(ModelSpec(f"local-dir:{models[name]}"))
        pairs, digits = (
            embed(model, data, store, batch_size=batch_size, workers=0, quiet=quiet) for data in (dataset, classes)
        )
        digits = digits.aligned_to(pairs.ids)
        return Embeddings(
            pairs.image,
            pairs.text,
            ids=pairs.ids,
            captions=pairs.captions,
            labels=digits.labels,
            class_text=digits.class_text,
            class_names=digits.class_names,
            meta=pairs.meta,
        )

    names = (REFERENCE, *OTHERS)[:-1]
    first = {name: embedded(name, store) for name in names}
    again = {name: embedded(name, Store(home / "store-again"), batch_size=37) for name in names}
    reference, control = first[REFERENCE], again[REFERENCE]
    control.meta["model"] = "again"
    others = {**{name: first[name] for name in names[1:]}, "again": control}
    repeated = {**again, "again": reference}
    outcomes = {
        name: task.run(Inputs(reference, other, OPTIONS, "cpu", (control, repeated[name])))
        for name, other in others.items()
    }
    alike = {
        name: similarity.task.run(Inputs(reference, other, OPTIONS, "cpu", (control, repeated[name])))
        for name, other in others.items()
    }
    gaps, robust = (
        {name: each.run(Inputs(model, None, OPTIONS, "cpu")) for name, model in first.items()}
        for each in (gap.task, gap_robustness.task)
    )
    runs: list[Run] = [
        *((task, REFERENCE, name, outcome) for name, outcome in outcomes.items()),
        *((gap.task, name, None, outcome) for name, outcome in gaps.items()),
        *((gap_robustness.task, name, None, outcome) for name, outcome in robust.items()),
        *((similarity.task, REFERENCE, name, outcome) for name, outcome in alike.items()),
    ]
    shown = [
        _shown("The modality gap of each model", gap_report.READING, gaps, GAP),
        _shown("Does noise on the prompts change answers?", gap_robustness_report.READING, robust, ROBUSTNESS),
        _shown(f"How alike is {REFERENCE} to each of the others?", similarity_report.READING, alike, SIMILARITY),
    ]
    nulls = [outcome.files["tables/gap.csv"].set_index("metric")["null"]["centroid_gap"] for outcome in gaps.values()]
    assert shown[0].table is not None
    shown[0].table.insert(2, "null", nulls)
    summary = _summary(outcomes)
    report = write_report(
        output,
        "Demo: which groups of digits does one model see and the other not?",
        [
            *_sections(summary, outcomes, len(reference)),
            *shown,
            how_measured([reference, *others.values()], outcomes["plain"].settings),
        ],
        {
            _below(path, other or model): table
            for _, model, other, outcome in runs
            for path, table in outcome.files.items()
        },
        list(_results(runs, {**first, "again": control}, dataset)),
        lambda wanted: dataset.images(wanted, reference.ids),
    )
    if not quiet:
        print(terminal_table(summary))
        for section in shown:
            assert section.table is not None
            print(f"\n{section.title}\n{textwrap.fill(section.text.replace('*', ''), 110)}\n")
            print(terminal_table(section.table))
        print(f"\nFour comparisons of {len(reference)} image-text pairs in {time.monotonic() - started:.0f} s.")
        print(f"One of them in the runner of clip_benchmark:\n\n{_command(models, root)}\n")
    print(f"Report: {report}")
    return 0


def _summary(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """The strongest lobe of each comparison and way."""
    tables = [outcome.sections[0].table for outcome in outcomes.values()]
    best = [table.groupby(["groups", "does not"], sort=False).head(1) for table in tables if table is not None]
    whole = pd.concat(best, ignore_index=True).drop(columns="lobe")
    order = whole.assign(finding=whole["verdict"] == "finding").sort_values(["finding", "excess"], ascending=False)
    return order.drop(columns="finding").reset_index(drop=True)


def _sections(summary: pd.DataFrame, outcomes: dict[str, Outcome], n: int) -> Iterator[Section]:
    listed = "\n".join(f"- `{name}`: {meaning}" for name, meaning in OTHERS.items())
    yield Section(
        "Summary",
        f"{n} scanned digits in colour, with captions such as “a photo of a red seven on a blue background”. "
        f"`{REFERENCE}` learnt digits and colours. It is compared, both ways, with\n\n{listed}\n\n"
        f"{READING} Here is the strongest of each comparison. The control is equal to the last digit.",
        summary,
    )
    for name, outcome in outcomes.items():
        for section in outcome.sections[1:]:
            grids = tuple(replace(grid, name=f"{name}-{grid.name}") for grid in section.grids)
            pictures = tuple(replace(picture, name=f"{name}-{picture.name}") for picture in section.pictures)
            yield replace(section, grids=grids, pictures=pictures)


def _shown(title: str, reading: str, outcomes: dict[str, Outcome], metrics: dict[str, str]) -> Section:
    """A row a model, of the metrics that say most, and every model's pictures."""
    rows = [
        {"model": name, **{column: outcome.metrics[key] for column, key in metrics.items()}}
        for name, outcome in outcomes.items()
    ]
    pictures = [
        replace(picture, name=f"{name}-{picture.name}")
        for name, outcome in outcomes.items()
        for section in outcome.sections
        for picture in section.pictures
    ]
    return Section(title, reading, pd.DataFrame(rows), pictures=tuple(pictures))


def _results(runs: Iterable[Run], models: dict[str, Embeddings], dataset: Dataset) -> Iterator[Result]:
    for ran, model, other, outcome in runs:
        used = [models[name].meta["ingredients"] for name in (other, model) if name is not None]
        for metric, value in outcome.metrics.items():
            yield Result(
                suite="demo",
                model=model,
                pretrained="",
                reference=other,
                dataset=DATA,
                split=dataset.split,
                language=dataset.language,
                task=ran.name,
                metric=metric,
                value=value,
                n=len(models[model]),
                seed=OPTIONS.seed,
                protocol=signature([ran.name, dataset.fingerprint, outcome.settings]),
                provenance=signature(used),
            )


def _below(path: str, name: str) -> str:
    kind, _, file = path.partition("/")
    return f"{kind}/{name}-{file}"


def _command(models: dict[str, Path], root: Path) -> str:
    runner = Path(sys.executable).with_name("clip_benchmark")  # in an environment that need not be on the path
    return (
        f"  {runner if runner.exists() else 'clip_benchmark'} eval --task {task.name} \\\n"
        f"    --dataset wds/{DATA} --dataset_root {root} \\\n"
        f"    --pretrained_model local-dir:{models[REFERENCE]},x local-dir:{models['broken']},x --output broken.json"
    )
