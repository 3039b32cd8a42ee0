"""Gates of a finished audit against a baseline, and the accepting of a baseline. No torch, no models."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koda_audit._files import (
    atomic_write,
    check_writable,
    file_sha256,
    json_text,
    reason,
    remove_abandoned,
    replace_folder,
    utf8,
    write_json,
)
from koda_audit._options import several
from koda_audit.document import printable
from koda_audit.errors import InputError, StoreError
from koda_audit.gates.gate import Gate, gate_of, read_gates
from koda_audit.gates.judge import judge
from koda_audit.gates.outputs import junit, markdown, terminal
from koda_audit.gates.run import ACCEPTED, OUTCOMES, RESULTS, Run
from koda_audit.gates.verdict import Verdict, exit_code
from koda_audit.outcomes import INDEX, load_outcomes
from koda_audit.protocols import FILE as PROTOCOLS

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = "verdicts.json"  # of the gates that an audit was run with
KEPT = (RESULTS, PROTOCOLS, "environment.json")


@dataclass(frozen=True)
class Check:
    """``exit_code``: 2 with any ERROR, else 1 with any FAIL, else 0."""

    verdicts: tuple[Verdict, ...]

    @property
    def exit_code(self) -> int:
        return exit_code(self.verdicts)

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    @property
    def frame(self) -> pd.DataFrame:
        """A row a gate: its fields and those of its verdict."""
        import pandas as pd

        return pd.DataFrame([verdict.record() for verdict in self.verdicts])


def check(
    run: str | Path,
    baseline: str | Path | None = None,
    gates: str | Path | Sequence[Gate | Mapping[str, Any]] | None = None,
) -> Check:
    """Judge the gates of an audit.

    Args:
        run: the folder of the audit.
        baseline: the folder of an earlier audit, or of an accepted baseline.
        gates: a YAML or JSON file, or gates, as mappings too; default: those that the audit was run with.

    Raises:
        InputError: a folder or file that holds no audit or no gates.
        StoreError: the baseline was changed after it was accepted.
    """
    folder = Path(run)
    ours = Run.read(folder)
    theirs = None if baseline is None else Run.read(Path(baseline))
    if gates is None:
        asked = _gates_of(folder)
    elif isinstance(gates, (str, Path)):
        asked = read_gates(Path(gates))
    else:
        asked = [each if isinstance(each, Gate) else gate_of(each) for each in several(gates, "gates")]
        if not asked:
            raise InputError("gates is empty: give one or more, or leave it out for those of the audit")
    return Check(tuple(judge(asked, ours, theirs)))


def accept(run: str | Path, output: str | Path) -> int:
    """Make an audit the baseline: its table, its outcomes and its environment, whole or not at all.

    Returns:
        How many numbers it has.

    Raises:
        InputError: no audit, one without numbers, or an output that is no baseline.
        StoreError: the outcomes are damaged, or the output cannot be written.
    """
    folder, target = Path(run), Path(output)
    count = sum(row["status"] == "ok" for row in Run.read(folder).rows)
    if not count:
        raise InputError(f"{folder} has no numbers to accept")
    load_outcomes(folder / OUTCOMES)
    _check_replaceable(target)
    check_writable(target.parent, "the folder of --output")
    remove_abandoned(target)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, work / name)
        if (folder / OUTCOMES).is_dir():
            files = json.loads((folder / OUTCOMES / INDEX).read_text("utf-8"))["datasets"].values()
            (work / OUTCOMES).mkdir()
            for name in (INDEX, *(known["file"] for known in files)):
                shutil.copyfile(folder / OUTCOMES / name, work / OUTCOMES / name)
        written = {path.relative_to(work).as_posix(): file_sha256(path) for path in work.rglob("*") if path.is_file()}
        write_json(work / ACCEPTED, {"numbers": count, "sha256": written})
        replace_folder(work, target)
    except OSError as error:
        raise StoreError(f"cannot write the baseline {target}: {reason(error)}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return int(count)


def _check_replaceable(target: Path) -> None:
    """Refuse a folder that holds anything but an earlier baseline."""
    if target.is_symlink() or (target.exists() and not (target / ACCEPTED).is_file()):
        raise InputError(f"{target} exists and is no baseline: choose another folder")
    if not target.exists():
        return
    try:
        ours = {ACCEPTED, *json.loads((target / ACCEPTED).read_text("utf-8"))["sha256"]}
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{target / ACCEPTED} is damaged: remove {target}, or choose another folder") from error
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink() or path.is_file()}
    foreign = sorted(found - ours)
    if foreign:
        raise InputError(f"{target} holds '{foreign[0]}', which no baseline has: choose another folder")


def check_command(args: Namespace) -> int:
    """Print the verdicts, write them where asked, and give their exit code, or 2 for a lost file."""
    found = check(args.run_folder, args.baseline, args.gates)
    print(terminal(found.verdicts))
    wanted: tuple[tuple[Path | None, Callable[[], bytes]], ...] = (
        (args.json, lambda: utf8(json_text([verdict.record() for verdict in found.verdicts]))),
        (args.markdown, lambda: utf8(markdown(found.verdicts))),
        (args.junit, lambda: junit(found.verdicts)),
    )
    lost = 0
    for file, content in wanted:
        try:
            if file is not None:
                with atomic_write(file) as stream:
                    stream.write(content())
        except StoreError as error:  # such as a full disk: the other files, and the verdict, are not lost with it
            print(f"koda-audit: error: {printable(str(error))}", file=sys.stderr)
            lost = 2
    return found.exit_code or lost


def baseline_command(args: Namespace) -> int:
    """Accept a baseline and say where it lies."""
    failed = [row for row in _verdicts_of(args.accept) if row.get("verdict") in ("FAIL", "ERROR")]
    count = accept(args.accept, args.output)
    print(f"{args.output} is the baseline now: {count} numbers of {args.accept}. Commit it, and check against it")
    if failed:
        print(
            f"note: {len(failed)} of its own gates came to {' and '.join(sorted({row['verdict'] for row in failed}))}"
        )
    return 0


def _gates_of(folder: Path) -> list[Gate]:
    """The gates that an audit was run with."""
    rows = _verdicts_of(folder)
    if not rows:
        raise InputError(f"{folder} was run without gates: name a file of them with --gates")
    return [verdict.gate for verdict in verdicts_of(folder)]


def verdicts_of(folder: Path) -> tuple[Verdict, ...]:
    """What the gates of an audit came to when it was run.

    Raises:
        InputError: the file of verdicts is damaged.
    """
    asked = [field.name for field in fields(Gate)]
    came = [field.name for field in fields(Verdict)][1:]
    try:
        return tuple(
            Verdict(
                gate_of({name: row[name] for name in asked if row.get(name) is not None}),
                *(row.get(name) for name in came),  # type: ignore[arg-type]  # as ``record`` wrote them
            )
            for row in _verdicts_of(folder)
        )
    except (LookupError, TypeError, InputError) as error:
        raise InputError(f"{folder / VERDICTS} is damaged: {error}") from error


def _verdicts_of(folder: Path) -> list[dict[str, Any]]:
    """What an audit has written of its gates; nothing where it was run without."""
    path = folder / VERDICTS
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text("utf-8"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("expected a list of verdicts")
        return rows
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
