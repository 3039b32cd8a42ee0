"""``check`` and ``baseline`` as real processes: exit codes, files, what is refused, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate_audits import hits, number, write_audit

import koda_audit
from koda_audit import _files
from koda_audit.errors import InputError, StoreError
from koda_audit.gates.check import accept, check
from koda_audit.gates.gate import Gate
from koda_audit.gates.judge import judge

ROOT = Path(__file__).parents[2]
DROP = "gates:\n  - {metric: acc1, dataset: cifar, model: new, max_drop: 0.01}\n"


def cli(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "koda_audit.cli", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def home(tmp_path) -> Path:
    """Three audits, the second as good as the first, the third worse; and the first accepted as baseline."""
    for name, right in (("first", 900), ("same", 900), ("worse", 850)):
        write_audit(tmp_path / name, number(hits=hits(right, 1000 - right)))
    (tmp_path / "gates.yaml").write_text(DROP)
    accept(tmp_path / "first", tmp_path / "baseline")
    return tmp_path


@pytest.mark.parametrize(("run", "code", "word"), [("same", 0, "PASS"), ("worse", 1, "FAIL")])
def test_exit_codes_text_and_files_say_the_same(home, run, code, word):
    outputs = {name: f"out/{name}" for name in ("json", "junit", "markdown")}
    options = [part for name, file in outputs.items() for part in (f"--{name}", file)]
    done = cli(home, "check", run, "--baseline", "baseline", "--gates", "gates.yaml", *options)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines()[-1] == f"{word}: 1 {word} of 1 gate"
    (row,) = json.loads((home / "out" / "json").read_text())
    assert (row["verdict"], row["n"]) == (word, 1000)
    assert ElementTree.parse(home / "out" / "junit").getroot().get("failures") == str(code)
    assert f"**{word}** acc1 of new on cifar" in (home / "out" / "markdown").read_text()


def test_what_is_open_is_written_to_and_all_else_is_replaced(home):
    words = ["check", "same", "--baseline", "baseline", "--gates", "gates.yaml", "--json", "/dev/stdout"]
    with (home / "log").open("a") as log:
        log.write("before\n")
        log.flush()
        subprocess.run([sys.executable, "-m", "koda_audit.cli", *words], cwd=home, stdout=log, check=True, timeout=120)
    said = (home / "log").read_text()
    assert said.startswith("before\n")
    assert "PASS: 1 PASS of 1 gate" in said
    assert '"verdict": "PASS"' in said


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="a file system in memory, where it is")
def test_files_in_memory_are_files():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for number in range(2):
            _files.write_json(Path(folder, "below", "v.json"), [number])
        assert json.loads(Path(folder, "below", "v.json").read_text()) == [1]


def test_an_error_is_2_and_no_traceback(home):
    (home / "gates.yaml").write_text(DROP + "  - {metric: acc1, dataset: cifar, model: nwe, min: 0}\n")
    done = cli(home, "check", "worse", "--baseline", "baseline", "--gates", "gates.yaml")
    assert done.returncode == 2
    assert "ERROR acc1 of nwe on cifar: unknown model 'nwe': did you mean 'new'?" in done.stdout
    assert "FAIL acc1" in done.stdout
    missing = cli(home, "check", "same", "--gates", "gates.yaml")
    assert missing.returncode == 2
    assert "no baseline is given: name one, or say against which model" in missing.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "same"), "same was run without gates: name a file of them with --gates"),
        (("check", "nowhere", "--gates", "gates.yaml"), "nowhere holds no audit"),
        (("check", "same", "--gates", "gates.yaml", "--baseline", "nowhere"), "nowhere holds no audit"),
        (("check", "same", "--gates", "nope.yaml"), "nope.yaml cannot be read"),
        (("baseline", "--accept", "nowhere"), "nowhere holds no audit"),
        (("baseline", "--accept", "first", "--output", "same"), "same exists and is no baseline"),
    ],
)
def test_what_cannot_be_done_is_one_line(home, words, said):
    done = cli(home, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_check_imports_no_torch_and_is_quick(home):
    line = [sys.executable, "-X", "importtime", "-W", "error", "-m", "koda_audit.cli"]
    words = ["check", "worse", "--baseline", "baseline", "--gates", "gates.yaml", "--junit", "out.xml"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    used = os.times()
    done = subprocess.run([*line, *words], cwd=home, env=env, capture_output=True, text=True, timeout=60)
    spent = os.times()
    assert done.returncode == 1
    modules = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert not {"torch", "pandas", "open_clip", "sklearn", "clip_benchmark.cli"} & set(modules)
    # of the processor: wall time depends on who else uses the machine
    assert (spent.children_user + spent.children_system) - (used.children_user + used.children_system) < 3


def test_an_audit_remembers_the_gates_that_it_was_run_with(home):
    verdicts = judge([Gate("acc1", "cifar", "new", max_drop=0.01)], home / "first", home / "same")
    _files.write_json(home / "worse" / "verdicts.json", [verdict.record() for verdict in verdicts])
    found = check(home / "worse", baseline=home / "baseline")
    assert (found.exit_code, found.passed) == (1, False)
    assert found.frame["verdict"].tolist() == ["FAIL"]
    (home / "worse" / "verdicts.json").write_text('[{"metric": "acc1"}]')
    with pytest.raises(InputError, match=r"verdicts\.json is damaged"):
        check(home / "worse")


def test_accepting_an_audit_whose_gates_failed_says_so(home):
    verdicts = judge([Gate("acc1", "cifar", "new", max_drop=0.01)], home / "worse", home / "baseline")
    _files.write_json(home / "worse" / "verdicts.json", [verdict.record() for verdict in verdicts])
    done = cli(home, "baseline", "--accept", "worse", "--output", "other")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "note: 1 of its own gates came to FAIL"


@pytest.mark.parametrize(("gates", "said"), [([], "gates is empty"), (3, "gates is 3: expected a list")])
def test_gates_that_are_none(home, gates, said):
    with pytest.raises(InputError, match=said):
        check(home / "same", home / "baseline", gates)


def test_check_is_public(home):
    assert koda_audit.check(home / "same", home / "first", [Gate("acc1", "cifar", "new", max_drop=0.01)]).passed


def edit(file: Path) -> None:
    file.write_text(file.read_text().replace("0.9", "0.8"))


HARM = {
    "a number edited": lambda folder: edit(folder / "results.json"),
    "a table removed": lambda folder: (folder / "results.json").unlink(),
    "outcomes removed": lambda folder: shutil.rmtree(folder / "outcomes"),
    "outcomes edited": lambda folder: next((folder / "outcomes").glob("*.safetensors")).write_bytes(b"x"),
    "checksums emptied": lambda folder: (folder / "baseline.json").write_text('{"sha256": {}}'),
    "checksums edited": lambda folder: (folder / "baseline.json").write_text('{"sha256": []}'),
    "checksums cut": lambda folder: (folder / "baseline.json").write_text("{"),
}


@pytest.mark.parametrize("name", HARM)
def test_a_baseline_edited_by_hand_is_refused(home, name):
    HARM[name](home / "baseline")
    done = cli(home, "check", "same", "--baseline", "baseline", "--gates", "gates.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "baseline" in done.stderr
    assert "accept" in done.stderr  # what changed it, or how to mend it
    assert len(done.stderr.splitlines()) == 1


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_accepting_replaces_the_baseline_whole(home):
    before = contents(home / "baseline")
    (home / "worse" / "report.md").write_text("not a part of a baseline")
    done = cli(home, "baseline", "--accept", "worse")
    assert (done.returncode, done.stderr) == (0, "")
    assert "baseline is the baseline now: 1 numbers of worse" in done.stdout
    after = contents(home / "baseline")
    assert set(after) == set(before) == {"baseline.json", "results.json", *(n for n in before if "outcomes" in n)}
    assert after["results.json"] == (home / "worse" / "results.json").read_bytes()
    assert check(home / "worse", home / "baseline", home / "gates.yaml").exit_code == 0
    assert sorted(path.name for path in home.iterdir()) == ["baseline", "first", "gates.yaml", "same", "worse"]


@pytest.mark.parametrize("name", ["shutil.copyfile", "pathlib.Path.rename"])
def test_a_full_disk_leaves_the_old_baseline(home, name, monkeypatch):
    before, real, calls = contents(home / "baseline"), Path.rename, []

    def full(*arguments):
        calls.append(arguments)
        if name == "pathlib.Path.rename" and len(calls) != 2:  # the old one moves away and back, the new one fails
            return real(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(name, full)
    with pytest.raises(StoreError, match="the disk is full"):
        accept(home / "worse", home / "baseline")
    monkeypatch.undo()
    assert contents(home / "baseline") == before
    assert sorted(path.name for path in home.iterdir()) == ["baseline", "first", "gates.yaml", "same", "worse"]


def test_no_numbers_and_damaged_outcomes_are_not_accepted(home):
    write_audit(home / "failed", number(None, metric="", status="error", error="no"))
    with pytest.raises(InputError, match="has no numbers to accept"):
        accept(home / "failed", home / "baseline")
    next((home / "worse" / "outcomes").glob("*.safetensors")).write_bytes(b"x")
    with pytest.raises(StoreError, match="differs from its checksum"):
        accept(home / "worse", home / "baseline")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("{}", r"baseline.json is damaged: remove .*, or choose another folder"),
        ('{"sha256": {}}', r"holds 'src/a.txt', which no baseline has: choose another folder"),
    ],
)
def test_a_folder_that_holds_more_than_a_baseline_is_not_replaced(home, tmp_path, named, said):
    (tmp_path / "project" / "src").mkdir(parents=True)
    precious = tmp_path / "project" / "src" / "a.txt"
    precious.write_text("precious")
    (tmp_path / "project" / "baseline.json").write_text(named)
    with pytest.raises(InputError, match=said):
        accept(home / "first", tmp_path / "project")
    assert precious.read_text() == "precious"


def test_half_a_character_in_a_name_is_spelled_out(home, tmp_path):
    _files.write_json(tmp_path / "a.json", {"name": "new\ud800"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"name": "new\ud800"}
    (home / "half.yaml").write_text('- {metric: acc1, dataset: cifar, model: "new\\ud800", max_drop: 0.01}\n')
    done = cli(
        home, "check", "worse", "--gates", "half.yaml", "--baseline", "baseline", "--markdown", "m", "--json", "j"
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert json.loads((home / "j").read_text("utf-8"))[0]["verdict"] == "ERROR"
