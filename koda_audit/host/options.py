"""What ``clip_benchmark eval`` gains: our tasks as choices, the options they share, and each one's own."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from koda_audit._files import default_store
from koda_audit.errors import InputError, PluginError, unknown
from koda_audit.registry import Registry
from koda_audit.settings import made
from koda_audit.tasks.protocol import Task

SHARED = "koda_audit"
OURS = "koda_tasks"  # on the parsed arguments: the tasks that koda_audit's runner serves
# settings that several tasks have -> the one option for all of them: ours, or the host's own
SHARED_SETTINGS = {"floor": "koda_floor", "recall_at": "recall_k"}
ALIGNED = (
    "options shared by the tasks koda_aligned_…; --model_type koda_aligned --model FOLDER --pretrained "
    "MODEL,PRETRAINED|local-dir:FOLDER loads a saved alignment behind its model, for any task"
)


def extend_parser(parser: argparse.ArgumentParser, registry: Registry[Task]) -> list[str]:
    """Add the registered tasks to the ``eval`` sub-parser of the host's parser.

    A task that cannot be added is left out; all others go on.

    Returns:
        One sentence for each task left out.

    Raises:
        PluginError: the parser is not the one we know.
    """
    runner = _eval_parser(parser)
    choice = runner._option_string_actions.get("--task")
    if choice is None or choice.choices is None:
        raise PluginError("clip_benchmark eval has no --task with choices")
    host = [str(name) for name in choice.choices]
    _shared_options(runner.add_argument_group(SHARED, "options shared by the tasks that koda_audit runs"))
    _alignment_options(runner.add_argument_group("alignment", ALIGNED))
    added: list[str] = []
    problems: dict[str, str] = dict(registry.problems())
    for name, task in registry.usable():
        package = registry.packages(name)[0]
        try:
            if name in host:
                raise PluginError("clip_benchmark has a task of that name")
            _add_options(runner, task, f"{name} ({package})")
        except Exception as error:  # a plugin's own code; one that fails must not stop the others
            problems[name] = f"task '{name}' of {package} is left out: {error}"
            continue
        added.append(name)

    def task_name(text: str) -> str:
        if text in problems and text not in host:
            raise argparse.ArgumentTypeError(problems[text])
        if text not in names:
            raise argparse.ArgumentTypeError(unknown("task", text, names))
        return text

    names = [*host, *added]
    choice.choices = names
    choice.type = task_name
    runner.set_defaults(**{OURS: tuple(added)})
    return list(problems.values())


def _eval_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and "eval" in action.choices:
            found: argparse.ArgumentParser = action.choices["eval"]
            return found
    raise PluginError("clip_benchmark has no sub-command eval")


def _shared_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--koda_reference",
        metavar="MODEL[,PRETRAINED]",
        help="the model that every listed model is compared with, in both directions; default: the first one listed",
    )
    group.add_argument(
        "--koda_dtype",
        choices=["fp32", "host"],
        default="fp32",
        help="fp32 (default): embed in float32 whatever --no_amp says; host: mixed precision as the host would",
    )
    group.add_argument(
        "--koda_floor",
        choices=["batch", "none"],
        help="batch: embed both models a second time, in other batches, and measure what they show against themselves; "
        "none: leave that out; default: batch for koda_discrepancy, none for koda_similarity",
    )
    group.add_argument(
        "--koda_store",
        metavar="DIR",
        type=Path,
        default=default_store(),
        help="where embeddings are kept between runs; default: %(default)s",
    )
    group.add_argument(
        "--koda_allow_code",
        action="store_true",
        help="allow code that comes with a model: --model py:module:function, or what its configuration names",
    )


def _alignment_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--koda_alignment",
        metavar="NAME[:PARAMETER=VALUE,...]|FOLDER",
        help="a method of `koda-audit list alignments`, such as mg_shift:lam=0.25, or what `koda-audit align` saved",
    )
    group.add_argument(
        "--koda_fit_split",
        metavar="SPLIT",
        help="fit on this split of the dataset, such as train, and evaluate --split",
    )
    group.add_argument(
        "--koda_fit_share",
        metavar="SHARE",
        type=float,
        help="fit on this share of the samples, such as 0.5, drawn with --seed, and evaluate the others",
    )
    group.add_argument(
        "--koda_transductive",
        action="store_true",
        help="allow samples of the fit to be evaluated; without --koda_fit_split it is fitted on the evaluated ones",
    )


def _add_options(runner: argparse.ArgumentParser, task: Task, title: str) -> None:
    """One for each setting of a task; those that several tasks have are there already."""
    taken = {action.dest for action in runner._actions}
    own = {name: field for name, field in task.Settings.model_fields.items() if name not in SHARED_SETTINGS}
    for name, field in own.items():
        if f"{task.prefix}_{name}" in taken:
            raise InputError(f"its setting {name} writes to '{task.prefix}_{name}', which another option uses")
        if field.is_required():
            raise InputError(f"its setting {name} is required, which would break every other task: give it a default")
    group = runner.add_argument_group(title, task.help)
    for name, field in own.items():
        _add_option(group, task.prefix, name, field)


def _add_option(group: argparse._ArgumentGroup, prefix: str, name: str, field: FieldInfo) -> None:
    default, said = field.get_default(call_default_factory=True), (field.description or name).replace("%", "%%")
    kinds = _kinds(field.annotation)
    if bool in kinds:
        dest = f"{prefix}_{name}"
        ends = {f"--{dest}": ("store_true", said), f"--{prefix}_no_{name}": ("store_false", f"leave out: {said}")}
        for option, (action, text) in ends.items():
            mark = "; the default" if (action == "store_true") == default else ""
            group.add_argument(option, dest=dest, action=action, default=default, help=text + mark)
        return
    several = [kind for kind in kinds if get_origin(kind) is list]
    inner = [part for kind in kinds for part in (_kinds(get_args(kind)[0]) if kind in several else [kind])]
    choices = [choice for kind in inner if get_origin(kind) is Literal for choice in get_args(kind)]
    shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
    group.add_argument(
        f"--{prefix}_{name}",
        metavar="|".join(choices) or name.upper(),
        nargs="+" if several else None,
        type=str if choices or str in inner else _number,
        default=default,
        help=said if default is None else f"{said}; default: {shown}",
    )


def _kinds(annotation: Any) -> list[Any]:
    """The types that a setting may have, without what is asked of them besides."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]


def _number(text: str) -> Any:
    """A number, or the text itself, which the settings then refuse in one sentence.

    >>> _number("3"), _number("0.5"), _number("many")
    (3, 0.5, 'many')
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def settings_of(task: Task, args: argparse.Namespace) -> Any:
    """The settings that the options of a run make.

    Raises:
        InputError: one that is none; the message has the option's name.
    """
    options = {name: SHARED_SETTINGS.get(name, f"{task.prefix}_{name}") for name in task.Settings.model_fields}
    values = {name: value for name, option in options.items() if (value := getattr(args, option)) is not None}
    return made(task.Settings, values, lambda name: f"--{options.get(name, name)}")
