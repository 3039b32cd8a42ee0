"""What every attack here does: it plants a payload, runs the product as a user would, and looks at what happened.

An attack succeeds where its payload ran. It also has to be refused with one sentence and exit code 2: a command that
fails in some other way has not noticed it.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' own makers of models and data

from conftest import write_tiny_clip, write_webdataset

from koda_audit import cli

__all__ = ["PAYLOAD", "attacked", "command", "host", "suite", "write_tiny_clip", "write_webdataset"]

PAYLOAD = "ran"  # a file in the working folder, which is a new one for each attack


def command(words: Sequence[object], sentence: str) -> list[str]:
    """Run ``koda-audit``; what is wrong with the outcome."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    shown = " ".join(map(str, words))
    faults = [] if code == 2 else [f"{shown}: exit code {code}"]
    return faults + ([] if sentence in said.getvalue() else [f"{shown}: said {said.getvalue()[-600:]!r}"])


def host(task: str, model: Sequence[object], data: Sequence[object], sentence: str) -> list[str]:
    """Run a task of clip_benchmark's own command."""
    words = ["eval", "--task", task, *model, "--dataset", "wds/w", "--output", "out.json", "--no_amp"]
    return command([*words, "--dataset_root", *data], sentence)


def suite(model: str, data: str, *words: str, sentence: str, extra: str = "") -> list[str]:
    """Run a suite of one model on one dataset."""
    Path("suite.yaml").write_text(
        f"suite: s\nmodels:\n  m: {{{model}}}\ndatasets:\n  d: {{{data}}}\ngap: {{}}\n{extra}", "utf-8"
    )
    return command(["run", "suite.yaml", "--store", "store", "--output", "report", *words], sentence)


def attacked(faults: Sequence[str]) -> None:
    """Report, and exit with 1 where the attack came through or was not noticed."""
    ran = [f"the payload ran: {path}" for path in Path().glob(f"**/{PAYLOAD}*")]
    print("\n".join([*ran, *faults]) or "refused")
    sys.exit(bool(ran or faults))
