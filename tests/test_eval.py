"""`clip_benchmark eval --task koda_discrepancy`, end to end on small models, in process and as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import clip_benchmark.cli as host
import numpy as np
import pytest

from koda_audit.host.extension import extend
from koda_audit.metrics import METRICS

# webdataset warns about its own default at every construction, and the host leaves files open
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*shardshuffle.*"),
    pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]
TASK = ["--task", "koda_discrepancy", "--koda_directions", "2"]


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    extend(host)
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *map(str, arguments)])
    host.main()


@pytest.fixture
def common(captions_wds: Path, tmp_path: Path) -> list[str]:
    return [
        *("eval", *TASK, "--dataset", "wds/any", "--dataset_root", str(captions_wds), "--koda_store"),
        *(str(tmp_path / "store"), "--output", str(tmp_path / "out" / "{model}.json"), "--num_workers", "0"),
    ]


def pair(*folders: Path) -> list[str]:
    return ["--pretrained_model", *(f"local-dir:{folder},x" for folder in folders)]


def test_two_models_end_to_end(
    common: list[str], tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run(*common, *pair(tiny_clip, tiny_clip_2), monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "'tiny' is the reference" in printed
    assert "excess" in printed  # the table
    outputs = list((tmp_path / "out").glob("*.json"))
    assert len(outputs) == 1
    dump: dict[str, Any] = json.loads(outputs[0].read_text(), parse_constant=lambda name: pytest.fail(name))
    assert dump["dataset"] == "wds/any"
    assert dump["task"] == "koda_discrepancy"
    assert dump["reference"] == f"local-dir:{tiny_clip},x"
    assert set(dump["metrics"]) == {key for key in METRICS if key.startswith("koda_")}
    assert all(isinstance(value, float) for value in dump["metrics"].values())
    report = outputs[0].with_suffix("")
    assert {path.name for path in report.iterdir()} == {
        *(
            "report.md",
            "report.html",
            "results.csv",
            "results.json",
            "protocols.json",
            "files.json",
            "figures",
            "subsets",
            "tables",
        )
    }
    text = (report / "report.md").read_text()
    pictures = sorted(path.name for path in (report / "figures").iterdir())
    subsets = sorted(path.stem for path in (report / "subsets").iterdir())
    assert subsets == [f"{way}group-{number:02d}" for way in ("", "reverse_") for number in (1, 2)]
    findings = {way: dump["metrics"][f"koda_{way}findings"] for way in ("", "reverse_")}
    drawn = {way for way, count in findings.items() if count}  # what is no finding has no picture
    views = {f"{way}{view}.png" for way in drawn for view in ("groups", "spectra", "map")}
    assert views <= set(pictures)
    grids = set(pictures) - views
    assert len(grids) == sum(findings.values())
    assert {Path(name).stem for name in grids} <= set(subsets)
    tables = {f"{way}{name}.csv" for way in ("", "reverse_") for name in ("groups", "spectrum", "quality", "agreement")}
    assert {path.name for path in (report / "tables").iterdir()} == tables
    assert "What tiny2 and tiny can do on these groups" in text
    assert all(f"figures/{name}" in text for name in pictures)
    with next((report / "subsets").glob("group-01.csv")).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["id"].startswith("s00")
    assert float(rows[0]["weight"]) != 0
    # the host makes a table of it
    run("build", *outputs, "--output", tmp_path / "benchmark.csv", monkeypatch=monkeypatch)
    with (tmp_path / "benchmark.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert float(row["koda_excess_top1"]) == dump["metrics"]["koda_excess_top1"]
    assert row["reference"] == dump["reference"]


def test_the_same_run_twice_gives_the_same_numbers(
    common: list[str], tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for _ in range(2):
        run(*common, *pair(tiny_clip, tiny_clip_2), "--quiet", monkeypatch=monkeypatch)
        output = next((tmp_path / "out").glob("*.json"))
        files = [output, *sorted(path for path in output.with_suffix("").rglob("*") if path.is_file())]
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]


def test_classes_and_an_explicit_reference(
    common: list[str], classes_wds: Path, tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    common[common.index("--dataset_root") + 1] = str(classes_wds)
    reference = ["--koda_reference", f"local-dir:{tiny_clip}", "--koda_modality", "image"]
    run(*common, *pair(tiny_clip_2), *reference, "--quiet", monkeypatch=monkeypatch)
    assert capsys.readouterr().out == ""
    assert len(list((tmp_path / "out").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--koda_modality", "jiont"], "--koda_modality: .*did you mean 'joint'"),
        (["--koda_kernel", "rbff"], "--koda_kernel: .*did you mean 'rbf'"),
        (["--koda_directions", "0"], "--koda_directions: .* 1, found '0'"),
        (["--koda_directions", "19"], "20"),
        (["--koda_epsilon", "2"], "--koda_epsilon: .* 1, found '2'"),
        (["--koda_epsilon", "1e-9"], "smallest feasible"),
        (["--output", "{nodel}.json"], "unknown field 'nodel'; known are model"),
        (["--output", "/proc/nowhere/x.json"], "the folder of --output /proc/nowhere cannot be written"),
        (["--output", "/tmp"], "is a folder: name a file"),
        (["--koda_reference", "local-dir:/nowhere"], "there is no folder /nowhere"),
        (["--pretrained_model", "local-dir:/nowhere,x", "ViT-B-32,openai"], "there is no folder /nowhere"),
        (["--pretrained_model", "ViT-B-23,openai", "ViT-B-32,openai"], "did you mean 'ViT-B-32'"),
        (["--pretrained_model", "ViT-B-32"], "'ViT-B-32' is no MODEL,PRETRAINED"),
        (["--dataset", "cifar11"], "unknown dataset 'cifar11': did you mean"),
        (["--dataset_root", "/nowhere"], "there is no folder /nowhere"),
        (["--koda_store", "/proc/nowhere"], "the embedding store /proc/nowhere cannot be written"),
        (["--skip_load"], "leave it out"),
        (["--batch_size", "0"], "--batch_size 0: at least 1"),
        (["--num_workers", "-1"], "--num_workers -1: at least 0"),
        (["--seed", "-1"], "--seed -1: at least 0"),
        (["--dataset_root", "/tmp/{x}"], r"only \{dataset\} and \{dataset_cleaned\} are known"),
        (["--output", "{model.foo}.json"], "unknown field"),
        (["--output", "x" * 300], "cannot be a file: .*too long"),
        (["--output", "/dev/null"], "is no plain file"),
        (
            ["--task", "zeroshot_classification", "--dataset", "folder/x"],
            "plain folders are for the tasks of koda_audit",
        ),
        (["--output", "new/"], "is a folder: name a file"),
        (["--koda_reference", ""], "model '': expected NAME,PRETRAINED"),
        (["--pretrained_model", os.devnull, "ViT-B-32,openai"], "'/dev/null' is no MODEL,PRETRAINED"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(
    common: list[str], arguments: list[str], message: str, tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        run(*common, *pair(tiny_clip, tiny_clip_2), *arguments, "--quiet", monkeypatch=monkeypatch)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("koda_audit: error: ")
    assert re.search(message, lines[0])
    assert not list((tmp_path / "out").glob("**/*.json"))


def test_a_model_is_not_compared_with_itself(
    common: list[str], tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([*pair(tiny_clip), "--koda_reference", f"local-dir:{tiny_clip}"], "is the only model and the reference too"),
        (pair(tiny_clip, tiny_clip), "is listed twice"),
    ):
        with pytest.raises(SystemExit):
            run(*common, *arguments, monkeypatch=monkeypatch)
        assert message in capsys.readouterr().err


def test_lists_in_files_are_read_strictly(
    common: list[str], tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    listed = tmp_path / "models.txt"
    for content, message in (
        (b"ViT-B-32,openai\n\n", "models.txt:2: a blank line"),
        (b"\xff\n", "cannot be read as a list"),
    ):
        listed.write_bytes(content)
        with pytest.raises(SystemExit):
            run(*common, "--pretrained_model", listed, monkeypatch=monkeypatch)
        assert message in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(
    common: list[str], tiny_clip: Path, tiny_clip_2: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("koda_audit.host.runner.embedded", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run(*common, *pair(tiny_clip, tiny_clip_2), monkeypatch=monkeypatch)
    assert stopped.value.code == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_one_model_and_no_reference(
    common: list[str], tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(*common, *pair(tiny_clip), monkeypatch=monkeypatch)
    assert "compares two models: list two, or name one with --koda_reference" in capsys.readouterr().err


def test_the_results_of_another_task_are_not_replaced(
    common: list[str], tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "out" / "tiny2.json"
    output.parent.mkdir()
    output.write_text('{"task": "koda_similarity"}')
    with pytest.raises(SystemExit):
        run(*common, *pair(tiny_clip, tiny_clip_2), "--output", output, monkeypatch=monkeypatch)
    assert "holds the results of koda_similarity: put {task} into --output" in capsys.readouterr().err
    assert output.read_text() == '{"task": "koda_similarity"}'
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").iterdir())


def test_two_runs_never_write_to_one_file(
    common: list[str], tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    both = [
        "--koda_reference",
        f"local-dir:{tiny_clip}",
        "--output",
        str(tmp_path / "x.json"),
        "--language",
        "en",
        "de",
    ]
    with pytest.raises(SystemExit):
        run(*common, *pair(tiny_clip, tiny_clip_2), *both, monkeypatch=monkeypatch)
    assert "two runs would write to" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")  # in the host's accuracy
def test_the_hosts_own_task_is_untouched(
    classes_wds: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unmodified host in a process of its own, and the extended one here, to the last digit."""
    arguments = [
        *("eval", "--task", "zeroshot_classification", "--dataset", "wds/any", "--dataset_root", str(classes_wds)),
        *("--pretrained_model", f"local-dir:{tiny_clip},x", "--num_workers", "0", "--quiet", "--no_amp", "--output"),
    ]
    run(*arguments, tmp_path / "ours.json", monkeypatch=monkeypatch)
    code = "import sys; from clip_benchmark.cli import main; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-c", code, *arguments, str(tmp_path / "theirs.json")],
        check=True,
        env={**os.environ, "KODA_AUDIT_AUTOLOAD": "0"},
        capture_output=True,
    )
    ours, theirs = (json.loads((tmp_path / name).read_text()) for name in ("ours.json", "theirs.json"))
    np.testing.assert_equal(ours, theirs)
