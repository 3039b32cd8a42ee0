"""What ``clip_benchmark eval`` gains: our tasks as choices, the options they share, and each one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from koda_audit._files import cache_folder
from koda_audit.errors import InputError, PluginError, unknown
from koda_audit.host_tasks.protocol import Task
from koda_audit.registry import Registry

SHARED = "koda_audit"
OURS = "koda_tasks"  # on the parsed arguments: the tasks that koda_audit's runner serves
ALIGNED = (
    "options shared by the tasks koda_aligned_…; --model_type koda_aligned --model FOLDER --pretrained "
    "MODEL,PRETRAINED|local-dir:FOLDER loads a saved alignment behind its model, for any task"
)


def default_store() -> Path:
    """``koda_store`` in the user's cache folder (XDG_CACHE_HOME where it is set)."""
    return cache_folder().with_name("koda_store")


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
        default="batch",
        help="batch (default): embed both models a second time, in other batches, and measure what they show against "
        "themselves; none: leave that out",
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
    """First on a copy of the parser, so that a task whose options clash leaves no half of them behind."""
    trial = argparse.ArgumentParser(parents=[runner], add_help=False)
    taken = {action.dest for action in trial._actions}
    group = trial.add_argument_group(title)
    task.add_options(group)
    for action in group._group_actions:
        named = "/".join(action.option_strings) or action.dest
        if not action.option_strings or action.required:
            raise InputError(f"its {named} is required, which would break every other task; make it an option")
        if action.dest in taken:
            raise InputError(f"its {named} writes to '{action.dest}', which another option uses")
    task.add_options(runner.add_argument_group(title, task.help))
