"""Runs a registered task inside ``clip_benchmark eval``: the host's loop and options, our embeddings and report."""

from __future__ import annotations

import os
from argparse import Namespace
from functools import lru_cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from koda_audit._files import check_writable, slug, write_json
from koda_audit.data.dataset import Dataset
from koda_audit.data.load import WEBDATASET, check_dataset, load_dataset
from koda_audit.document import Outcome
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError
from koda_audit.host_tasks.protocol import Inputs
from koda_audit.models import LoadedModel, ModelSpec, check_model, load_model
from koda_audit.registry import tasks
from koda_audit.report.markdown import terminal_table
from koda_audit.report.measured import how_measured, metric_table
from koda_audit.report.write import check_replaceable, write_report
from koda_audit.results import Result, signature


def check_all(base: Namespace, cli: ModuleType) -> None:
    """Everything that can be found wrong before a model is loaded; called once, before the host's loop.

    Raises:
        InputError: the first fault, with its remedy.
    """
    task = tasks().load(base.task)
    task.check(base)
    if base.skip_load:
        raise InputError("--skip_load is for linear probes: leave it out")
    models, datasets = _models(base, cli), _datasets(base, cli)
    base.koda_model = None
    if task.compares:
        if base.koda_reference:
            base.koda_model = ModelSpec.parse(base.koda_reference, base.model_type)
        elif len(set(models)) > 1:
            base.koda_model = models[0]
        else:
            raise InputError(f"{base.task} compares two models: list two, or name one with --koda_reference")
    for spec in dict.fromkeys([*models, *([base.koda_model] if base.koda_model else [])]):
        check_model(spec, base.koda_allow_code)
    languages = base.language if isinstance(base.language, list) else [base.language]
    seen: dict[Path, str] = {}
    for spec, dataset, language in product(models, datasets, languages):
        if spec == base.koda_model:
            continue
        output = _output(base, spec, dataset, language)
        if output in seen:
            raise InputError(f"two runs would write to {output}: use {{model}}, {{dataset}}, {{language}} in --output")
        seen[output] = dataset
        check_writable(output.parent, "the folder of --output")
        check_replaceable(_artefacts(output))
    for dataset in datasets:
        check_dataset(dataset, _root(base.dataset_root, dataset))
    Store(base.koda_store)


def run(args: Namespace) -> int:
    """One model on one dataset in one language: embed, run the task, write its JSON and what lies beside it.

    Returns:
        0. A model that is itself the reference is skipped: there is nothing to compare.
    """
    task = tasks().load(args.task)
    spec = ModelSpec(args.model, args.pretrained, args.model_type)
    output = _output(args, spec, args.dataset, args.language)
    if spec == args.koda_model:
        _say(args, f"'{spec.label}' is the reference: nothing to compare it with")
        return 0
    if args.skip_existing and output.exists():
        _say(args, f"Skip {output}, exists already.")
        return 0
    dataset = _dataset(
        args.dataset,
        _root(args.dataset_root, args.dataset),
        args.split,
        args.language,
        args.annotation_file,
        args.custom_classname_file,
        args.custom_template_file,
        args.wds_cache_dir,
        args.koda_store,
    )
    task.check(args, len(dataset.samples))
    target = _embed(args, spec, dataset)
    reference = None if args.koda_model is None else _embed(args, args.koda_model, dataset).aligned_to(target.ids)
    if reference is not None and reference.meta["model"] == target.meta["model"]:
        for embeddings, other in ((target, spec), (reference, args.koda_model)):
            embeddings.meta["model"] = f"{other.name},{other.pretrained}"
    outcome = task.run(Inputs(target, reference, args))
    report = _write(args, spec, dataset, target, reference, outcome, output)
    tables = [section.table for section in outcome.sections if section.table is not None]
    if args.verbose and tables:
        print(terminal_table(tables[0]))
    _say(args, f"Dump results to: {output}\nReport: {report}")
    return 0


def _write(
    args: Namespace,
    spec: ModelSpec,
    dataset: Dataset,
    target: Embeddings,
    reference: Embeddings | None,
    outcome: Outcome,
    output: Path,
) -> Path:
    compared = [embeddings for embeddings in (target, reference) if embeddings is not None]
    protocol = signature([args.task, dataset.fingerprint, dataset.split, dataset.language, outcome.settings])
    provenance = signature([embeddings.meta["ingredients"] for embeddings in compared])
    common: dict[str, Any] = {
        "model": spec.name,
        "pretrained": spec.pretrained,
        "dataset": args.dataset,
        "task": args.task,
        "language": args.language,
        "split": args.split,
        "reference": None if args.koda_model is None else f"{args.koda_model.name},{args.koda_model.pretrained}",
        "protocol": protocol,
        "provenance": provenance,
    }
    results = [
        Result(metric=metric, value=value, n=len(target), seed=args.seed, **common)
        for metric, value in outcome.metrics.items()
    ]
    title = f"{args.task}: {spec.label} on {args.dataset}"
    report = write_report(
        _artefacts(output),
        title,
        [*outcome.sections, metric_table(outcome.metrics), how_measured(compared, outcome.settings)],
        outcome.files,
        results,
        lambda wanted: dataset.images(wanted, target.ids),
    )
    # the host's form: flat metrics, and extra keys that `clip_benchmark build` passes through as columns
    weights = [embeddings.meta["ingredients"]["model"]["weights"] for embeddings in compared]
    hashes = dict(zip(("weights", "reference_weights"), weights, strict=False))
    write_json(output, {**common, **hashes, "metrics": outcome.metrics})
    return report


def _embed(args: Namespace, spec: ModelSpec, dataset: Dataset) -> Embeddings:
    model = _model(spec, _device(args), args.model_cache_dir, args.language)
    return embed(
        model,
        dataset,
        Store(args.koda_store),
        batch_size=args.batch_size,
        workers=args.num_workers,
        dtype=args.koda_dtype,
        quiet=not args.verbose,
    )


@lru_cache(maxsize=2)  # the reference stays in memory while the listed models pass by
def _model(spec: ModelSpec, device: str, cache_dir: str | None, language: str) -> LoadedModel:
    return load_model(spec, device, cache_dir, language)


@lru_cache(maxsize=1)  # the host's loop comes back with the same dataset for every model
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


def _root(template: str, dataset: str) -> str:
    name = dataset.removeprefix(WEBDATASET)
    return template.format(dataset=name, dataset_cleaned=name.replace("/", "-"))


def _output(args: Namespace, spec: ModelSpec, dataset: str, language: str) -> Path:
    """The file of --output, with names that hold no separators (`local-dir:` and `hf-hub:` names do)."""
    fields = {
        "model": slug(spec.name),
        "pretrained": slug(Path(spec.pretrained).name),
        "pretrained_full_path": slug(spec.pretrained),
        "task": args.task,
        "dataset": slug(dataset.removeprefix(WEBDATASET)),
        "language": language,
    }
    try:
        output = Path(args.output.format(**fields))
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"--output '{args.output}': unknown field {error}; known are {', '.join(fields)}") from error
    if output.is_dir():
        raise InputError(f"--output {output} is a folder: name a file, such as {output}/{{model}}_{{dataset}}.json")
    return output


def _artefacts(output: Path) -> Path:
    return output.with_suffix("") if output.suffix else output.with_name(output.name + "_files")


def _models(base: Namespace, cli: ModuleType) -> list[ModelSpec]:
    """The models of the host's options, read strictly; the host's own loop reads them again."""
    listed = base.pretrained_model if isinstance(base.pretrained_model, list) else [base.pretrained_model]
    if not any(listed):
        names, tags = (value if isinstance(value, list) else [value] for value in (base.model, base.pretrained))
        return [ModelSpec(name, tag, base.model_type) for name, tag in product(names, tags)]
    models: list[ModelSpec] = []
    for name in listed:
        if os.path.isfile(name):
            for number, line in enumerate(Path(name).read_text("utf-8").splitlines(), 1):
                models.append(_pair(line.strip(), f"{name}:{number}", base.model_type))
        elif name in cli.model_collection:
            models.extend(ModelSpec(model, tag, base.model_type) for model, tag in cli.model_collection[name])
        else:
            models.append(_pair(name, "--pretrained_model", base.model_type))
    return models


def _pair(text: str, where: str, model_type: str) -> ModelSpec:
    if text.count(",") != 1:
        raise InputError(
            f"{where}: '{text}' is no MODEL,PRETRAINED (with local-dir: and hf-hub: anything may follow the comma)"
        )
    return ModelSpec.parse(text, model_type)


def _datasets(base: Namespace, cli: ModuleType) -> list[str]:
    datasets: list[str] = []
    for name in base.dataset if isinstance(base.dataset, list) else [base.dataset]:
        if os.path.isfile(name):
            datasets.extend(cli.get_dataset_collection_from_file(name))
        else:
            datasets.extend(cli.dataset_collection.get(name, [name]))
    return datasets


def _say(args: Namespace, message: str) -> None:
    if args.verbose:
        print(message)
