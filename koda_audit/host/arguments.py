"""The host's options, read strictly: which models, datasets and files a run is about, and what is wrong with them.

The host's own loop reads them again; so nothing is accepted here that it would refuse.
"""

from __future__ import annotations

import os
from argparse import Namespace
from itertools import product
from pathlib import Path
from types import ModuleType

from koda_audit._files import check_writable, slug
from koda_audit.data.load import WEBDATASET, check_dataset
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError
from koda_audit.host.options import settings_of
from koda_audit.models import ModelSpec, check_model
from koda_audit.registry import tasks
from koda_audit.report.write import check_replaceable
from koda_audit.tasks.aligned_choice import check_choice

ALIGNMENT = ("koda_alignment", "koda_fit_split", "koda_fit_share", "koda_transductive")


def check_all(base: Namespace, cli: ModuleType) -> None:
    """Everything that can be found wrong before a model is loaded; called once, before the host's loop.

    Adds ``koda_model``, the reference or None, to the options.

    Raises:
        InputError: the first fault, with its remedy.
    """
    task = tasks().load(base.task)
    given = [name for name in ALIGNMENT if getattr(base, name) not in (None, False)]
    if given and not task.needs.fit:
        raise InputError(f"--{given[0]} is for the tasks koda_aligned_…: leave it out, or choose one of them")
    if task.needs.fit:
        check_choice(base)
    settings_of(task, base)
    if base.skip_load:
        raise InputError("--skip_load is for linear probes: leave it out")
    check_numbers(base)
    models, datasets = listed_models(base, cli), _datasets(base, cli)
    base.koda_model = _reference(base, models) if task.needs.models == 2 else None
    for spec in dict.fromkeys([*models, *([base.koda_model] if base.koda_model else [])]):
        check_model(spec)
    languages = base.language if isinstance(base.language, list) else [base.language]
    seen: set[Path] = set()
    for spec, dataset, language in product(models, datasets, languages):
        if spec == base.koda_model:
            continue
        output = output_path(base, spec, dataset, language)
        if output in seen:
            raise InputError(
                f"two runs would write to {output}: --output must tell models, datasets and languages apart "
                "(with {model}, {pretrained}, {pretrained_full_path}, {dataset}, {language})"
            )
        seen.add(output)
        check_writable(output.parent, "the folder of --output")
        check_replaceable(artefacts_of(output))
    for dataset in datasets:
        for split in filter(None, (base.split, base.koda_fit_split)):
            check_dataset(dataset, dataset_root(base.dataset_root, dataset), split)
    Store(base.koda_store)


def check_numbers(args: Namespace) -> None:
    """Raises InputError for a batch size, number of workers or seed that cannot be."""
    for option, least in (("batch_size", 1), ("num_workers", 0), ("seed", 0)):
        if getattr(args, option) < least:
            raise InputError(f"--{option} {getattr(args, option)}: at least {least}")


def dataset_root(template: str, dataset: str) -> str:
    """--dataset_root with the name of the dataset put in, as the host does.

    Raises:
        InputError: a field that the host does not know.
    """
    name = dataset.removeprefix(WEBDATASET)
    try:
        return template.format(dataset=name, dataset_cleaned=name.replace("/", "-"))
    except (LookupError, ValueError, AttributeError) as error:
        raise InputError(f"--dataset_root '{template}': only {{dataset}} and {{dataset_cleaned}} are known") from error


def output_path(args: Namespace, spec: ModelSpec, dataset: str, language: str) -> Path:
    """The file of --output, with names that hold no separators (`local-dir:` and `hf-hub:` names do).

    Raises:
        InputError: a field that the host does not know, or a place where no file can be.
    """
    fields = {
        "model": slug(spec.name),
        "pretrained": slug(Path(spec.pretrained).name),
        "pretrained_full_path": slug(spec.pretrained),
        "task": args.task,
        "dataset": slug(dataset.removeprefix(WEBDATASET)),
        "language": slug(language),
    }
    try:
        name = args.output.format(**fields)
    except (LookupError, ValueError, AttributeError) as error:
        raise InputError(f"--output '{args.output}': unknown field {error}; known are {', '.join(fields)}") from error
    try:
        output = Path(name)
        output = output.resolve() if output.is_symlink() else output
        if output.is_dir() or name.endswith("/"):
            raise InputError(f"--output {name} is a folder: name a file, such as {name}/{{model}}_{{dataset}}.json")
        if output.exists() and not output.is_file():
            raise InputError(f"--output {name} is no plain file: choose another")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--output {name[:80]}… cannot be a file: {error}") from error
    return output


def artefacts_of(output: Path) -> Path:
    """The folder beside the host's JSON that holds all that is no number."""
    return output.with_suffix("") if output.suffix else output.with_name(output.name + "_files")


def _reference(base: Namespace, models: list[ModelSpec]) -> ModelSpec:
    if base.koda_reference is not None:
        reference = ModelSpec.parse(base.koda_reference, base.model_type, base.koda_allow_code)
    elif len(models) > 1:
        reference = models[0]
    else:
        raise InputError(f"{base.task} compares two models: list two, or name one with --koda_reference")
    if all(_same(spec, reference) for spec in models):
        raise InputError(f"'{reference.name}' is the only model and the reference too: list another one")
    return next((spec for spec in models if _same(spec, reference)), reference)


def _same(spec: ModelSpec, other: ModelSpec) -> bool:
    """Equal names; what stands after the comma counts only where open_clip does not ignore it."""
    return spec.name == other.name and (spec.pretrained == other.pretrained or spec.ignores_pretrained)


def listed_models(base: Namespace, cli: ModuleType) -> list[ModelSpec]:
    """All models that --pretrained_model, or else --model and --pretrained, ask for.

    Raises:
        InputError: one that is none, or is listed twice, or a list that cannot be read.
    """
    listed = base.pretrained_model if isinstance(base.pretrained_model, list) else [base.pretrained_model]
    kind, allow_code = base.model_type, getattr(base, "koda_allow_code", False)
    models: list[ModelSpec] = []
    if not any(listed):
        names, tags = (value if isinstance(value, list) else [value] for value in (base.model, base.pretrained))
        models = [ModelSpec(name, tag, kind, allow_code) for name, tag in product(names, tags)]
    for name in filter(None, listed):
        if os.path.isfile(name):
            models += [_pair(line, where, kind, allow_code) for where, line in _lines(name)]
        elif name in cli.model_collection:
            models += [ModelSpec(model, tag, kind) for model, tag in cli.model_collection[name]]
        else:
            models.append(_pair(name, "--pretrained_model", kind, allow_code))
    twice = next((spec for number, spec in enumerate(models) if spec in models[:number]), None)
    if twice is not None:
        raise InputError(f"model '{twice.name},{twice.pretrained}' is listed twice")
    return models


def _pair(text: str, where: str, model_type: str, allow_code: bool) -> ModelSpec:
    if text.count(",") != 1:
        raise InputError(
            f"{where}: '{text}' is no MODEL,PRETRAINED (with local-dir: and hf-hub: anything may follow the comma)"
        )
    return ModelSpec.parse(text, model_type, allow_code)


def _datasets(base: Namespace, cli: ModuleType) -> list[str]:
    datasets: list[str] = []
    for name in base.dataset if isinstance(base.dataset, list) else [base.dataset]:
        if os.path.isfile(name):
            datasets += [line for _, line in _lines(name)]
        else:
            datasets += cli.dataset_collection.get(name, [name])
    if not datasets:
        raise InputError("no dataset: name one with --dataset")
    return datasets


def _lines(name: str) -> list[tuple[str, str]]:
    """The lines of a list of models or datasets, each with its place; the host takes a blank one for a name."""
    try:
        lines = Path(name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name} cannot be read as a list of names: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{name}:{number}: a blank line: remove it")
    return [(f"{name}:{number}", line.strip()) for number, line in enumerate(lines, 1)]
