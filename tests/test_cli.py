"""The command, mostly as a real process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import koda_audit
from koda_audit import cli
from koda_audit._files import remove_abandoned, write_text
from koda_audit.errors import InputError
from koda_audit.host import doctor

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tests" / "plugin_sample"


def command(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    line = [sys.executable, "-W", "error", "-m", "koda_audit.cli", *words]
    return subprocess.run(line, env=full, capture_output=True, text=True, timeout=120)


def test_help_names_every_command_and_version_is_the_packages():
    done = command("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert command("--version").stdout == f"koda_audit {koda_audit.__version__}\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from koda_audit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'clip_benchmark', 'open_clip', 'importlib.metadata'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KODA_AUDIT_AUTOLOAD": "0"}
    # -I -S would hide PYTHONPATH; -S alone keeps other packages' .pth files from importing things
    subprocess.run([sys.executable, "-S", "-c", code], env=env, check=True, capture_output=True, timeout=60)


def test_no_command_prints_the_help(capsys):
    assert cli.main([]) == 0
    assert "COMMAND" in capsys.readouterr().out


def test_unknown_command_lists_near_matches(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["dcotor"])
    assert left.value.code == 2
    assert "unknown command 'dcotor': did you mean 'doctor'" in capsys.readouterr().err


def replace(monkeypatch, name, run):
    old = cli.COMMANDS[name]
    monkeypatch.setitem(cli.COMMANDS, name, cli.Command(old.help, old.add_options, run))


def test_an_error_is_one_line_and_2_with_a_traceback_on_demand(monkeypatch, capsys):
    def fail(args):
        raise InputError("write this instead")

    replace(monkeypatch, "doctor", fail)
    monkeypatch.setenv("KODA_AUDIT_DEBUG", "0")
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "koda-audit: error: write this instead\n"
    assert cli.main(["--debug", "doctor"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["eval"], []),
        (["eval", "--help"], ["--help"]),
        (["eval", "--dataset", "eval", "--debug", "--version"], ["--dataset", "eval", "--debug", "--version"]),
        (["--debug", "eval", "--no_amp"], ["--no_amp"]),
    ],
)
def test_everything_after_eval_goes_on_verbatim(monkeypatch, words, rest):
    seen = []
    replace(monkeypatch, "eval", lambda args: seen.append(args.rest) or 0)
    monkeypatch.setenv("KODA_AUDIT_DEBUG", "0")
    assert cli.main(words) == 0
    assert seen == [rest]


def test_demo_has_its_default_place(monkeypatch):
    seen = []
    replace(monkeypatch, "demo", lambda args: seen.append((args.output, args.quiet)) or 0)
    cli.main(["demo"])
    cli.main(["demo", "--output", "here", "--quiet"])
    assert seen == [(Path("reports/latest"), False), (Path("here"), True)]


def test_list_shows_a_third_partys_task_and_reports_a_broken_one(tmp_path):
    for name, entry in (
        ("sample-count", "sample_count = sample_count:task"),
        ("broken-one", "broken = no_module:task"),
    ):
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[clip_benchmark.tasks]\n{entry}\n")
    done = command("list", "tasks", PYTHONPATH=os.pathsep.join([str(ROOT), str(tmp_path), str(SAMPLE)]))
    assert done.returncode == 0
    assert "sample_count  (sample-count)\n    count samples and dimensions" in done.stdout
    assert "task 'broken' of broken-one (no_module:task) cannot be imported" in done.stderr


def test_list_shows_alignments_with_their_formula():
    done = command("list", "alignments")
    assert done.returncode == 0
    assert "center_renorm  (koda-audit)\n    Norm(x - mx), Norm(y - my)\n" in done.stdout


def test_doctor_counts_what_is_broken(monkeypatch, capsys):
    found = [doctor.Finding("python", "3"), doctor.Finding("torch", "is not installed", "install it")]
    monkeypatch.setattr(doctor, "findings", lambda: iter(found))
    assert doctor.main() == 2
    out = capsys.readouterr().out
    assert "FAIL  torch" in out
    assert "-> install it" in out
    monkeypatch.setattr(doctor, "findings", lambda: iter(found[:1]))
    assert doctor.main() == 0


def test_doctor_sees_a_store_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "XDG_CACHE_HOME" in doctor._store().remedy
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    assert doctor._store() == doctor.Finding("store", str(tmp_path / "new" / "koda_store"))
    assert not (tmp_path / "new").exists()


def test_doctor_names_a_missing_package_and_a_failing_import(monkeypatch, tmp_path):
    assert doctor._version("no-such-package").remedy == "python -m pip install no-such-package"
    assert doctor._import("no_such_module").remedy == "python -m pip install no_such_module"
    (tmp_path / "koda_test_nms.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "fresh virtual environment" in doctor._import("koda_test_nms").remedy


@pytest.mark.parametrize(
    "words",
    [
        ["run", "y" * 300],
        ["validate", "--static", "y" * 300],
        ["check", "y" * 300],
        ["init", "y" * 300],
        ["baseline", "--accept", "y" * 300, "--output", "x"],
    ],
)
def test_a_name_that_no_file_system_takes_is_no_failed_gate(words, capsys):
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("koda-audit: error: ")
    assert "Traceback" not in said


def test_a_fault_of_ours_is_no_failed_gate(monkeypatch, capsys):
    def fails(args):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", lambda parser: None, fails))
    assert cli.main(["doctor"]) == 2
    assert "ZeroDivisionError: by nothing" in capsys.readouterr().err


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path):
    target, link, pipe = (tmp_path / name for name in ("target", "link", "pipe"))
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: (tmp_path / "read").write_bytes(pipe.read_bytes()))
    reader.start()
    write_text(pipe, "through")
    reader.join(timeout=10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert (tmp_path / "read").read_text() == "through"


def test_what_killed_writes_left_goes_with_the_next_one(tmp_path):
    left, fresh = tmp_path / ".report.abcdefgh", tmp_path / ".report.hgfedcba"
    left.mkdir()
    (left / "half").write_text("written")
    fresh.mkdir()
    os.utime(left, (0, 0))
    remove_abandoned(tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]
