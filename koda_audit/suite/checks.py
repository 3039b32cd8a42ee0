"""What a suite's names must fulfil, checked without torch and without the host."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from koda_audit._yaml import Place, shown
from koda_audit.data.address import check_address
from koda_audit.errors import InputError, unknown
from koda_audit.metrics import EVALUATED, METRICS, P_VALUE, listed
from koda_audit.registry import alignments
from koda_audit.suite.asked import asked, measured
from koda_audit.suite.names import LOCAL, OPERATORS, PYTHON, TOWERS, DataName, calibration, data_names, model_name
from koda_audit.suite.schema import Alignment, Suite
from koda_audit.tasks.benchmarks import BENCHMARKS
from koda_audit.user_code import check_permission

WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")  # ends of names that are no tags


@dataclass(frozen=True)
class Fault:
    """``absent``: a model or dataset that is not there, which fails alone; anything else stops the suite."""

    place: Place
    sentence: str
    absent: bool = False


def faults_of(suite: Suite, base: Path, allow_code: bool) -> list[Fault]:
    """All of them."""
    data: dict[str, list[DataName]] = {}
    found = [*_models(suite, base, allow_code), *_data(suite, base, data)]
    found += [*_classes(suite), *_tasks(suite), *_alignments(suite, data), *_benchmark(suite, data)]
    return [*found, *_gates(suite, data), *_published(suite, data)]


def _models(suite: Suite, base: Path, allow_code: bool) -> Iterator[Fault]:
    seen: dict[tuple[str, str], str] = {}
    for key, model in suite.models.items():
        place = ("models", key, "model")
        try:
            named = model_name(key, model, base)
        except InputError as error:
            yield Fault(place, f"models.{key}: {error}")
            continue
        try:
            check_permission(allow_code, model.model, model.pretrained, model.model_type)
        except InputError as error:
            yield Fault(place, f"models.{key}: {error}")
        if named.name.startswith(PYTHON):
            if named.name.count(":") < 2:
                yield Fault(place, f"models.{key}: expected py:module:function, found '{model.model}'")
        elif "," in model.model and not model.model.startswith(LOCAL):
            yield Fault(
                place, f"models.{key}: write the tag after the comma as pretrained: {model.model.split(',')[1]}"
            )
        folder = named.folder
        if folder is not None and not (folder / "open_clip_config.json").is_file():
            what = "holds no open_clip_config.json" if folder.is_dir() else "does not exist"
            yield Fault(place, f"models.{key}: the folder {folder} {what}", absent=True)
        checkpoint = named.pretrained
        if checkpoint.endswith(WEIGHTS) and "://" not in checkpoint and not Path(checkpoint).is_file():
            at, own = ("models", key, "pretrained"), named.name.startswith(PYTHON)
            hope = ", unless your loader finds it elsewhere" if own else ""
            yield Fault(at, f"models.{key}.pretrained: there is no file {base / checkpoint}{hope}", absent=True)
        same = (named.name, "" if folder else named.pretrained)
        if same in seen:
            yield Fault(place, f"models.{key} is models.{seen[same]} under another name: remove one")
        seen.setdefault(same, key)


def _data(suite: Suite, base: Path, found: dict[str, list[DataName]]) -> Iterator[Fault]:
    for key, data in suite.datasets.items():
        try:
            found[key] = list(data_names(key, data, base, suite.language))
        except InputError as error:
            yield Fault(("datasets", key), f"datasets.{key}: {error}")
            continue
        for field in ("annotation_file", "classname_file", "template_file"):
            path = getattr(found[key][0], field)
            if path and not Path(path).is_file():
                yield Fault(("datasets", key, field), f"datasets.{key}.{field}: there is no file {path}")
        for one in found[key]:
            try:
                if one.remote:
                    check_address(one.root)
            except InputError as error:
                yield Fault(("datasets", key, "root"), f"datasets.{key}.root: {error}")
            if one.base is not None and not one.base.is_dir():
                yield Fault(("datasets", key), f"datasets.{key}: there is no folder {one.base}", absent=True)


def _tasks(suite: Suite) -> Iterator[Fault]:
    """Names in the sections of tasks but for the benchmark's."""
    for one in asked(suite):
        if one.place[0] == "benchmark" or one.place == ("gap", "robustness"):
            continue  # they have their own check, and that of the gap
        yield from _known((*one.place, "on"), one.on, suite.datasets, "dataset")
        section = suite.gap if one.place == ("gap",) else None
        named = section.alignments if section is not None else suite.tasks.get(one.task.name, {}).get("alignments")
        yield from _known((*one.place, "alignments"), named or (), ["none", *suite.alignments], "alignment")
        if one.needs.models == 1:
            continue
        if one.pairs == "all":
            if len(suite.models) < 2:
                said = f"{shown(one.place)} compares two models: name another one under models"
                yield Fault(one.place, said)
            continue
        for number, pair in enumerate(one.pairs):
            yield from _known((*one.place, "pairs", number), pair, suite.models, "model")
            if pair[0] == pair[1]:
                at = (*one.place, "pairs", number)
                yield Fault(at, f"{shown(at)} compares '{pair[0]}' with itself")


def _alignments(suite: Suite, data: dict[str, list[DataName]]) -> Iterator[Fault]:
    used = [one.alignments for one in asked(suite)]
    for key, alignment in suite.alignments.items():
        place = ("alignments", key)
        if key in ("none", "all"):
            yield Fault(place, f"alignments.{key}: this name has a meaning of its own, choose another")
        if alignment.operator not in alignments().names():
            yield Fault((*place, "operator"), unknown("operator", alignment.operator, alignments().names()))
        elif alignment.operator in OPERATORS:
            yield from _operator(suite, key, alignment)
        if not any(names == "all" or key in names for names in used):
            yield Fault(place, f"alignments.{key} is used nowhere: name it in benchmark or gap, or remove it")
        if alignment.fit_on is not None:
            yield from _calibration(suite, data, key, alignment)


def _operator(suite: Suite, key: str, alignment: Alignment) -> Iterator[Fault]:
    fitted_on, parameters = OPERATORS[alignment.operator]
    place = ("alignments", key)
    if alignment.mode == "tower":
        parameters = TOWERS.get(alignment.operator, parameters)
        yield from _towers(suite, key, alignment)
    for name in alignment.parameters:
        if name not in parameters:
            known = ("operator", "fit_on", "mode", "transductive", "gallery", *parameters)
            yield Fault((*place, name), unknown(f"parameter of {alignment.operator}", name, known))
    if "teacher" in parameters:
        teacher = alignment.parameters.get("teacher")
        if teacher is None:
            yield Fault(place, f"alignments.{key}: {alignment.operator} needs a teacher: name one of the models")
        else:
            yield from _known((*place, "teacher"), [str(teacher)], suite.models, "model")
    if fitted_on in ("images", "rows", "pairs") and alignment.fit_on is None:
        yield Fault(place, f"alignments.{key}: {alignment.operator} is fitted: say on what, as fit_on: DATASET:train")
    if fitted_on == "gallery" and alignment.fit_on is not None:
        why = "is made from the rows that are evaluated: leave fit_on out"
        yield Fault((*place, "fit_on"), f"alignments.{key}: {alignment.operator} {why}")
    if fitted_on != "gallery" and alignment.gallery is not None:
        yield Fault((*place, "gallery"), f"alignments.{key}: {alignment.operator} has no gallery: leave it out")


def _towers(suite: Suite, key: str, alignment: Alignment) -> Iterator[Fault]:
    place = ("alignments", key, "mode")
    if alignment.operator not in TOWERS:
        yield Fault(place, f"alignments.{key}: {alignment.operator} trains no towers: leave mode out")
    for name, model in suite.models.items():
        foreign = model.model.startswith(PYTHON) or model.model_type != "open_clip"
        if foreign and name != alignment.parameters.get("teacher"):
            yield Fault(place, f"alignments.{key}: towers are trained of open_clip models, and models.{name} is none")


def _calibration(suite: Suite, data: dict[str, list[DataName]], key: str, alignment: Alignment) -> Iterator[Fault]:
    assert alignment.fit_on is not None
    dataset, split = calibration(alignment.fit_on)
    place = ("alignments", key, "fit_on")
    if dataset not in suite.datasets:
        yield Fault(place, unknown("dataset", dataset, suite.datasets))
    elif len(data.get(dataset, ())) > 1:
        yield Fault(place, f"alignments.{key}: {dataset} is a collection: fit on one dataset")
    elif split in (None, suite.datasets[dataset].split) and not alignment.transductive:
        why = f"its split {suite.datasets[dataset].split} is what is evaluated"
        train = suite.datasets[dataset].train_split
        yield Fault(place, f"alignments.{key}: {why}: fit on {dataset}:{train}, or say transductive: true")


def _benchmark(suite: Suite, data: dict[str, list[DataName]]) -> Iterator[Fault]:
    part = suite.benchmark
    if part is None:
        return
    yield from _known(("benchmark", "on"), part.on, suite.datasets, "dataset")
    yield from _known(("benchmark", "alignments"), part.alignments, ["none", *suite.alignments], "alignment")
    on = {key: given for key, given in suite.datasets.items() if part.on == "all" or key in part.on}
    for key, given in on.items():
        for number, task in enumerate(given.only or ()):
            if task not in part.tasks:
                place = ("datasets", key, "only", number)
                yield Fault(place, f"datasets.{key}.only: {unknown('task of the benchmark', task, part.tasks)}")
        if "linear_probe" in (part.tasks if given.only is None else given.only) and given.train_split == given.split:
            at = ("datasets", key, "train_split")
            said = f"linear_probe would be trained on {given.split}, which it is judged on: name another split"
            yield Fault(at, f"{shown(at)}: {said}, or leave the task out with only")
    for number, task in enumerate(part.tasks):
        needed = BENCHMARKS[task].needs.kind
        kinds = {
            kind
            for key, given in on.items()
            if given.only is None or task in given.only
            for kind in ([one.kind for one in data[key]] if key in data else [None])  # else it has a fault of its own
        }
        if needed is not None and kinds and not kinds & {needed, None}:
            yield Fault(
                ("benchmark", "tasks", number), f"{task} needs {needed}, and no dataset of the benchmark has them"
            )
    if len(set(part.tasks)) < len(part.tasks):
        yield Fault(("benchmark", "tasks"), "benchmark.tasks: a task is listed twice")


def _classes(suite: Suite) -> Iterator[Fault]:
    for key, data in suite.datasets.items():
        others = [name for name, other in suite.datasets.items() if name != key and other.task != "zeroshot_retrieval"]
        if data.classes_of is not None and data.classes_of not in others:
            where = ("datasets", key, "classes_of")
            yield Fault(where, f"{shown(where)}: {unknown('dataset with classes', data.classes_of, others)}")


def _gates(suite: Suite, data: dict[str, list[DataName]]) -> Iterator[Fault]:
    keys, known = _keys(suite, data), measured(suite)
    for number, gate in enumerate(suite.gates):
        place = ("gates", number)
        yield from _measured((*place, "metric"), gate.metric, known)
        if gate.metric in known and (why := _unjudged(suite, gate.metric)):
            at = (*place, "metric")
            yield Fault(at, f"{shown(at)}: no gate can be judged by {gate.metric}: {why}")
        yield from _known((*place, "model"), [gate.model], suite.models, "model")
        yield from _known((*place, "dataset"), [gate.dataset], keys, "dataset")
        if gate.against is not None:
            yield from _known((*place, "against"), [gate.against], suite.models, "model")
        if gate.alignment is not None:
            yield from _known((*place, "alignment"), [gate.alignment], ["none", *suite.alignments], "alignment")


def _unjudged(suite: Suite, metric: str) -> str | None:
    """Why a metric that is measured has no interval."""
    known = listed(metric)
    if metric.endswith(P_VALUE):
        return "it is a p-value; ask for the similarity itself"
    if known is not None and known.bare:
        instead = "; koda_findings is a count that can" if metric.startswith("koda_") else ""
        return f"it has no interval{instead}"
    if metric == "gap_centroid_gap_sq_unbiased":
        return f"images and texts of a suite are paired: take {metric}_paired"
    if metric.startswith("gap_") and metric not in EVALUATED["side_effects"] and suite.gap and not suite.gap.interval:
        return "gap.interval is false: say true"
    if metric.startswith("sim_") and suite.similarity and not suite.similarity.interval:
        return "similarity.interval is false: say true"
    return None


def _published(suite: Suite, data: dict[str, list[DataName]]) -> Iterator[Fault]:
    known = measured(suite)
    for number, figure in enumerate(suite.published):
        place = ("published", number)
        yield from _measured((*place, "metric"), figure.metric, known)
        yield from _known((*place, "model"), [figure.model], suite.models, "model")
        yield from _known((*place, "dataset"), [figure.dataset], _keys(suite, data), "dataset")


def _measured(place: Place, metric: str, known: Collection[str]) -> Iterator[Fault]:
    if metric not in known:
        sentence = unknown("metric", metric, known or METRICS)
        if listed(metric) is not None:
            sentence = f"nothing in this suite measures '{metric}'"
        yield Fault(place, f"{shown(place)}: {sentence}")


def _keys(suite: Suite, data: dict[str, list[DataName]]) -> list[str]:
    """Names of datasets in results, those of a collection one by one."""
    return [name for key in suite.datasets for name in ([one.key for one in data[key]] if key in data else [key])]


def _known(place: Place, given: str | Iterable[str], known: Iterable[str], kind: str) -> Iterator[Fault]:
    if given == "all":
        return
    seen: set[str] = set()
    for number, name in enumerate(given):
        at = (*place, number)
        if name not in known:
            yield Fault(at, f"{shown(place)}: {unknown(kind, name, known)}")
        elif name in seen:
            yield Fault(at, f"{shown(place)}: '{name}' is listed twice")
        seen.add(name)
