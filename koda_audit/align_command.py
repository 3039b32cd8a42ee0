"""``koda-audit align``: fit an alignment on a split of a dataset, or train towers on it, and save the result."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from koda_audit._files import check_writable, default_store
from koda_audit.alignment.driven import member_rows, read_members
from koda_audit.alignment.fit import calibration_split
from koda_audit.alignment.operator import Alignment
from koda_audit.alignment.tower_choice import TRAINERS, tower_arguments
from koda_audit.data.dataset import Dataset
from koda_audit.data.folder import FOLDER
from koda_audit.data.load import check_dataset
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError
from koda_audit.host.arguments import check_numbers, dataset_root
from koda_audit.host.runner import embedded, load
from koda_audit.models import LOCAL, ModelSpec, check_model, load_model
from koda_audit.report.markdown import terminal_table
from koda_audit.tasks.aligned_choice import Choice, check_share, distinct, label


def align(args: argparse.Namespace) -> None:
    """Embed, fit, save, and print what was done.

    Raises:
        KodaAuditError: anything that the options get wrong, before a model is loaded where it can be known by then.
    """
    args.koda_store = args.koda_store or default_store()
    code = args.koda_allow_code
    spec = ModelSpec(args.model, args.pretrained, allow_code=code)
    teacher = None if args.teacher is None else ModelSpec.parse(args.teacher, allow_code=code)
    given = {"teacher": teacher, "focus": args.members or None}
    objects = [name for name, value in given.items() if value is not None]
    for option in ("output", "model"):
        if "," in str(getattr(args, option)):
            raise InputError(f"--{option} {getattr(args, option)}: clip_benchmark reads no path with a comma")
    tower = args.mode == "tower"
    if tower:
        trained = tower_arguments(args.name, spec, {"seed": args.seed, **distinct(args.set)})
        _check_tower(args)
    choice = Choice.named(args.name, () if tower else args.set, objects)
    members = None if not args.members else pd.concat(map(read_members, args.members))
    for model in (spec, teacher):
        if model is not None:
            check_model(model)
    check_numbers(args)
    check_share(args.koda_fit_share)
    check_dataset(args.dataset, dataset_root(args.dataset_root, args.dataset), args.split)
    Store(args.koda_store)
    check_writable(args.output, "--output")
    dataset = load(args, args.split)
    if tower:
        trained["plan"].batches(len(dataset.samples))  # before the models are run
    samples = embedded(args, spec, dataset)
    if args.koda_fit_share is not None:
        samples, _ = calibration_split(samples, args.koda_fit_share, args.seed)
    found: dict[str, Any] = {}
    if members is not None:
        found["focus"] = member_rows(members, samples.ids)
    if teacher is not None:
        known = embedded(args, teacher, dataset)
        found["teacher"] = known.take(member_rows(pd.DataFrame({"id": samples.ids}), known.ids))
    if tower:
        _train(args, spec, teacher, dataset, trained, found.get("focus"))
        return
    alignment = choice.fit(samples, None, args.koda_transductive, **found)
    alignment.save(args.output)
    print(terminal_table(_table(alignment, args)))
    if not alignment.info["gallery_bound"]:
        print(_next(args, dataset, spec, args.output))


def _next(args: argparse.Namespace, dataset: Dataset, spec: ModelSpec, alignment: Path | None) -> str:
    """A command that evaluates it on another split; of plain folders the host reads none, and our own tasks do."""
    kind = "classification" if dataset.kind == "classes" else "retrieval"
    base = f"{spec.name},{spec.pretrained}"
    task = f"zeroshot_{kind}"
    model: tuple[str, ...] = ("--pretrained_model", base)
    if args.dataset.startswith(FOLDER):
        # a relative folder may have the name of a method
        named = "identity" if alignment is None else str(alignment.absolute())
        task, model = f"koda_aligned_{kind}", (*model, "--koda_alignment", named)
        if args.koda_store != default_store():
            model += ("--koda_store", str(args.koda_store))
    elif alignment is not None:
        model = ("--model_type", "koda_aligned", "--model", str(alignment), "--pretrained", base.removesuffix(","))
    known = args.split != "test"
    split = "test" if known else "ANOTHER"
    data = ["--dataset", args.dataset, "--dataset_root", args.dataset_root, "--split", split]
    for name in ("language", "annotation_file", "custom_classname_file", "custom_template_file"):
        if (given := getattr(args, name)) not in ("", "en", None):
            data += [f"--{name}", given]
    code = ("--koda_allow_code",) if args.koda_allow_code else ()
    words = ("clip_benchmark", "eval", "--task", task, *model, *data, *code, "--output", "aligned.json")
    note = "" if known else "Evaluate it on samples that it was not fitted on, with the name of another split:\n"
    return f"\n{note}{shlex.join(words)}"


def _check_tower(args: argparse.Namespace) -> None:
    for option, given in (
        ("--koda_fit_share", args.koda_fit_share is not None),
        ("--koda_transductive", args.koda_transductive),
        ("--koda_dtype host", args.koda_dtype == "host"),
    ):
        if given:
            raise InputError(f"{option} is for --mode feature: leave it out")


def _train(
    args: argparse.Namespace,
    spec: ModelSpec,
    teacher: ModelSpec | None,
    dataset: Dataset,
    trained: dict[str, Any],
    focus: Any,
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained["plan"] = replace(trained["plan"], workers=args.num_workers, focus=focus)
    if teacher is not None:
        trained["teacher"] = load_model(teacher, device)
    figures = TRAINERS[args.name](
        spec, dataset=dataset, output=args.output, store=Store(args.koda_store), device=device, **trained
    )
    rows = {
        "alignment": args.name + (f" towards {teacher.label}" if teacher else ""),
        "model": spec.label,
        "trained on": f"{len(dataset.samples)} images of {args.dataset}, {args.split}",
        **{name.replace("_", " "): value for name, value in figures.items()},
        "saved in": str(args.output),
    }
    if focus is not None:
        rows["trained on"] += f", {trained['plan'].share:g} of each batch from {len(set(focus))} members"
    print(terminal_table(_listed(rows)))
    print(_next(args, dataset, ModelSpec(f"{LOCAL}{args.output}", "x"), None))


def _table(alignment: Alignment, args: argparse.Namespace) -> pd.DataFrame:
    info = alignment.info
    share = "" if args.koda_fit_share is None else f", a share of {args.koda_fit_share} drawn with seed {args.seed}"
    rows = {
        "alignment": label(alignment),
        "definition": info["definition"],
        "model": f"{info['model']}, weights {info['model_hash'][:16]}",
        "fitted on": f"{info['samples']} images and {info['texts']} texts of {args.dataset}, {args.split}{share}",
        "scoring": info["scoring"],
        **{name.replace("_", " "): value for name, value in info["figures"].items() if not isinstance(value, list)},
        "saved in": str(args.output),
    }
    return _listed(rows)


def _listed(rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"what": list(rows), "value": pd.Series(list(rows.values()), dtype=object)})
