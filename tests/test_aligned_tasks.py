"""The koda_aligned tasks, aligned models in the host's own tasks, and `koda-audit align`, on a small trained model."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import clip_benchmark.cli as host
import numpy as np
import pytest
import torch

from koda_audit import Embeddings, cli, fit_alignment, load_alignment
from koda_audit.demo.digits import COLOURS, DIGITS, draw
from koda_audit.demo.models import write_models
from koda_audit.errors import InputError, KodaAuditWarning
from koda_audit.host.aligned_model import AlignedModel, load_aligned
from koda_audit.host.extension import extend
from koda_audit.metrics import METRICS

pytestmark = [  # all are the host's
    pytest.mark.filterwarnings("ignore:.*shardshuffle.*"),
    pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true"),
]
CLASSES = [f"{ink} {digit}" for ink in COLOURS for digit in DIGITS]
KINDS = {"captions": "retrieval", "classes": "classification", "labels": "multilabel"}
HOST = {"captions": "zeroshot_retrieval", "classes": "zeroshot_classification", "labels": "zeroshot_classification"}
OURS = {
    "captions": "koda_aligned_retrieval",
    "classes": "koda_aligned_classification",
    "labels": "koda_aligned_classification",
}
ALIGNED = ["--koda_alignment", "center_renorm"]


def write_data(folder: Path, kind: str, templates: str, samples: dict[str, int]) -> Path:
    """Drawn digits: two captions for every other image, the class of ink and digit, or digit and ink as two labels."""
    for split, count in samples.items():
        (folder / split).mkdir(parents=True)
        (folder / split / "nshards.txt").write_text("1")
        with tarfile.open(folder / split / "0.tar", "w") as archive:
            for row, drawn in enumerate(draw(split)[:count]):
                picture, flags = io.BytesIO(), io.BytesIO()
                drawn.image.save(picture, "PNG")
                ink = list(COLOURS).index(drawn.ink)
                np.save(flags, np.isin(np.arange(18), [drawn.digit, 10 + ink]).astype(np.int64))
                captions = [drawn.caption, f"{drawn.ink} {DIGITS[drawn.digit]}"][: 1 + row % 2]
                text = {"txt": "\n".join(captions), "cls": str(10 * ink + drawn.digit)}
                ending = {"captions": "txt", "classes": "cls", "labels": "npy"}[kind]
                parts = {
                    "png": picture.getvalue(),
                    ending: text[ending].encode() if ending in text else flags.getvalue(),
                }
                for name, content in parts.items():
                    member = tarfile.TarInfo(f"{drawn.key}.{name}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    (folder / "dataset_type.txt").write_text(KINDS[kind])
    (folder / "classnames.txt").write_text("\n".join([*DIGITS, *COLOURS] if kind == "labels" else CLASSES) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text(templates)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Several templates for the comparison with the host; one for that of aligned models."""
    home = tmp_path_factory.mktemp("data")
    several, one = "a photo of a {c}\na {c}\n", "a photo of a {c}\n"
    sets = {kind: write_data(home / kind, kind, several, {"test": 120, "train": 90}) for kind in KINDS}
    return {**sets, "one prompt": write_data(home / "one", "classes", one, {"test": 120, "train": 90})}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def evaluate(models, data, store, tmp_path, monkeypatch):
    """A function that runs a task in the extended host and gives back what it dumps."""
    extend(host)

    def run(task: str, kind: str, *more: object, model: object = None) -> dict[str, Any]:
        output = tmp_path / "out" / f"{task}.json"
        output.unlink(missing_ok=True)
        named = model or ["--pretrained_model", f"local-dir:{models['broken']},x"]
        ours = ["--koda_store", store] if task.startswith("koda") else []
        words = ["eval", "--task", task, *named, *common(data[kind]), "--output", output, *ours, *more]
        monkeypatch.setattr(sys, "argv", ["clip_benchmark", *map(str, words)])
        output.parent.mkdir(exist_ok=True)
        host.main()
        dump: dict[str, Any] = json.loads(output.read_text())
        return dump

    return run


def common(folder: Path) -> list[object]:
    named = ["--dataset", "wds/any", "--dataset_root", folder, "--num_workers", 0, "--batch_size", 32]
    return [*named, "--no_amp", "--quiet", "--recall_k", 1, 5, 10]


@pytest.fixture
def refused(evaluate, capsys):
    """A function that runs a task which must fail in one sentence."""

    def run(message: str, *arguments: object, **more: object) -> None:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            evaluate(*arguments, **more)
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("koda_audit: error: ")]
        assert len(lines) == 1
        assert re.search(message, lines[0]), lines[0]

    return run


@pytest.fixture(scope="module")
def saved(models, data, store, tmp_path_factory) -> dict[str, Path]:
    """Alignments fitted on the train splits from the command line."""
    home = tmp_path_factory.mktemp("saved")
    for name, kind, method, settings in (
        ("captions", "captions", "ridge", ["lam=0.1"]),
        ("one prompt", "one prompt", "center_renorm", []),
        ("identity", "captions", "identity", []),
    ):
        words = ["align", method, "--model", f"local-dir:{models['broken']}", "--output", home / name]
        words += ["--dataset", "wds/any", "--dataset_root", data[kind], "--koda_store", store, "--num_workers", 0]
        words += ["--quiet", *(word for setting in settings for word in ("--set", setting))]
        assert cli.main(list(map(str, words))) == 0
    return {name: home / name for name in ("captions", "one prompt", "identity")}


@pytest.fixture(scope="module")
def hosts(models, data, tmp_path_factory) -> dict[str, dict[str, float]]:
    """The numbers of the unmodified host, without our hook, in a process of its own."""
    home, model = tmp_path_factory.mktemp("host"), ["--pretrained_model", f"local-dir:{models['broken']},x"]
    calls = [
        ["clip_benchmark", "eval", "--task", HOST[kind], *model, *common(data[kind]), "--output", home / f"{kind}.json"]
        for kind in KINDS
    ]
    code = "import json, sys; from clip_benchmark.cli import main\nfor sys.argv in json.loads(sys.argv[1]): main()"
    words = json.dumps([list(map(str, call)) for call in calls])
    env = {**os.environ, "KODA_AUDIT_AUTOLOAD": "0"}
    subprocess.run([sys.executable, "-c", code, words], check=True, env=env, capture_output=True)
    return {kind: json.loads((home / f"{kind}.json").read_text())["metrics"] for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_identity_gives_the_numbers_of_the_unmodified_host(kind, hosts, evaluate):
    dump = evaluate(OURS[kind], kind, "--koda_alignment", "identity")
    expected = hosts[kind]
    assert (
        set(expected)
        == {
            "captions": {f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10)},
            "classes": {"acc1", "acc5", "mean_per_class_recall"},
            "labels": {"mean_average_precision"},
        }[kind]
    )
    for name, value in expected.items():
        assert 0.1 < value < 0.99
        assert dump["metrics"][f"aligned_{name}"] == pytest.approx(value, abs=1e-6)
        assert dump["metrics"][f"aligned_{name}_before"] == pytest.approx(value, abs=1e-6)
        assert dump["metrics"][f"aligned_{name}_change"] == 0
    assert dump["alignment"] == "identity"
    assert set(dump["metrics"]) <= set(METRICS)


@pytest.mark.parametrize(
    ("kind", "name"), [("captions", "captions"), ("one prompt", "one prompt"), ("captions", "identity")]
)
def test_an_aligned_model_gives_the_hosts_tasks_the_numbers_of_ours(kind, name, saved, models, evaluate):
    ours, theirs = (names[kind if kind in names else "classes"] for names in (OURS, HOST))
    expected = evaluate(ours, kind, "--koda_alignment", saved[name])["metrics"]
    model = ["--model_type", "koda_aligned", "--model", saved[name], "--pretrained", f"local-dir:{models['broken']}"]
    found = evaluate(theirs, kind, model=model)["metrics"]
    for metric, value in found.items():
        assert expected[f"aligned_{metric}"] == pytest.approx(value, abs=1e-6)
    changes = [expected[f"aligned_{metric}_change"] for metric in found]
    assert any(changes) == (name != "identity")


def test_what_is_reported(evaluate, tmp_path, monkeypatch):
    dump = evaluate("koda_aligned_classification", "classes", *ALIGNED, "--koda_fit_split", "train")
    metrics = dump["metrics"]
    assert dump["alignment"] == "center_renorm"
    assert set(metrics) <= set(METRICS)
    for name in ("acc1", "acc5"):
        change = metrics[f"aligned_{name}_change"]
        assert change == pytest.approx(metrics[f"aligned_{name}"] - metrics[f"aligned_{name}_before"], abs=1e-12)
        assert metrics[f"aligned_{name}_change_low"] < change < metrics[f"aligned_{name}_change_high"]
    assert metrics["aligned_acc1_change"] != 0
    assert metrics["aligned_changed_decisions"] >= abs(metrics["aligned_acc1_change"])
    assert metrics["aligned_centroid_gap"] < metrics["aligned_centroid_gap_before"] / 2
    for name in ("prediction_gini", "prediction_entropy", "class_bias_spread"):
        assert metrics[f"aligned_{name}_change"] != 0
    report = (tmp_path / "out" / "koda_aligned_classification" / "report.md").read_text()
    assert "`center_renorm` is Norm(x - mx), Norm(y - my), fitted on 90 samples of split train." in report
    results = json.loads((tmp_path / "out" / "koda_aligned_classification" / "results.json").read_text())
    assert {(row["alignment"], row["n"]) for row in results} == {("center_renorm", 120)}
    words = ["build", tmp_path / "out" / "koda_aligned_classification.json", "--output", tmp_path / "all.csv"]
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *map(str, words)])
    host.main()
    assert {"alignment", "aligned_acc1_change"} <= set((tmp_path / "all.csv").read_text().splitlines()[0].split(","))


def test_a_share_of_the_samples_is_fitted_on_and_the_others_are_evaluated(evaluate, tmp_path):
    share = ["--koda_fit_share", "0.25", "--seed", "3"]
    found = [
        evaluate("koda_aligned_retrieval", "captions", "--koda_alignment", name, *share)["metrics"]
        for name in ("identity", "zca")
    ]
    before = [{name: value for name, value in metrics.items() if name.endswith("_before")} for metrics in found]
    assert before[0] == before[1]  # a control on the very same samples
    assert found[0] != found[1]
    report = tmp_path / "out" / "koda_aligned_retrieval"
    assert {row["n"] for row in json.loads((report / "results.json").read_text())} == {90}
    assert "fitted on 30 of the samples, drawn with seed 3 and not evaluated" in (report / "report.md").read_text()


GALLERY = "this gallery alone"


@pytest.mark.parametrize(
    ("more", "alignment", "sentence"),
    [
        (["center", "--koda_transductive"], "center (transductive)", "need not hold on others"),
        (["orthogonal_translate"], "orthogonal_translate:alpha=1.0 (gallery-bound)", GALLERY),
        (["translate_gallery:gallery=image"], "translate_gallery (gallery-bound)", GALLERY),
        (
            ["mg_shift:lam=0.25,unit=unit", "--koda_fit_share", "0.5"],
            "mg_shift:lam=0.25,unit=unit",
            "drawn with seed 0",
        ),
    ],
)
def test_alignments_that_met_the_evaluated_samples_are_marked(more, alignment, sentence, evaluate, tmp_path):
    assert evaluate("koda_aligned_retrieval", "captions", "--koda_alignment", *more)["alignment"] == alignment
    assert sentence in (tmp_path / "out" / "koda_aligned_retrieval" / "report.md").read_text()


# what is refused


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "no alignment: name one with --koda_alignment"),
        (
            ["--koda_alignment", "center_renrom"],
            r"unknown alignment 'center_renrom': did you mean 'center_renorm' or .*\(or",
        ),
        (["--koda_alignment", "/nowhere"], "unknown alignment '/nowhere'"),
        (["--koda_alignment", "/"], "no alignment in /: alignment.json is missing"),
        (["--koda_alignment", "mg_shift:lamb=1"], "unknown parameter of 'mg_shift' 'lamb': did you mean 'lam'"),
        (["--koda_alignment", "mg_shift:gallery=image"], "unknown parameter of 'mg_shift' 'gallery'"),
        (["--koda_alignment", "mg_shift:lam"], "'lam' is no PARAMETER=VALUE"),
        (["--koda_alignment", "mg_shift:lam=half"], "lam is 'half': expected a number from"),
        (["--koda_alignment", "mg_shift:lam=NaN"], "lam is nan: expected a number from"),
        (["--koda_alignment", "mg_shift:lam=1e200"], "lam is 1e.200: expected a number from -1e.06"),
        (["--koda_alignment", "ridge:lam=-1"], "lam is -1: expected a number from 0"),
        (["--koda_alignment", "curriculum:alpha_target=2"], "alpha_target is 2: expected a number from 0 to 1"),
        (["--koda_alignment", "cca:k=0"], "k is 0: expected a whole number from 1"),
        (["--koda_alignment", "mg_shift:lam=1,lam=2"], "lam is given twice: give it once"),
        (["--koda_alignment", "center:"], "'' is no PARAMETER=VALUE: leave the colon out"),
        (["--koda_alignment", "curriculum:epochs=1,seed=1.5"], "seed is 1.5: expected a whole number"),
        (["--koda_alignment", "curriculum:checkpoints=5"], "checkpoints is 5: expected a text"),
        (["--koda_alignment", "zca:renormalise=no"], "renormalise is 'no': expected true or false"),
        (ALIGNED, "is fitted on other samples than are evaluated: name them with --koda_fit_split"),
        ([*ALIGNED, "--koda_fit_split", "test"], "--koda_fit_split test is the split that is evaluated"),
        ([*ALIGNED, "--koda_fit_split", "val"], "val"),
        ([*ALIGNED, "--koda_fit_share", "1.5"], "--koda_fit_share 1.5: expected more than 0 and less than 1"),
        ([*ALIGNED, "--koda_fit_share", "nan"], "--koda_fit_share nan: expected more than 0"),
        ([*ALIGNED, "--koda_fit_split", "train", "--koda_fit_share", "0.5"], "give one of them"),
        ([*ALIGNED, "--koda_fit_share", "0.5", "--koda_transductive"], "leave --koda_transductive out"),
        (["--koda_alignment", "identity", "--koda_fit_split", "train"], "leave --koda_fit_split out"),
        (["--koda_alignment", "ot", "--koda_transductive"], "leave --koda_transductive out"),
    ],
)
def test_bad_options_are_one_sentence_before_anything_is_loaded(more, message, refused, monkeypatch):
    monkeypatch.setattr("koda_audit.host.runner.load_dataset", lambda *_, **__: pytest.fail("a dataset was loaded"))
    refused(message, "koda_aligned_classification", "classes", *more)


def test_other_tasks_refuse_the_options_of_alignments(refused, models):
    pair = ["--pretrained_model", f"local-dir:{models['broken']},x", f"local-dir:{models['plain']},x"]
    message = "--koda_fit_share is for the tasks koda_aligned_…"
    refused(message, "koda_discrepancy", "captions", "--koda_fit_share", "0.5", model=pair)


def test_the_dataset_must_be_of_the_tasks_kind(refused):
    identity = ["--koda_alignment", "identity"]
    zero = [*identity, "--recall_k", "0"]
    refused("--recall_k: .* 1, found '0'", "koda_aligned_retrieval", "captions", *zero)
    refused("koda_aligned_retrieval needs a dataset with captions", "koda_aligned_retrieval", "classes", *identity)
    refused("needs a dataset with classes", "koda_aligned_classification", "captions", *identity)
    message = "'zca' is fitted on images with one text each, and these have several labels"
    refused(message, "koda_aligned_classification", "labels", "--koda_alignment", "zca", "--koda_fit_share", "0.5")


def test_samples_of_the_fit_are_refused(saved, refused):
    overlap = ["--koda_alignment", saved["captions"], "--split", "train"]
    refused("90 of 90 samples were used to fit 'ridge'", "koda_aligned_retrieval", "captions", *overlap)
    # the same pictures in another dataset: no fingerprint tells, their vectors do
    refused("90 of 90 samples", "koda_aligned_classification", "classes", *overlap)


def test_an_alignment_of_another_model_is_refused(saved, models, refused):
    plain = ["--pretrained_model", f"local-dir:{models['plain']},x"]
    message = "'ridge' was fitted on embeddings of broken, these are of plain: fit it on this model"
    refused(message, "koda_aligned_retrieval", "captions", "--koda_alignment", saved["captions"], model=plain)
    aligned = [
        "--model_type",
        "koda_aligned",
        "--model",
        saved["captions"],
        "--pretrained",
        f"local-dir:{models['plain']}",
    ]
    refused(
        "'ridge' was fitted on embeddings of broken, and .*plain has other weights",
        "zeroshot_retrieval",
        "captions",
        model=aligned,
    )


@pytest.fixture
def narrow(tmp_path) -> Path:
    """An alignment of 8 dimensions that does not say of which model."""
    vectors = np.random.default_rng(0).normal(size=(2, 20, 8))
    fit_alignment("center", Embeddings(*vectors)).save(tmp_path / "narrow")
    return tmp_path / "narrow"


def test_another_width_is_refused(narrow, refused):
    message = "vectors have width 64, 'center' was fitted on 8"
    refused(f"image {message}", "koda_aligned_retrieval", "captions", "--koda_alignment", narrow)
    with pytest.raises(InputError, match=message):
        AlignedModel(Given(), load_alignment(narrow)).encode_text(torch.ones(2, 64))


def test_an_alignment_that_names_no_model_is_worth_a_warning(narrow, models):
    with pytest.warns(KodaAuditWarning, match="does not say which model it was fitted on"):
        load_aligned(str(narrow), f"local-dir:{models['broken']}")


@pytest.mark.parametrize(
    ("folder", "base", "message"),
    [
        ("nowhere", "broken", "no alignment in .*nowhere: alignment.json is missing"),
        ("captions", "nowhere", "there is no folder .*nowhere"),
        ("bound", "broken", "'ot' is made from the rows it is applied to and has no map for others"),
    ],
)
def test_bad_aligned_models_are_one_sentence_before_any_is_loaded(
    folder, base, message, saved, models, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr("koda_audit.host.aligned_model.load_model", lambda *_: pytest.fail("a model was loaded"))
    fit_alignment("ot", Embeddings(*np.random.default_rng(0).normal(size=(2, 20, 8))), epsilon=0.5).save(
        tmp_path / "bound"
    )
    folders = {**saved, "bound": tmp_path / "bound", "nowhere": tmp_path / "nowhere"}
    named = ["--model", folders[folder], "--pretrained", f"local-dir:{models.get(base, '/nowhere')}"]
    refused(message, "zeroshot_retrieval", "captions", model=["--model_type", "koda_aligned", *named])


# the aligned model itself


class Given:
    """Gives back what it is asked to encode."""

    def encode_image(self, rows):
        return rows

    encode_text = encode_image


@pytest.mark.parametrize(
    ("name", "params"),
    [("identity", {}), ("center", {}), ("mg_shift", {}), ("realign", {}), ("cca", {"k": 5}), ("coral", {})],
)
def test_an_aligned_model_encodes_as_the_alignment_maps(name, params):
    random = np.random.default_rng(0)
    fit, test = (Embeddings(*random.normal(1, 1, size=(2, 20, 8)).astype(np.float32)) for _ in range(2))
    alignment = fit_alignment(name, fit, **params)
    model, out = AlignedModel(Given(), alignment), alignment.apply(test)
    for side in ("image", "text"):
        encode = getattr(model, f"encode_{side}")
        rows = torch.from_numpy(np.array(getattr(test, side)))
        expected = np.asarray(getattr(out, side))
        np.testing.assert_array_equal(encode(rows).numpy(), expected)
        units = encode(rows, normalize=True).norm(dim=1)
        torch.testing.assert_close(units, torch.ones_like(units))
        with torch.autocast("cpu"):  # the host's default
            np.testing.assert_array_equal(encode(rows).numpy(), expected)


def test_the_map_counts_in_the_weights(tmp_path):
    """The store's key is made of them: an alignment that is fitted again must not find embeddings of the former one."""
    fit = Embeddings(*np.random.default_rng(0).normal(1, 1, size=(2, 20, 8)))
    states = [
        AlignedModel(Given(), fit_alignment(name, fit)).state_dict() for name in ("center", "center_renorm", "identity")
    ]
    texts = [str({name: value.tolist() for name, value in state.items()}) for state in states]
    assert len(set(texts)) == 3


# koda-audit align


def test_align_prints_what_it_did(models, data, store, tmp_path, capsys):
    words = [
        "align",
        "mg_shift",
        "--model",
        f"local-dir:{models['broken']}",
        "--output",
        tmp_path / "a",
        "--set",
        "lam=0.25",
    ]
    words += ["--dataset", "wds/any", "--dataset_root", data["captions"], "--koda_store", store, "--num_workers", "0"]
    assert cli.main(list(map(str, [*words, "--split", "test", "--koda_fit_share", "0.5"]))) == 0
    printed = capsys.readouterr().out
    assert "mg_shift:lam=0.25,unit=raw" in printed
    assert "60 images and 60 texts of wds/any, test, a share of 0.5 drawn with seed 0" in printed
    assert printed.splitlines()[-1] == (
        "clip_benchmark eval --task zeroshot_retrieval --model_type koda_aligned "
        f"--model {tmp_path / 'a'} --pretrained local-dir:{models['broken']} "
        f"--dataset wds/any --dataset_root {data['captions']} --split ANOTHER --output aligned.json"
    )
    assert load_alignment(tmp_path / "a").params == {"lam": 0.25, "unit": "raw"}


def test_the_command_that_align_prints_runs_and_evaluates_what_was_saved(models, tmp_path, monkeypatch, capsys):
    """Of a plain folder, in a folder with the name of a method, with prompts of its own."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for drawn in draw(split)[:60]:
            folder = Path("a folder", split, DIGITS[drawn.digit])
            folder.mkdir(parents=True, exist_ok=True)
            drawn.image.save(folder / f"{drawn.key}.png")
    Path("templates.json").write_text(json.dumps({"folder/drawn": ["a {c}"]}))
    words = [
        "align",
        "center",
        "--model",
        f"local-dir:{models['colour']}",
        "--dataset",
        "folder/drawn",
        "--num_workers",
    ]
    words += ["0", "--dataset_root", "a folder", "--custom_template_file", "templates.json", "--koda_store", "store"]
    assert cli.main([*words, "--output", "identity"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[:2] == ["clip_benchmark", "eval"]
    assert command[command.index("--custom_template_file") + 1] == "templates.json"
    extend(host)
    monkeypatch.setattr(sys, "argv", [*command, "--num_workers", "0", "--quiet", "--koda_store", "store"])
    host.main()
    dump = json.loads(Path("aligned.json").read_text())
    assert dump["alignment"] == "center"
    assert dump["split"] == "test"


def test_what_align_fitted_on_a_share_is_evaluated_on_the_rest(models, data, store, tmp_path, evaluate, refused):
    words = ["align", "zca", "--model", f"local-dir:{models['broken']}", "--output", tmp_path / "a", "--split", "test"]
    words += ["--dataset", "wds/any", "--dataset_root", data["captions"], "--koda_store", store, "--num_workers", "0"]
    assert cli.main(list(map(str, [*words, "--koda_fit_share", "0.5", "--quiet"]))) == 0
    dumps = [
        evaluate("koda_aligned_retrieval", "captions", "--koda_alignment", name, "--koda_fit_share", "0.5")
        for name in (tmp_path / "a", "zca")
    ]
    assert dumps[0]["metrics"] == dumps[1]["metrics"]
    other = ["--koda_alignment", tmp_path / "a", "--koda_fit_share", "0.5", "--seed", "1"]
    refused(r"\d+ of 60 samples were used to fit 'zca'", "koda_aligned_retrieval", "captions", *other)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "lamb=1"], "unknown parameter of 'mg_shift' 'lamb'"),
        (["--set", "lam"], "'lam' is no PARAMETER=VALUE"),
        (["--model", "local-dir:/nowhere"], "there is no folder /nowhere"),
        (["--model", "ViT-B-32"], "without a pretrained tag"),
        (["--dataset", "cifar11"], "unknown dataset 'cifar11'"),
        (["--split", "val"], "val"),
        (["--output", "/proc/nowhere"], "--output /proc/nowhere cannot be written"),
        (["--koda_fit_share", "2"], "--koda_fit_share 2.0: expected more than 0"),
        (["--batch_size", "0"], "--batch_size 0: at least 1"),
    ],
)
def test_bad_options_of_align(more, message, models, data, store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("koda_audit.host.runner.load_dataset", lambda *_, **__: pytest.fail("a dataset was loaded"))
    words = ["align", "mg_shift", "--model", f"local-dir:{models['broken']}", "--output", tmp_path / "a"]
    words += ["--dataset", "wds/any", "--dataset_root", data["captions"], "--koda_store", store, *more]
    assert cli.main(list(map(str, words))) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "a" / "alignment.json").exists()


def test_fits_on_several_labels_are_refused_and_identity_needs_none():
    labels = np.eye(4, dtype=np.int64)[[0, 1, 2, 3, 0]]
    several = Embeddings(np.random.default_rng(0).normal(size=(5, 3)), labels=labels, class_text=np.ones((4, 3)))
    assert fit_alignment("identity", several).apply(several) is not several
    with pytest.raises(InputError, match="'center' is fitted on images with one text each"):
        fit_alignment("center", several)
