"""The commands ``init``, ``validate`` and ``run``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from koda_audit._files import write_text
from koda_audit.document import printable
from koda_audit.errors import InputError
from koda_audit.gates.outputs import terminal
from koda_audit.report.markdown import terminal_table
from koda_audit.suite.load import load_suite
from koda_audit.suite.plan import NOT_YET

if TYPE_CHECKING:
    from koda_audit.suite.run import Audit

STARTER = Path(__file__).with_name("starter.yaml")


def init(file: Path | None, demo: Path | None) -> int:
    """Write the starter suite, or the demo's with its models and data.

    Raises:
        InputError: the file exists.
    """
    target = demo / "suite.yaml" if demo is not None else file or Path("suite.yaml")
    for place in [target] if demo is None else [target, demo / "models", demo / "data"]:
        if place.exists() or place.is_symlink():
            raise InputError(f"{place} exists: name another place, or remove it")
    if demo is None:
        write_text(target, STARTER.read_text("utf-8"))
        print(f"{target} is written: set models and datasets in it, then `koda-audit validate {target}`")
        return 0
    from koda_audit.demo.export import write_demo

    write_demo(demo)
    print(f"{target} is written, with its models and data: `koda-audit run {target}` needs no network")
    return 0


def validate(args: Namespace) -> int:
    """Print the plan with its cost, or raise all faults at once.

    Raises:
        SuiteError: one line a fault.
    """
    loaded = load_suite(args.suite, args.allow_code)
    if args.static:
        from koda_audit.suite.gated import checked_plan

        checked_plan(loaded, Path("none"))  # of finished cells, at which it does not look
        for fault in loaded.missing:
            print(f"note: {printable(fault.sentence)}")
        print(f"{args.suite}: schema and names are right")
        return 0
    from koda_audit.suite.cost import described
    from koda_audit.suite.host import alignment_faults, device_faults, host_faults
    from koda_audit.suite.run import planned

    plan = planned(loaded, args.store)
    faults = [*host_faults(plan), *device_faults(plan), *alignment_faults(plan)]
    loaded.refuse(faults, others=[fault.sentence for fault in loaded.missing])
    print(described(plan, args.quiet))
    return 0


def run(args: Namespace, compute: bool = True) -> int:
    """Run a suite, or only report what is finished, and print the verdicts; the exit code is the audit's."""
    from koda_audit.suite.run import planned, run_suite

    if args.dry_run:
        from koda_audit.suite.cost import described

        print(described(planned(load_suite(args.suite, args.allow_code), args.store), args.quiet))
        return 0

    audit = run_suite(
        args.suite,
        args.output,
        store=args.store,
        baseline=args.baseline,
        allow_code=args.allow_code,
        quiet=args.quiet,
        say=teller(args.quiet),
        compute=compute,
    )
    tell(audit, args.quiet)
    return audit.exit_code


def teller(quiet: bool) -> Callable[[str], None]:
    """Prints what ``run_suite`` says: errors and warnings, and all else unless quiet."""

    def say(line: str) -> None:
        if line.startswith(("error", "warning")):
            print(f"koda-audit: {printable(line)}", file=sys.stderr)
        elif not quiet:
            print(printable(line), flush=True)

    return say


def tell(audit: Audit, quiet: bool) -> None:
    """Print the verdicts, what failed and where the report lies; unless quiet, the strongest groups before them."""
    if not quiet and audit.strongest is not None:
        print(f"\n{terminal_table(audit.strongest)}\n")
    if audit.verdicts:
        print(terminal(audit.verdicts))
    failed = [name for name, error in audit.failures.items() if not error.endswith(NOT_YET)]
    if failed:
        print(f"koda-audit: {len(failed)} failed: {printable(', '.join(failed))}", file=sys.stderr)
    if waiting := len(audit.failures) - len(failed):
        print(f"koda-audit: {waiting} steps are {NOT_YET}", file=sys.stderr)
    if audit.unwritten is not None:
        print(f"koda-audit: error: {printable(audit.unwritten)}", file=sys.stderr)
        return
    print(f"Report: {printable(str(audit.folder / 'report.md'))} and report.html")
