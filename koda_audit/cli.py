"""The ``koda-audit`` command. Everything heavy is imported by the sub-command that needs it."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import koda_audit
from koda_audit.document import printable
from koda_audit.errors import KodaAuditError, one_line_warnings, unknown
from koda_audit.terminal import steady_output

ALLOW_CODE = "allow code that comes with a model: py:module:function, or what its configuration names"


@dataclass(frozen=True)
class Command:
    """A sub-command: one line of help, its options, and what it does (the exit code comes back)."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 done, 1 a gate failed, 2 could not run. Wrong usage leaves by SystemExit(2), as argparse does.
    """
    with steady_output():
        return _run_command(list(sys.argv[1:] if argv is None else argv))


def _run_command(argv: list[str]) -> int:
    parser = _parser()
    at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    if at < len(argv) and argv[at] not in COMMANDS:
        parser.error(unknown("command", argv[at], COMMANDS))
    # what follows `eval` belongs to clip_benchmark's parser, --help and --version included
    rest = argv[at + 1 :] if argv[at : at + 1] == ["eval"] else []
    args = parser.parse_args(argv[: len(argv) - len(rest)])
    args.rest = rest
    if args.debug:
        os.environ["KODA_AUDIT_DEBUG"] = "1"  # clip_benchmark's main, extended, reads it
    if args.command is None:
        parser.print_help()
        return 0
    try:
        with one_line_warnings():
            return COMMANDS[args.command].run(args)
    except KodaAuditError as error:
        if os.environ.get("KODA_AUDIT_DEBUG") == "1":
            traceback.print_exc()
        lines = [printable(line) for line in str(error).splitlines()]  # of a suite, one a fault
        print("koda-audit: error: " + "\n".join(lines), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("koda-audit: interrupted; what is embedded stays in the store", file=sys.stderr)
        return 130
    except OSError as error:  # such as a name that is too long
        if os.environ.get("KODA_AUDIT_DEBUG") == "1":
            traceback.print_exc()
        about = "" if error.filename is None else f": {printable(str(error.filename))[:200]}"
        print(f"koda-audit: error: {printable(str(error.strerror or error))}{about}", file=sys.stderr)
        return 2
    except Exception:  # a fault of ours, and no gate that failed: 1 would say so
        traceback.print_exc()
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="koda-audit", description="What does this vision-language model see that the other does not?"
    )
    parser.add_argument("--version", action="version", version=f"koda_audit {koda_audit.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_options(commands.add_parser(name, help=command.help, description=command.help))
    return parser


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("reports/latest"), help="folder for the report; default: %(default)s"
    )
    parser.add_argument("--quiet", action="store_true", help="print the place of the report and nothing else")


def _demo(args: argparse.Namespace) -> int:
    from koda_audit.demo.run import main as demo

    return demo(args.output, args.quiet)


def _check_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_folder", metavar="RUN", type=Path, help="folder of an audit")
    add("--baseline", metavar="RUN", type=Path, help="folder of an accepted baseline, or of an earlier audit")
    add("--gates", metavar="FILE", type=Path, help="YAML or JSON, a suite too; default: the gates of the audit")
    for name, what in {"junit": "JUnit XML", "markdown": "a comment for a pull request", "json": "JSON"}.items():
        add(f"--{name}", metavar="FILE", type=Path, help=f"write the verdicts as {what}")


def _check(args: argparse.Namespace) -> int:
    from koda_audit.gates.check import check_command

    return check_command(args)


def _baseline_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accept", metavar="RUN", type=Path, required=True, help="folder of the audit to accept")
    parser.add_argument("--output", type=Path, default=Path("baseline"), help="its folder; default: %(default)s")


def _baseline(args: argparse.Namespace) -> int:
    from koda_audit.gates.check import baseline_command

    return baseline_command(args)


def _eval(args: argparse.Namespace) -> int:
    import clip_benchmark.cli as host

    from koda_audit.host.extension import extend

    extend(host)
    sys.argv = ["koda-audit", "eval", *args.rest]  # clip_benchmark reads it; the first word is the name in its usage
    host.main()
    return 0


def _align_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", help="of the method; `koda-audit list alignments` shows them")
    add("--model", required=True, help="as in clip_benchmark eval, or local-dir:FOLDER")
    add("--pretrained", default="", metavar="TAG", help="as in clip_benchmark eval; none with local-dir: and hf-hub:")
    add("--teacher", metavar="MODEL[,PRETRAINED]", help="of kuea: what its images should lie as; named as a model is")
    add(
        "--mode",
        choices=["feature", "tower"],
        default="feature",
        help="map finished embeddings, or train the towers (kuea, curriculum) and write a local-dir: folder, where an "
        "interrupted run goes on; default: %(default)s",
    )
    add(
        "--members",
        type=Path,
        nargs="+",
        metavar="FILE.csv",
        help="samples by the column id, as koda_discrepancy writes them to subsets/: half of each batch comes from "
        "them (kuea, curriculum; --set share=SHARE for another share)",
    )
    add("--dataset", required=True, help="with captions, or with one label an image; as in clip_benchmark eval")
    add("--dataset_root", default="root", metavar="DIR", help="default: %(default)s")
    add("--split", default="train", help="to fit on; default: %(default)s")
    add("--output", type=Path, required=True, metavar="FOLDER", help="for the alignment; one that is there is replaced")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PARAMETER=VALUE",
        help="of the method or its training; may be repeated",
    )
    add("--koda_fit_share", type=float, metavar="SHARE", help="fit on this share of the split, drawn with --seed")
    add("--koda_transductive", action="store_true", help="allow it to be judged on the samples that it was fitted on")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--batch_size", type=int, default=64, help="default: %(default)s")
    add("--num_workers", type=int, default=4, help="default: %(default)s")
    add("--language", default="en", help="default: %(default)s")
    add("--koda_dtype", choices=["fp32", "host"], default="fp32", help="precision of the embeddings; default: fp32")
    add("--koda_store", type=Path, metavar="DIR", help="where embeddings are kept between runs")
    add(
        "--koda_allow_code",
        "--allow-code",
        action="store_true",
        help=ALLOW_CODE,
    )
    for option in ("annotation_file", "custom_classname_file", "custom_template_file"):
        add(f"--{option}", default="" if option == "annotation_file" else None, help="as in clip_benchmark eval")
    add("--quiet", dest="verbose", action="store_false", help="print the table alone")
    parser.set_defaults(model_cache_dir=None, wds_cache_dir=None, distributed=False)


def _align(args: argparse.Namespace) -> int:
    from koda_audit.align_command import align

    align(args)
    return 0


def _suite_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", metavar="SUITE", type=Path, help="the suite's YAML file")
    parser.add_argument(
        "--store", metavar="DIR", type=Path, help="embeddings and finished cells; default: ~/.cache/koda_store"
    )
    parser.add_argument(
        "--allow-code",
        "--koda_allow_code",
        action="store_true",
        help=ALLOW_CODE,
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress: verdicts, what failed, and where the report lies"
    )


def _run_options(parser: argparse.ArgumentParser) -> None:
    _suite_options(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("reports/latest"), help="folder for the report; default: %(default)s"
    )
    parser.add_argument(
        "--baseline", metavar="RUN", type=Path, help="accepted baseline or earlier audit, for gates without against"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and its cost, and do nothing")


def _run(args: argparse.Namespace) -> int:
    from koda_audit.suite.command import run

    return run(args)


def _report(args: argparse.Namespace) -> int:
    from koda_audit.suite.command import run

    return run(args, compute=False)


def _validate_options(parser: argparse.ArgumentParser) -> None:
    _suite_options(parser)
    parser.add_argument("--static", action="store_true", help="schema and names only: no torch, no host, under 3 s")


def _validate(args: argparse.Namespace) -> int:
    from koda_audit.suite.command import validate

    return validate(args)


def _init_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("file", type=Path, nargs="?", help="the file to write; default: suite.yaml")
    what.add_argument("--demo", metavar="FOLDER", type=Path, help="write the demo's suite, with its models and data")


def _init(args: argparse.Namespace) -> int:
    from koda_audit.suite.command import init

    return init(args.file, args.demo)


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=["tasks", "alignments", "measures", "metrics"],
        nargs="?",
        default="tasks",
        help="what to list; default: tasks",
    )


def _list(args: argparse.Namespace) -> int:
    from koda_audit.metrics import METRICS
    from koda_audit.registry import alignments, measures, tasks

    if args.what == "metrics":
        for metric in METRICS.values():
            print(f"{metric.key}  ({metric.span})\n    {metric.meaning}")
        return 0
    registry: Any = {"tasks": tasks, "alignments": alignments, "measures": measures}[args.what]()
    word = {"tasks": "help", "alignments": "definition", "measures": "meaning"}[args.what]
    for name, listed in registry.usable():
        print(f"{name}  ({', '.join(registry.packages(name))})\n    {getattr(listed, word)}")
    for problem in registry.problems().values():
        print(f"koda-audit: warning: {problem}", file=sys.stderr)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from koda_audit.host.doctor import main as doctor

    return doctor()


def _no_options(parser: argparse.ArgumentParser) -> None:
    pass


COMMANDS = {
    "demo": Command("audit small models on this machine, offline, and write a report", _demo_options, _demo),
    "init": Command("write a commented suite to start from", _init_options, _init),
    "validate": Command("find everything that is wrong with a suite; print its plan", _validate_options, _validate),
    "run": Command("run a suite: embed and compute what is missing, write the report", _run_options, _run),
    "report": Command("write the report of what is finished of a suite, and compute nothing", _run_options, _report),
    "eval": Command("clip_benchmark eval with the tasks of koda_audit; takes all of its options", _no_options, _eval),
    "align": Command(
        "fit an alignment of images and texts, or train one into the towers, and save it", _align_options, _align
    ),
    "check": Command("judge the gates of an audit: 0 passed, 1 a gate failed, 2 an error", _check_options, _check),
    "baseline": Command("make an audit the baseline that later ones are checked against", _baseline_options, _baseline),
    "list": Command("what is registered, from here and from other packages", _list_options, _list),
    "doctor": Command("check the installation and say how to mend it", _no_options, _doctor),
}

if __name__ == "__main__":
    sys.exit(main())
