"""Suites that are wrong: each gives its sentence with file and line, none a traceback, and none starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from koda_audit import cli
from koda_audit.suite.load import load_suite

GOOD = """\
suite: good
models:
  one: {model: "local-dir:one"}
  two: {model: "local-dir:two"}
datasets:
  pairs: {dataset: wds/pairs, root: pairs, task: zeroshot_retrieval}
  kinds: {dataset: wds/kinds, root: kinds, task: zeroshot_classification}
discrepancy: {pairs: all, on: [pairs], directions: 3}
similarity: {measures: [cka_linear]}
gap: {on: [pairs]}
alignments:
  centred: {operator: center_renorm, fit_on: "pairs:train"}
benchmark: {tasks: [zeroshot_retrieval], alignments: [none, centred]}
gates:
  - {metric: text_retrieval_recall@5, dataset: pairs, model: two, against: one, max_drop: 0.01}
published:
  - {metric: text_retrieval_recall@1, dataset: pairs, model: two, value: 0.5, source: a paper}
"""


def bomb() -> str:
    lines = ["suite: bomb", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines)


# name: what is replaced in the good suite, by what, and the line and words that the message must have
BAD = {
    "unknown key": ("modles:\n", "models:\n", 2, "unknown key 'modles': did you mean 'models'"),
    "unknown key of a part": ("direction: 3", "directions: 3", 8, "did you mean 'directions'"),
    "unknown key of a model": ('{modle: "local-dir:one"}', '{model: "local-dir:one"}', 3, "did you mean 'model'"),
    "unknown key of a gate": ("max_dorp: 0.01", "max_drop: 0.01", 15, "did you mean 'max_drop'"),
    "text for a number": ("directions: many", "directions: 3", 8, "found 'many'"),
    "number for a text": ("suite: 5", "suite: good", 1, "valid string"),
    "truth for a number": ("directions: true", "directions: 3", 8, "valid integer"),
    "list for a mapping": ("gap: [pairs]\n", "gap: {on: [pairs]}\n", 10, "a mapping with the keys of Gap"),
    "text for a list": (
        "on: pairs, directions",
        "on: [pairs], directions",
        8,
        "'all', or a list of names from datasets",
    ),
    "out of range": ("directions: 0", "directions: 3", 8, "greater than or equal to 1"),
    "not finite": ("max_drop: .nan", "max_drop: 0.01", 15, "must be a number of 0 or more, found nan"),
    "negative tolerance": ("max_drop: -1", "max_drop: 0.01", 15, "a number of 0 or more"),
    "unknown choice": ("directions: 3, kernel: rfb", "directions: 3", 8, "did you mean 'rbf'"),
    "unknown task": ("[zeroshot_retrival]", "[zeroshot_retrieval]", 13, "did you mean 'zeroshot_retrieval'"),
    "unknown measure": ("[cka_liner]", "[cka_linear]", 9, "did you mean 'cka_linear'"),
    "unknown operator": ("operator: center_renrom", "operator: center_renorm", 12, "did you mean 'center_renorm'"),
    "unknown parameter": ("center_renorm, lam: 1", "center_renorm", 12, "unknown parameter of center_renorm 'lam'"),
    "towers of no trainer": ("center_renorm, mode: tower", "center_renorm", 12, "trains no towers: leave mode out"),
    "unknown setting of a tower": (
        "kuea, mode: tower, teacher: two, rank: 2",
        "center_renorm",
        12,
        "unknown parameter of kuea 'rank'",
    ),
    "tower without teacher": ("kuea, mode: tower", "center_renorm", 12, "kuea needs a teacher"),
    "classes of no dataset": (
        "root: pairs, classes_of: kind,",
        "root: pairs,",
        6,
        "unknown dataset with classes 'kind': did you mean 'kinds'",
    ),
    "unknown dataset": ("on: [pears]", "on: [pairs]", 8, "unknown dataset 'pears': did you mean 'pairs'"),
    "unknown model of a pair": ("pairs: [[one, tow]]", "pairs: all", 8, "did you mean 'two'"),
    "pair of one": ("pairs: [[one]]", "pairs: all", 8, "a list of [reference, model]"),
    "pair with itself": ("pairs: [[one, one]]", "pairs: all", 8, "compares 'one' with itself"),
    "unknown model of a gate": ("model: tow", "model: two", 15, "did you mean 'two'"),
    "unknown metric of a gate": ("recal@5", "recall@5", 15, "did you mean 'text_retrieval_recall@5'"),
    "recall that is not measured": (
        "recall@7",
        "recall@5",
        15,
        "measures 'text_retrieval_recall@7'",
    ),
    "gate on a number without an interval": (
        "koda_excess_top1",
        "text_retrieval_recall@5",
        15,
        "no gate can be judged by koda_excess_top1: it has no interval; koda_findings is a count that can",
    ),
    "metric that is not measured": ("gaprob_rank", "text_retrieval_recall@5", 15, "nothing in this suite measures"),
    "measure of another modality": ("sim_texts_cka_linear", "text_retrieval_recall@5", 15, "'sim_text_cka_linear'"),
    "unknown alignment": ("[none, centered]", "[none, centred]", 13, "did you mean 'centred'"),
    "unknown calibration": ('"pears:train"', '"pairs:train"', 12, "did you mean 'pairs'"),
    "fitted on nothing": ("center_renorm}", 'center_renorm, fit_on: "pairs:train"}', 12, "fit_on: DATASET:train"),
    "fitted on what is evaluated": ('"pairs:test"', '"pairs:train"', 12, "what is evaluated"),
    "gallery on a calibration": ("orthogonal_translate, fit", "center_renorm, fit", 12, "leave fit_on out"),
    "two bounds": ("max_drop: 0.01, min: 1", "max_drop: 0.01", 15, "exactly one of max_drop"),
    "no bound": ("against: one}", "against: one, max_drop: 0.01}", 15, "found none"),
    "no models": ("models: {}\nothers:\n", "models:\n", 2, "models"),
    "same model twice": ('two: {model: "local-dir:one"}', 'two: {model: "local-dir:two"}', 4, "under another name"),
    "duplicate name": ("  one: {model: x}\n  one:", "  one:", 4, "stands here twice: the first is on line 3"),
    "listed twice": ("on: [pairs, pairs]", "on: [pairs]", 8, "listed twice"),
    "task without data": ("tasks: [linear_probe], on: [pairs]", "tasks: [zeroshot_retrieval]", 13, "needs classes"),
    "figure without a source": ("value: 0.5}", "value: 0.5, source: a paper}", 17, "say who published it, and where"),
    "figure with an empty source": ('source: " "', "source: a paper", 17, "expected who published it, and where"),
    "figure without a value": ("model: two, source", "model: two, value: 0.5, source", 17, "value: is missing"),
    "figure that is no number": ("value: .nan", "value: 0.5", 17, "finite"),
    "figure of another metric": ("text_retrieval_recal@1", "text_retrieval_recall@1", 17, "did you mean"),
    "figure of what is not measured": ("metric: acc1", "metric: text_retrieval_recall@1", 17, "nothing in this suite"),
    "figure of another model": ("model: tow, value", "model: two, value", 17, "did you mean 'two'"),
    "figure of another dataset": (
        "dataset: pears, model: two, value",
        "dataset: pairs, model: two, value",
        17,
        "did you mean 'pairs'",
    ),
    "task that the benchmark lacks": (
        "task: zeroshot_classification, only: [linear_probe]",
        "task: zeroshot_classification",
        7,
        "unknown task of the benchmark 'linear_probe'",
    ),
    "recall listed twice": ("[zeroshot_retrieval], recall_at: [1, 1]", "[zeroshot_retrieval]", 13, "1 is listed twice"),
    "noise listed twice": (
        "gap: {on: [pairs], robustness: {total_var: [0.02, 0.02]}}",
        "gap: {on: [pairs]}",
        10,
        "0.02 is listed twice",
    ),
    "a level below all draws": ("max_drop: 0.01, level: 1.0e-9", "max_drop: 0.01", 15, "level must be 0.0001 or more"),
    "a root that is a format": ('root: "{dataset:>5000}"', "root: pairs", 6, "only {dataset} and {dataset_cleaned}"),
    "another device": ("device: mps\nsuite: good", "suite: good", 1, "device"),
    "task left to no dataset": (
        "task: zeroshot_retrieval, only: [clustering]}",
        "task: zeroshot_retrieval}",
        13,
        "zeroshot_retrieval needs captions",
    ),
    "no benchmark uses it": ("[none]}", "[none, centred]}", 12, "used nowhere"),
    "missing file": ("root: kinds, classname_file: nope.json", "root: kinds", 7, "there is no file"),
    "path escape in a name": ("  ../../etc: {model: x}\n  one:", "  one:", 3, "a name has letters"),
    "path escape of the suite": ("suite: ../../x", "suite: good", 1, "a name has letters"),
    "path escape of a split": ("root: pairs, split: ../../etc", "root: pairs", 6, "a split is one word"),
    "unset variable": ('root: "${NOT_SET_ANYWHERE}/x"', "root: pairs", 6, "NOT_SET_ANYWHERE is not set"),
    "field of a root": ('root: "{model}/x"', "root: pairs", 6, "only {dataset} and {dataset_cleaned}"),
    "variable outside a path": ('suite: "${HOME}"', "suite: good", 1, "a name has letters"),
    "code without permission": ("py:here:load", "local-dir:one", 3, "add --allow-code"),
    "zero byte": ('root: "a\\0b"', "root: pairs", 6, "zero byte"),
    "tag that would run": ("suite: !!python/object/apply:os.system [ls]", "suite: good", 1, "plain values only"),
    "no YAML": ("suite: [", "suite: good", None, "no YAML"),
    "a key that is no word": ("{a: b}: x\nsuite: good", "suite: good", 1, "a key must be a word"),
    "huge number": (f"directions: {'9' * 5000}", "directions: 3", 8, "is no int"),
}
WHOLE = {
    "empty": (b"", "is empty"),
    "comments only": (b"# nothing\n", "is empty"),
    "a list": (b"- suite\n", ":1: a suite is a mapping"),
    "a text": (b"suite", ":1: a suite is a mapping"),
    "two documents": (b"suite: a\n---\nsuite: b\n", "no YAML"),
    "alias bomb": (bomb().encode(), "use fewer anchors and aliases"),
    "anchor in itself": (b"suite: &a [*a]\n", "use fewer anchors and aliases"),
    "deep": (b"[" * 50_000, "nested too deeply"),
    "huge": (b"# " + b"x" * 200_000, "larger than 100 kB"),
    "no UTF-8": (b"suite: good\nmodels: \xff\xfe\n", ":2: no UTF-8"),
    "control characters": (b"suite: a\x07b\n", "no YAML"),
    "unknown alias": (b"suite: *nowhere\n", ":1: no YAML"),
}


def refused(tmp_path: Path, raw: bytes, capsys, words: tuple[str, ...]) -> str:
    file = tmp_path / "suite.yaml"
    file.write_bytes(raw)
    assert cli.main([*words, str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["suite.yaml"], "something was started"
    return printed.err


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_suite_they_are_made_from_is_right(tmp_path):
    (tmp_path / "suite.yaml").write_text(GOOD)
    loaded = load_suite(tmp_path / "suite.yaml")
    assert len(loaded.missing) == 4  # its models and datasets do not exist, which is no fault of the suite


@pytest.mark.parametrize("name", BAD)
def test_bad_suite(name, tmp_path, capsys):
    new, old, line, words = BAD[name]
    assert GOOD.count(old) >= 1
    message = refused(tmp_path, GOOD.replace(old, new, 1).encode(), capsys, ("validate", "--static"))
    assert words in message
    assert "suite.yaml:" in message
    if line is not None:
        assert any(f"suite.yaml:{line}: " in one and words in one for one in message.splitlines()), message


@pytest.mark.parametrize("name", WHOLE)
def test_bad_file(name, tmp_path, capsys):
    raw, words = WHOLE[name]
    assert words in refused(tmp_path, raw, capsys, ("validate", "--static"))


@pytest.mark.parametrize("name", ["unknown key", "code without permission", "missing file", "unknown dataset"])
def test_run_starts_nothing_either(name, tmp_path, capsys):
    new, old, _, words = BAD[name]
    assert words in refused(tmp_path, GOOD.replace(old, new, 1).encode(), capsys, ("run", "--output", "out"))


def test_all_faults_at_once_in_the_order_of_the_file(tmp_path, capsys):
    wrong = GOOD.replace("directions: 3", "direction: 3, kernel: rfb").replace("model: two", "model: tow")
    wrong = wrong.replace("[cka_linear]", "[cka_liner]").replace("[none, centred]", "[none, centered]")
    message = refused(tmp_path, wrong.encode(), capsys, ("validate", "--static"))
    lines = [int(line.split("suite.yaml:")[1].split(":")[0]) for line in message.splitlines()]
    assert lines == [8, 8, 9, 12, 13, 15, 17]  # 12: centred is used nowhere now


@pytest.mark.parametrize(
    ("metric", "old", "new", "why"),
    [
        ("gap_rmg", "on: [pairs]}\nalign", "on: [pairs], interval: false}\nalign", "gap.interval is false: say true"),
        ("gap_centroid_gap_sq_unbiased", "", "", "gap_centroid_gap_sq_unbiased_paired"),
        ("sim_image_cka_linear_p_value", "[cka_linear]", "[cka_linear], permutations: 9", "ask for the similarity"),
    ],
)
def test_a_gate_needs_an_interval(metric, old, new, why, tmp_path, capsys):
    suite = GOOD.replace("text_retrieval_recall@5", metric).replace(old, new, 1)
    message = refused(tmp_path, suite.encode(), capsys, ("validate", "--static"))
    assert f"no gate can be judged by {metric}: " in message
    assert why in message


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (
            "{metric: text_retrieval_recall@5, dataset: kinds, model: two, min: 0}",
            "text_retrieval_recall@5 of two on kinds",
        ),
        ("{metric: text_retrieval_recall@5, dataset: pairs, model: two, task: nope, min: 0}", "task nope"),
        ("{metric: text_retrieval_recall@5, dataset: pairs, model: two, against: one, min: 0}", "against one"),
        (
            "{metric: sim_image_cka_linear, dataset: pairs, model: one, against: two, min: 0}",
            "measured of two against one",
        ),
        ("{metric: gap_rmg, dataset: kinds, model: two, max: 1}", "it is measured of one on pairs, two on pairs"),
    ],
)
def test_a_gate_on_what_no_step_measures(gate, said, tmp_path, capsys):
    old = "{metric: text_retrieval_recall@5, dataset: pairs, model: two, against: one, max_drop: 0.01}"
    assert GOOD.count(old) == 1
    for words in (("validate", "--static"), ("run", "--output", "out")):
        message = refused(tmp_path, GOOD.replace(old, gate).encode(), capsys, words)
        assert "suite.yaml:15: gates[0]: nothing in this suite measures " in message
        assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def load(checkpoint, device): ...", "unknown function in {home}/loader.py 'laod': did you mean 'load'?"),
        ("import nothing_of_this_name", "fails: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise SystemExit(0)", "fails: SystemExit: 0"),
    ],
)
def test_a_loader_that_is_not_there_is_found_before_a_run(content, said, tmp_path, capsys):
    (tmp_path / "loader.py").write_text(content)
    (tmp_path / "suite.yaml").write_text(GOOD.replace("local-dir:one", "py:loader.py:laod", 1))
    assert cli.main(["validate", "--allow-code", "suite.yaml"]) == 2
    message = capsys.readouterr().err
    assert said.format(home=tmp_path) in message
    assert "suite.yaml:3: models.one: " in message


@pytest.mark.parametrize(("key", "split"), [("train_split", "test"), ("split", "train")])
def test_a_probe_is_not_trained_on_what_it_is_judged_on(key, split, tmp_path, capsys):
    suite = GOOD.replace("tasks: [zeroshot_retrieval]", "tasks: [zeroshot_retrieval, linear_probe]")
    (tmp_path / "suite.yaml").write_text(suite)
    assert cli.main(["validate", "--static", "suite.yaml"]) == 0
    capsys.readouterr()
    suite = suite.replace("task: zeroshot_classification}", f"task: zeroshot_classification, {key}: {split}}}")
    message = refused(tmp_path, suite.encode(), capsys, ("validate", "--static"))
    assert f"suite.yaml:7: datasets.kinds.train_split: linear_probe would be trained on {split}" in message


@pytest.mark.parametrize("model", ["py:loader.py:load", "ViT-B-32"])
def test_a_checkpoint_that_is_not_there_is_named_before_a_run(model, tmp_path, capsys):
    text = GOOD.replace('"local-dir:one"', f'"{model}", pretrained: weights.pt', 1)
    (tmp_path / "suite.yaml").write_text(text)
    assert cli.main(["validate", "--static", "--allow-code", "suite.yaml"]) == 0
    assert f"suite.yaml:3: models.one.pretrained: there is no file {tmp_path}/weights.pt" in capsys.readouterr().out
    (tmp_path / "suite.yaml").write_text(text.replace("weights.pt", "s3://bucket/weights.pt"))
    assert cli.main(["validate", "--static", "--allow-code", "suite.yaml"]) == 0
    assert "weights.pt" not in capsys.readouterr().out
    (tmp_path / "suite.yaml").write_text(text)
    (tmp_path / "weights.pt").touch()
    assert cli.main(["validate", "--static", "--allow-code", "suite.yaml"]) == 0
    assert "weights.pt" not in capsys.readouterr().out


def test_a_folder_and_a_file_that_is_not_there(tmp_path, capsys):
    assert cli.main(["validate", "--static", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert cli.main(["validate", "--static", "nope.yaml"]) == 2
    assert "nope.yaml cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1e-3", 0.001), ("0.5", 0.5), ("0", 0.0), (".5", 0.5)],
)
def test_numbers_as_people_write_them(written, meant, tmp_path):
    (tmp_path / "suite.yaml").write_text(GOOD.replace("max_drop: 0.01", f"max_drop: {written}"))
    assert load_suite(tmp_path / "suite.yaml").suite.gates[0].max_drop == meant


def test_words_that_yaml_1_1_takes_for_truth_are_names(tmp_path):
    text = GOOD.replace("  one:", "  no:").replace("against: one", "against: no") + "language: no\n"
    (tmp_path / "suite.yaml").write_text(text)
    loaded = load_suite(tmp_path / "suite.yaml").suite
    assert list(loaded.models) == ["no", "two"]
    assert loaded.language == "no"


def test_unicode_names_are_names(tmp_path):
    (tmp_path / "suite.yaml").write_text(
        GOOD.replace("one:", "größe:").replace("against: one", "against: größe"), encoding="utf-8"
    )
    assert "größe" in load_suite(tmp_path / "suite.yaml").suite.models


def test_an_alias_is_the_value_it_names(tmp_path):
    text = GOOD.replace("on: [pairs], directions", "on: &here [pairs], directions").replace(
        "gap: {on: [pairs]", "gap: {on: *here"
    )
    (tmp_path / "suite.yaml").write_text(text)
    assert load_suite(tmp_path / "suite.yaml").suite.gap.on == ["pairs"]
