"""Runs a registered task inside ``clip_benchmark eval``: the host's loop and options, our embeddings and report."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from koda_audit._files import write_json
from koda_audit.alignment.fit import calibration_split
from koda_audit.data.dataset import Dataset
from koda_audit.data.load import load_dataset
from koda_audit.document import printable
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError
from koda_audit.host.arguments import artefacts_of, dataset_root, output_path
from koda_audit.host.options import settings_of
from koda_audit.models import LoadedModel, ModelSpec, load_model
from koda_audit.protocols import FILE, data_of, protocol_of, signed
from koda_audit.registry import tasks
from koda_audit.report.markdown import terminal_table
from koda_audit.report.measured import how_measured, metric_table
from koda_audit.report.pictures import thumbnail
from koda_audit.report.write import write_report
from koda_audit.results import Result, signature
from koda_audit.tasks.aligned_choice import check_choice, fitted_on
from koda_audit.tasks.protocol import Inputs, Outcome, Task, check_task


def run(args: Namespace) -> int:
    """One model on one dataset in one language: embed, run the task, write its JSON and what lies beside it.

    Returns:
        0. A model that is itself the reference is skipped: there is nothing to compare.
    """
    task = tasks().load(args.task)
    spec = ModelSpec(args.model, args.pretrained, args.model_type, args.koda_allow_code)
    output = output_path(args, spec, args.dataset, args.language)
    if spec == args.koda_model:
        _say(args, f"'{spec.label}' is the reference: the other models are compared with it")
        return 0
    if args.skip_existing and output.exists():
        _say(args, f"Skip {output}, exists already.")
        return 0
    _check_task(output, task.name)
    settings = settings_of(task, args)
    dataset = load(args, args.split)
    kind = task.needs.kind or dataset.kind
    if kind != dataset.kind:
        raise InputError(f"{task.name} needs a dataset with {kind}, and {args.dataset} has {dataset.kind}")
    if task.needs.kind == "classes" and len(dataset.class_names or ()) < 2:
        raise InputError(f"{args.dataset} has a single class: {task.name} needs two at least")
    check_task(task, settings, len(dataset.samples))
    classes = f" in {len(dataset.class_names)} classes" if dataset.class_names else ""
    _say(args, f"{args.dataset}: {len(dataset.samples)} samples{classes}")
    target = embedded(args, spec, dataset)
    ids, fit = target.ids, None
    if args.koda_fit_split:
        fit = embedded(args, spec, load(args, args.koda_fit_split))
    elif args.koda_fit_share is not None:
        fit, target = calibration_split(target, args.koda_fit_share, args.seed)
    reference = None if args.koda_model is None else embedded(args, args.koda_model, dataset).aligned_to(target.ids)
    if reference is not None and reference.meta["model"] == target.meta["model"]:
        reference.meta["model"] += " (reference)"
    _say(args, f"{task.name}: {' against '.join(str(e.meta['model']) for e in (target, reference) if e is not None)}")
    again = None
    if reference is not None and getattr(settings, "floor", "none") == "batch":
        other = (embedded(args, model, dataset, other_batches=True) for model in (spec, args.koda_model))
        first, second = (embeddings.aligned_to(target.ids) for embeddings in other)
        again = (first, second)
    inputs = Inputs(target, reference, again, seed=args.seed, device=_device(args))
    if task.needs.fit:
        choice = check_choice(args)
        alignment = choice.fit(target, fit, args.koda_transductive)
        inputs = replace(inputs, alignment=alignment, fitted_on=fitted_on(choice, alignment, fit is not None, args))
    outcome = task.run(inputs, settings)
    report = _write(args, task, spec, dataset, ids, target, reference, fit, outcome, output)
    tables = [section.table for section in outcome.sections if section.table is not None]
    if args.verbose and tables:
        print(terminal_table(tables[0]))
    _say(args, f"Dump results to: {output}\nReport: {report}")
    return 0


def _check_task(output: Path, task: str) -> None:
    """Refuse to replace the results of another task, whose report would go with them."""
    try:
        found = json.loads(output.read_text("utf-8")).get("task")
    except (OSError, ValueError, AttributeError):  # nothing there, or nothing of ours
        return
    if found not in (None, task):
        raise InputError(f"{output} holds the results of {found}: put {{task}} into --output, or name another file")


def _write(
    args: Namespace,
    task: Task,
    spec: ModelSpec,
    dataset: Dataset,
    ids: Sequence[str],
    target: Embeddings,
    reference: Embeddings | None,
    fit: Embeddings | None,
    outcome: Outcome,
    output: Path,
) -> Path:
    compared = [embeddings for embeddings in (target, reference) if embeddings is not None]
    used = compared if fit is None else [*compared, fit]
    data = [data_of(embeddings.meta["ingredients"]) for embeddings in used]
    protocols = [protocol_of(task.name, task.version, number, data) for number in outcome.numbers]
    provenance = signature([embeddings.meta["ingredients"] for embeddings in used])
    common: dict[str, Any] = {
        "model": spec.name,
        "pretrained": spec.pretrained,
        "dataset": args.dataset,
        "task": args.task,
        "language": args.language,
        "split": args.split,
        "reference": None if args.koda_model is None else f"{args.koda_model.name},{args.koda_model.pretrained}",
        "alignment": outcome.settings.get("alignment"),
        "provenance": provenance,
    }
    results = [
        Result(
            metric=number.metric,
            value=number.value,
            ci_low=number.low,
            ci_high=number.high,
            chance=number.chance,
            n=len(target) if number.n is None else number.n,
            seed=args.seed,
            protocol=signature(protocol),
            **common,
        )
        for number, protocol in zip(outcome.numbers, protocols, strict=True)
    ]
    against = "" if reference is None else f" against {reference.meta['model']}"
    title = f"{args.task}: {target.meta['model']}{against} on {args.dataset}"
    report = write_report(
        artefacts_of(output),
        title,
        [*outcome.sections, metric_table(outcome.metrics), how_measured(compared, outcome.settings)],
        outcome.tables,
        results,
        lambda wanted: {sample: thumbnail(image) for sample, image in dataset.images(wanted, ids).items()},
        beside=lambda work: write_json(work / FILE, signed(protocols)),
    )
    # the host's form: flat metrics, and extra keys that `clip_benchmark build` passes through as columns
    weights = [embeddings.meta["ingredients"]["model"]["weights"] for embeddings in compared]
    hashes = dict(zip(("weights", "reference_weights"), weights, strict=False))
    whole = {"protocol": signature(protocols), **hashes}
    write_json(output, {**common, **whole, "metrics": outcome.metrics})
    return report


def load(args: Namespace, split: str) -> Dataset:
    """A split of the dataset that the options name."""
    return _dataset(
        args.dataset,
        dataset_root(args.dataset_root, args.dataset),
        split,
        args.language,
        args.annotation_file,
        args.custom_classname_file,
        args.custom_template_file,
        args.wds_cache_dir,
        args.koda_store,
    )


def embedded(args: Namespace, spec: ModelSpec, dataset: Dataset, other_batches: bool = False) -> Embeddings:
    """The embeddings of a dataset, from the store or computed now."""
    how = " in other batches, for the floor" if other_batches else ""
    _say(
        args, f"embedding {dataset.split} with {spec.label}{how} (whatever is in the store already is taken from there)"
    )
    model = _model(spec, _device(args), args.model_cache_dir, args.language)
    return embed(
        model,
        dataset,
        Store(args.koda_store),
        batch_size=args.batch_size,
        workers=args.num_workers,
        dtype=args.koda_dtype,
        quiet=not args.verbose,
        other_batches=other_batches,
    )


@lru_cache(maxsize=2)  # the reference stays in memory while the listed models pass by
def _model(spec: ModelSpec, device: str, cache_dir: str | None, language: str) -> LoadedModel:
    return load_model(spec, device, cache_dir, language)


@lru_cache(maxsize=2)  # the host's loop comes back with the same dataset, and its split to fit on, for every model
def _dataset(
    name: str,
    root: str,
    split: str,
    language: str,
    annotation_file: str,
    classname_file: str | None,
    template_file: str | None,
    cache_dir: str | None,
    store: Path,
) -> Dataset:
    return load_dataset(
        name,
        root,
        split,
        language=language,
        annotation_file=annotation_file,
        classname_file=classname_file,
        template_file=template_file,
        cache_dir=cache_dir,
        hash_file=Store(store).file_sha256,
    )


def _device(args: Namespace) -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if args.distributed else "cuda"


def _say(args: Namespace, message: str) -> None:
    if args.verbose:
        print("\n".join(map(printable, message.splitlines())))
