"""Output that cannot be shown or taken loses the words, and never the exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from gate_audits import hits, number, write_audit

from koda_audit.errors import KodaAuditWarning, one_line_warnings

ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
CODE = "import sys; from koda_audit.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """The words of a check by the exit code that it must have."""
    home = tmp_path_factory.mktemp("audits")
    gates = home / "gates.yaml"
    gates.write_text("gates:\n- {metric: acc1, model: new, dataset: cifar, min: 0.9}\n")
    found = {}
    for code, right in {0: 990, 1: 500}.items():
        folder = write_audit(home / f"é–{code}", number(hits=hits(right, 1000 - right)))
        found[code] = ["check", str(folder), "--gates", str(gates)]
    return found


def run(words: list[str], stdout: int | str = subprocess.PIPE, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", CODE, *words]
    if isinstance(stdout, str):
        command = ["sh", "-c", f'exec "$@" {stdout}', "sh", *command]
        stdout = subprocess.PIPE
    return subprocess.run(command, env={**ENVIRONMENT, **env}, stdout=stdout, stderr=subprocess.PIPE, check=False)


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize(
    ("stdout", "locale"),
    [
        ("", {"LC_ALL": "C"}),
        ("", {"PYTHONIOENCODING": "latin-1"}),
        ("", {"PYTHONIOENCODING": "ascii:strict"}),
        (">/dev/full", {}),
        (">&-", {}),
        (">&- 2>&-", {}),
    ],
)
def test_the_verdict_is_kept(code: int, stdout: str, locale: dict[str, str], audits: dict[int, list[str]]) -> None:
    done = run(audits[code], stdout, **locale)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_reader_that_has_gone_does_not_change_the_verdict(audits: dict[int, list[str]]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert run(audits[1], write).returncode == 1
        assert run(["list", "metrics"], write).returncode == 0
    finally:
        os.close(write)


@pytest.mark.parametrize(("code", "expected"), [(0, 2), (1, 1)])
def test_a_file_that_cannot_be_written_is_told_beside_the_verdict(
    code: int, expected: int, audits: dict[int, list[str]], tmp_path: Path
) -> None:
    lost, kept = tmp_path / "no folder" / "x", tmp_path / "kept.xml"
    lost.parent.write_text("a file")
    done = run([*audits[code], "--json", str(lost), "--junit", str(kept)])
    assert done.returncode == expected
    assert b"gate" in done.stdout
    assert b"koda-audit: error: cannot write" in done.stderr
    assert kept.read_text("utf-8").startswith("<?xml")


def test_what_cannot_be_encoded_is_spelled_out() -> None:
    code = "from koda_audit.terminal import steady_output\nwith steady_output():\n    print('a – b')\nprint('c')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert done.stdout == b"a \\u2013 b\nc\n"


def test_a_warning_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with one_line_warnings():
        warnings.simplefilter("always")
        warnings.warn("class '\x1b[41mred'\nis empty", KodaAuditWarning, stacklevel=1)
    assert capsys.readouterr().err == "koda_audit: warning: class ' [41mred' is empty\n"
