"""`koda-audit align` with a teacher, with members, and of towers; what it exports in the unmodified host."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from clip_benchmark.models import load_clip
from conftest import TINY, write_tiny_clip, write_webdataset
from open_clip import coca_model
from PIL import Image
from safetensors.torch import save_file

from koda_audit import cli, load_alignment
from koda_audit.alignment import tower
from koda_audit.alignment.learners import KernelLearner
from koda_audit.data.load import load_dataset
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.evaluation.tasks import evaluate
from koda_audit.models import ModelSpec, load_model

pytestmark = [pytest.mark.filterwarnings("ignore:.*shardshuffle.*")]
N, BATCH = 24, 8
TRAINING = ["epochs=4", f"batch={BATCH}", "lr=1e-3"]
KUEA = [*TRAINING, "weight=500", "rho_teacher=100"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    write_tiny_clip(folder / "student")
    write_tiny_clip(folder / "teacher", seed=1, mean=0.3)
    for kind in ("retrieval", "classification"):
        write_webdataset(folder / kind, n=N, kind=kind)
    with (folder / "members.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["direction", "lobe", "id", "weight"])
        rows.writerows([1, "positive", f"s{row:04d}", 0.5] for row in range(6))
    return folder


def words(home, name, output, *more, settings=()):
    data = ["--dataset", "wds/any", "--dataset_root", home / "retrieval", "--split", "test", "--num_workers", "0"]
    chosen = [word for setting in settings for word in ("--set", setting)]
    model = ["--model", f"local-dir:{home / 'student'}", "--koda_store", home / "store", "--output", output]
    return list(map(str, ["align", name, *model, *data, *chosen, *more]))


def teacher(home):
    return ["--teacher", f"local-dir:{home / 'teacher'}"]


@pytest.fixture(scope="module")
def aligned(home):
    """The folder of a trained tower."""
    output = home / "aligned"
    assert cli.main(words(home, "kuea", output, "--mode", "tower", *teacher(home), settings=KUEA)) == 0
    return output


def test_a_tower_is_trained_and_the_next_command_named(home, capsys):
    output = home / "again"
    assert cli.main(words(home, "kuea", output, "--mode", "tower", *teacher(home), settings=KUEA)) == 0
    printed = capsys.readouterr().out
    assert f"clip_benchmark eval --task zeroshot_retrieval --pretrained_model local-dir:{output},x " in printed
    assert "kuea towards teacher" in printed
    record = json.loads((output / tower.RECORD).read_text())
    assert record["goal"]["weight"] == 500
    assert record["goal"]["rho_teacher"] == 100
    assert record["figures"]["steps"] == 4 * N // BATCH
    assert record["figures"]["kernel_loss_after"] < record["figures"]["kernel_loss_before"]


def test_an_interrupted_run_goes_on(home, aligned, monkeypatch, capsys):
    output, step = home / "interrupted", KernelLearner.step

    def stop(self, number, *rest):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    given = words(home, "kuea", output, "--mode", "tower", *teacher(home), settings=[*KUEA, "save_every=2"])
    with monkeypatch.context() as patch:
        patch.setattr(KernelLearner, "step", stop)
        assert cli.main(given) == 130
    assert not (output / tower.WEIGHTS).exists()
    assert [file.name for file in (output / tower.CHECKPOINTS).glob("*.json")] == ["step-4.json"]
    assert cli.main(given) == 0
    assert (output / tower.WEIGHTS).read_bytes() == (aligned / tower.WEIGHTS).read_bytes()


def test_members_fill_their_share_of_each_batch(home, monkeypatch):
    seen, step = [], KernelLearner.step

    def noted(self, number, rows, *rest):
        seen.append(rows.tolist())
        return step(self, number, rows, *rest)

    monkeypatch.setattr(KernelLearner, "step", noted)
    both = pd.read_csv(home / "members.csv", dtype=str).assign(finding=True)
    kept = pd.DataFrame({"id": ["s0009"], "finding": False})  # of a group that is no finding
    pd.concat([both, kept]).to_csv(home / "judged.csv", index=False)
    given = ["--mode", "tower", *teacher(home), "--members", home / "judged.csv"]
    assert cli.main(words(home, "kuea", home / "focus", *given, settings=[*KUEA, "share=0.25"])) == 0
    ids = load_dataset("wds/any", str(home / "retrieval")).samples
    names = [ids.read(row)[0] for row in range(N)]
    shares = [sum(names[row] < "s0006" for row in batch) for batch in seen]
    assert shares == [BATCH // 4] * len(seen)


def test_curriculum_of_towers(home, capsys):
    settings = [*TRAINING, "alpha_target=0.8", "towers=visual"]
    assert cli.main(words(home, "curriculum", home / "closed", "--mode", "tower", settings=settings)) == 0
    assert "alpha" in capsys.readouterr().out
    assert (home / "closed" / tower.WEIGHTS).is_file()


def test_maps_with_a_teacher_and_members(home, tmp_path):
    settings = ["epochs=3", "rho_teacher=100", "share=0.25", "batch=8"]
    given = [*teacher(home), "--members", home / "members.csv"]
    assert cli.main(words(home, "kuea", tmp_path / "maps", *given, settings=settings)) == 0
    found = load_alignment(tmp_path / "maps")
    weights = load_model(ModelSpec(f"local-dir:{home / 'teacher'}")).identity["weights"]
    assert found.params["teacher"]["model_hash"] == weights
    assert found.params["focus"] == "given"
    assert found.info["figures"]["steps"] == 3 * N // BATCH


@pytest.mark.parametrize(
    ("name", "more", "settings", "message"),
    [
        ("kuea", [], [], r"'kuea' needs a teacher: name it with --teacher"),
        ("kuea", ["--mode", "tower"], [], r"'kuea' needs a teacher: name it with --teacher"),
        ("center", ["teacher"], [], r"'center' takes no teacher: leave --teacher"),
        ("curriculum", ["teacher", "--mode", "tower"], [], r"'curriculum' takes no teacher"),
        ("center", ["members"], [], r"'center' takes no focus: leave --members"),
        ("center", ["--mode", "tower"], [], r"'center' has no tower mode: kuea and curriculum have one"),
        ("kuea", ["teacher"], ["teacher=x"], r"teacher is no PARAMETER=VALUE: name a teacher with --teacher"),
        ("kuea", ["teacher", "--mode", "tower"], ["epoch=2"], r"setting of 'kuea' in tower mode 'epoch': did you mean"),
        ("kuea", ["teacher", "--mode", "tower"], ["epochs=many"], r"epochs is 'many': expected a whole number"),
        ("kuea", ["teacher", "--mode", "tower"], ["epochs=0"], r"epochs is 0: expected a whole number from 1"),
        ("kuea", ["teacher", "--mode", "tower"], ["rho=-1"], r"rho=-1: expected a positive number"),
        ("kuea", ["teacher", "--mode", "tower"], ["share=2"], r"share=2.0: expected 0 to 1"),
        ("kuea", ["teacher", "--mode", "tower"], ["preset=kuea-paper"], r"kuea-paper has no settings for"),
        ("curriculum", ["--mode", "tower"], ["preset=kuea-paper"], r"unknown preset of 'curriculum'"),
        ("curriculum", ["--mode", "tower"], ["alpha_target=2"], r"alpha_target=2: expected a share, 0 to 1"),
        ("curriculum", ["--mode", "tower"], ["rise=fast"], r"rise is 'fast': expected a finite number"),
        ("kuea", ["teacher", "--mode", "tower"], ["batch=25"], r"batch=25 of 24 samples"),
        ("kuea", ["teacher", "--mode", "tower", "--koda_fit_share", "0.5"], [], r"--koda_fit_share is for --mode feat"),
        ("kuea", ["teacher", "--mode", "tower", "--model", "py:a:b", "--koda_allow_code"], [], "trained of open_clip"),
        ("kuea", ["teacher", "--mode", "tower", "--output", "a,b"], [], "reads no path with a comma"),
        ("kuea", ["--teacher", "local-dir:/nowhere"], [], "there is no folder /nowhere"),
        ("kuea", ["--teacher", "a,b,c"], [], "expected NAME,PRETRAINED"),
        ("kuea", ["teacher", "--members", "/nowhere.csv"], [], "/nowhere.csv cannot be read as a table of members"),
    ],
)
def test_bad_input_stops_before_a_model_is_loaded(home, tmp_path, name, more, settings, message, monkeypatch, capsys):
    monkeypatch.setattr("koda_audit.host.runner.load_model", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("koda_audit.align_command.load_model", lambda *_: pytest.fail("a model was loaded"))
    named = {"teacher": teacher(home), "members": ["--members", home / "members.csv"]}
    given = [word for each in more for word in named.get(each, [each])]
    assert cli.main(words(home, name, tmp_path / "out", *given, settings=settings)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / tower.CHECKPOINTS).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\nelsewhere\n", r"1 members are not among these samples \(first: elsewhere\)"),
        ("id\n", "names no samples"),
        ("name\na\n", "expected a CSV with a column id"),
        ("id,finding\ns0001,False\n", r"no group of .*members.csv is a finding: leave it out"),
    ],
)
def test_members_that_are_none(home, tmp_path, content, message, capsys):
    (tmp_path / "members.csv").write_text(content)
    given = ["--mode", "tower", *teacher(home), "--members", tmp_path / "members.csv"]
    assert cli.main(words(home, "kuea", tmp_path / "out", *given, settings=KUEA)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out" / tower.CHECKPOINTS).exists()


# in the unmodified host


@pytest.mark.parametrize("kind", ["classification", "retrieval"])
def test_the_unmodified_host_gets_our_numbers(home, aligned, kind, tmp_path):
    """In a process that does not load koda_audit."""
    task = f"zeroshot_{kind}"
    code = "import sys, clip_benchmark.cli as host; host.main(); sys.exit('koda_audit' in sys.modules)"
    given = ["eval", "--task", task, "--pretrained_model", f"local-dir:{aligned},x", "--dataset", "wds/any", "--no_amp"]
    given += ["--dataset_root", home / kind, "--batch_size", BATCH, "--num_workers", 0, "--recall_k", 1, 5, 10]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, given), "--output", str(tmp_path / "out.json")],
        env={**os.environ, "KODA_AUDIT_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads((tmp_path / "out.json").read_text())["metrics"]
    model = load_model(ModelSpec(f"local-dir:{aligned}"))
    dataset = load_dataset("wds/any", str(home / kind))
    ours = evaluate(embed(model, dataset, Store(tmp_path), batch_size=BATCH, workers=0), task).values
    compared = {name: value for name, value in ours.items() if name in theirs}
    assert len(compared) >= 3
    assert {name: theirs[name] for name in compared} == pytest.approx(compared, abs=1e-6, nan_ok=True)


def test_a_coca_model_still_has_its_decoder(home, tmp_path):
    """Trained of a model that writes captions: the export loads, and its decoder is as it was."""
    decoder = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    decoder |= {"dim_head": 8, "n_queries": 4, "attn_pooler_heads": 2}
    vision = {**TINY["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = {**TINY["text_cfg"], "embed_cls": True, "output_tokens": True, "context_length": 15}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "multimodal_cfg": decoder, "custom_text": True}
    torch.manual_seed(0)
    student = tmp_path / "coca"
    student.mkdir()
    architecture = {key: value for key, value in config.items() if key != "custom_text"}
    model = open_clip.CoCa(**json.loads(json.dumps(architecture)))
    torch.nn.init.normal_(model.text_decoder.text_projection)  # open_clip leaves it to the weights
    save_file(model.state_dict(), student / tower.WEIGHTS)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [32, 32]}
    (student / tower.CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    given = ["--mode", "tower", *teacher(home), "--model", f"local-dir:{student}"]
    assert cli.main(words(home, "kuea", tmp_path / "out", *given, settings=KUEA)) == 0
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    sides = [load_clip("open_clip", f"local-dir:{each}", None, None, "cpu") for each in (student, tmp_path / "out")]
    states = [model.state_dict() for model, _, _ in sides]
    moved = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
    assert moved
    assert all(name.startswith("visual.") for name in moved)
    if coca_model._has_transformers:  # version 5 lacks what ``generate`` imports, which the host's captioning calls
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other packages
            written = [model.generate(transform(picture)[None], seq_len=6, top_k=1) for model, transform, _ in sides]
        assert written[1].shape == written[0].shape
        assert ((written[1] >= 0) & (written[1] < 49408)).all()
    logits = []
    for model, transform, tokenizer in sides:
        with torch.no_grad():
            logits.append(model.eval()(transform(picture)[None], tokenizer(["a photo"]))["logits"])
    assert torch.isfinite(logits[1]).all()
    assert not torch.equal(*logits)  # it sees with the trained tower
