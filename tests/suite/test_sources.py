"""What a rerun takes for unchanged, and what it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from koda_audit.suite.load import load_suite
from koda_audit.suite.names import LOCAL, all_data, model_name
from koda_audit.suite.sources import data_source, model_source

SUITE = """\
suite: s
models:
  folder: {model: "local-dir:checkpoint"}
  code: {model: "py:loader.py:load", pretrained: checkpoint}
  named: {model: ViT-B-32, pretrained: openai}
datasets:
  shards: {dataset: wds/p, root: shards, task: zeroshot_retrieval}
  classes: {dataset: folder/c, root: classes}
"""
FILES = {
    "checkpoint": "checkpoint/weights.bin",
    "shards": "shards/test/0.tar",
    "classes": "classes/test/cat/1.png",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Each of the folders is a link, as is what lies in it."""
    for name, file in FILES.items():
        real = tmp_path / "real" / file
        real.parent.mkdir(parents=True)
        real.write_text("before")
        place = tmp_path / name
        place.mkdir()
        for inner in (tmp_path / "real" / name).iterdir():
            (place / inner.name).symlink_to(inner)
    (tmp_path / "loader.py").write_text("def load(checkpoint, device): ...\n")
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


def sources(home: Path) -> dict[str, object]:
    loaded = load_suite(home / "suite.yaml", allow_code=True)
    models = {key: model_name(key, model, home) for key, model in loaded.suite.models.items()}
    data = {key: some[0] for key, some in all_data(loaded.suite, home).items()}
    return {key: model_source(one) for key, one in models.items()} | {
        key: data_source(one) for key, one in data.items()
    }


@pytest.mark.parametrize(
    ("file", "touched"),
    [
        ("checkpoint/weights.bin", {"folder", "code"}),
        ("shards/test/0.tar", {"shards"}),
        ("classes/test/cat/1.png", {"classes"}),
        ("loader.py", {"code"}),
    ],
)
def test_a_change_is_seen_through_links_and_behind_times_that_were_set_back(home, file, touched):
    before, path = sources(home), (home / file).resolve()
    assert sources(home) == before
    stat = path.stat()
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    after = sources(home)
    assert {name for name, source in after.items() if source != before[name]} == touched


def test_links_to_a_folder_above_end(home):
    (home / "real" / "classes" / "test" / "cat" / "up").symlink_to(home / "real" / "classes")
    source = sources(home)["classes"]
    assert str(source).count("1.png") <= 2


def test_a_model_without_weights_of_its_own_looks_at_no_files(home, monkeypatch):
    monkeypatch.chdir(home)
    name = model_name("m", load_suite(home / "suite.yaml", allow_code=True).suite.models["named"], home)
    assert not name.name.startswith(LOCAL)
    assert model_source(name)[-1] == []
