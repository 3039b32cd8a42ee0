"""What the host, and the formulas of alignments, find wrong with a suite before anything is computed; imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from koda_audit._arrays import choose_device
from koda_audit.alignment.fit import method_arguments
from koda_audit.alignment.tower_choice import tower_arguments
from koda_audit.data.folder import FOLDER, class_folders
from koda_audit.data.load import check_dataset
from koda_audit.data.prompts import custom_class_names, custom_templates
from koda_audit.errors import InputError, KodaAuditError
from koda_audit.models import ModelSpec, check_model
from koda_audit.registry import alignments
from koda_audit.suite.checks import Fault
from koda_audit.suite.names import DataName
from koda_audit.suite.plan import AROUND, Plan

CHOOSING = ("zeroshot_classification", "linear_probe")  # tasks in which an image has one of several classes


def host_faults(plan: Plan) -> Iterator[Fault]:
    """What is wrong with models and data, all of it."""
    needed = [cell for cell in plan.cells if cell.step == "embed"]
    for key in dict.fromkeys(cell.model for cell in needed):
        named = plan.models[key]
        try:
            check_model(ModelSpec(named.name, named.pretrained, named.model_type, plan.loaded.allow_code))
        except KodaAuditError as error:
            yield Fault(("models", key), f"models.{key}: {error}")
    for data in dict.fromkeys(plan.on(cell) for cell in needed):
        try:
            check_dataset(data.name, data.root, data.split)
            custom_class_names(data.classname_file, data.name)
            custom_templates(data.template_file, data.name)
            if any(plan.on(cell) == data and cell.task in CHOOSING for cell in plan.cells):
                _check_classes(data)
        except KodaAuditError as error:
            key = data.key.partition("/")[0]  # of a collection
            yield Fault(("datasets", key), f"datasets.{data.key}, split {data.split}: {error}")


def _check_classes(data: DataName) -> None:
    """Raises InputError for a folder with a single class."""
    if data.name.startswith(FOLDER):
        base, classes = class_folders(data.name, Path(data.root), data.split)
        if len(classes) == 1:
            raise InputError(
                f"{base} has a single class, {classes[0].name}, and nothing is to be told apart: expected "
                "DIR/CLASS/NAME.jpg; where that folder holds the classes, make it the root"
            )


def device_faults(plan: Plan) -> Iterator[Fault]:
    """A device that this machine does not have."""
    try:
        choose_device(None if plan.suite.device == "auto" else plan.suite.device)
    except KodaAuditError as error:
        yield Fault(("device",), f"device: {error}")


def alignment_faults(plan: Plan) -> list[Fault]:
    """Values of parameters that the formulas of the alignments refuse, all of them."""
    found: dict[str, Fault] = {}
    for cell in plan.cells:
        if cell.step != "align":
            continue
        settings = {name: value for name, value in cell.options.items() if name not in AROUND}
        operator = cell.options["operator"]
        try:
            if "mode" in cell.options:
                named = plan.models[cell.model]
                tower_arguments(operator, ModelSpec(named.name, named.pretrained, named.model_type), settings)
            else:
                given = {"teacher": None} if "teacher" in cell.options else {}
                method_arguments(alignments().load(operator), {**settings, **given})
        except KodaAuditError as error:
            sentence = f"alignments.{cell.alignment}: {error}"
            found[sentence] = Fault(("alignments", str(cell.alignment)), sentence)
    return list(found.values())
