"""koda_modality_gap, koda_gap_robustness and koda_similarity: in the unmodified runner, and against plain numpy."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import clip_benchmark.cli as host
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from koda_audit import Embeddings
from koda_audit._gap.projection import gap_plane
from koda_audit._gap.table import METRICS as GAP
from koda_audit._gap.table import VARIANTS
from koda_audit.errors import InputError
from koda_audit.host.extension import extend
from koda_audit.metrics import METRICS, described
from koda_audit.tasks import gap, gap_robustness, similarity
from koda_audit.tasks.gap_report import gap_projection
from koda_audit.tasks.gap_robustness_report import robustness_curve
from koda_audit.tasks.protocol import Inputs, Outcome, Task, check_task
from koda_audit.tasks.similarity_report import similarity_map

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*shardshuffle.*"),
    pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parents[1]
MAIN = "import sys; from clip_benchmark.cli import main; sys.exit(main())"
MODALITIES = ("image", "text", "joint")
MEASURES = ("cka_linear", "cka_linear_debiased", "procrustes", "cka_rbf", "rsa", "mutual_knn", "cknna")
DECISIONS = {"gap_prediction_gini", "gap_prediction_entropy", "gap_label_gini", "gap_class_bias_spread"}
ROBUSTNESS = {key for key in METRICS if key.startswith("gaprob_")}
RANDOM = np.random.default_rng(0)
N = 30
IMAGE, TEXT, CLASSES = RANDOM.normal(size=(N, 5)) + 1, RANDOM.normal(size=(N, 5)) - 1, RANDOM.normal(size=(4, 5)) - 1
LABELS = np.arange(N) % 4
NAMES = ["ant", "bee", "cat", "dog"]
CAPTIONS = Embeddings(IMAGE, TEXT, captions=[f"caption {row}" for row in range(N)])
CLASSIFIED = Embeddings(IMAGE, labels=LABELS, class_text=CLASSES, class_names=NAMES)


def arguments(task: str, root: Path, folder: Path, *models: Path) -> list[str]:
    return [
        *("eval", "--task", task, "--dataset", "wds/any", "--dataset_root", str(root), "--num_workers", "0"),
        *("--koda_store", str(folder / "store"), "--output", str(folder / "out" / "{model}.json")),
        *("--pretrained_model", *(f"local-dir:{model},x" for model in models)),
    ]


def ran(*words: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """What the unmodified runner wrote, and the folder beside it."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (output,) = (folder / "out").glob("*.json")
    dump = json.loads(output.read_text(), parse_constant=lambda name: pytest.fail(name))
    return dump, output.with_suffix("")


def check_artefacts(report: Path, tables: set[str], pictures: set[str]) -> None:
    assert {path.name for path in (report / "tables").iterdir()} == tables
    assert {path.name for path in (report / "figures").iterdir()} == pictures
    for name in pictures:
        with Image.open(report / "figures" / name) as picture:
            assert picture.width == 1350
        assert f"figures/{name}" in (report / "report.md").read_text()


def test_the_gap_in_the_runner(classes_wds: Path, tiny_clip: Path, tmp_path: Path) -> None:
    dump, report = ran(*arguments("koda_modality_gap", classes_wds, tmp_path, tiny_clip), folder=tmp_path)
    assert dump["reference"] is None
    assert set(dump["metrics"]) == {f"gap_{key}" for key in GAP} | DECISIONS
    assert all(described(key) for key in dump["metrics"])
    assert dump["metrics"]["gap_linear_sep"] is None
    assert 0 < dump["metrics"]["gap_centroid_gap"] < 2
    check_artefacts(report, {"gap.csv", "gap_by_class.csv"}, {"gap.png"})
    table = pd.read_csv(report / "tables" / "gap.csv", index_col="metric")
    assert list(table.columns) == ["value", "low", "high", "null", "definition"]
    assert table.loc["centroid_gap", "low"] < table.loc["centroid_gap", "high"]
    by_class = pd.read_csv(report / "tables" / "gap_by_class.csv")
    assert by_class["class"].tolist() == ["cat", "dog", "bird"]
    assert by_class["n"].sum() == 20


def test_robustness_in_the_runner(captions_wds: Path, tiny_clip: Path, tmp_path: Path) -> None:
    words = arguments("koda_gap_robustness", captions_wds, tmp_path, tiny_clip)
    words += ["--koda_gaprob_alphas", "0.5", "2", "--koda_gaprob_trials", "3", "--koda_gaprob_queries", "15"]
    dump, report = ran(*words, folder=tmp_path)
    assert set(dump["metrics"]) == ROBUSTNESS
    assert dump["metrics"]["gaprob_n_queries"] == dump["metrics"]["gaprob_n_gallery"] == 15
    check_artefacts(report, {"robustness.csv", "flips.csv"}, {"robustness.png"})
    assert pd.read_csv(report / "tables" / "robustness.csv")["alpha"].tolist() == [0, 0.5, 1, 2]


def test_similarity_in_the_runner(captions_wds: Path, tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path) -> None:
    words = [*arguments("koda_similarity", captions_wds, tmp_path, tiny_clip, tiny_clip_2), "--koda_floor", "batch"]
    dump, report = ran(*words, folder=tmp_path)
    assert dump["reference"] == f"local-dir:{tiny_clip},x"
    assert set(dump["metrics"]) == {
        f"sim_{modality}_{measure}{end}" for modality in MODALITIES for measure in MEASURES for end in ("", "_p_value")
    }
    assert all(isinstance(value, float) for value in dump["metrics"].values())
    assert all(described(key) for key in dump["metrics"])
    check_artefacts(report, {"similarity.csv"}, {"similarity.png"})
    table = pd.read_csv(report / "tables" / "similarity.csv")
    assert table["p_value"].between(1 / 21, 1).all()
    np.testing.assert_allclose(table["itself"], 1, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        (
            "koda_modality_gap",
            ["--koda_gap_pairwise_rows", "3"],
            "--koda_gap_pairwise_rows: expected .* 4",
        ),
        ("koda_gap_robustness", ["--koda_gaprob_noise", "gausian"], "did you mean 'gaussian'"),
        ("koda_gap_robustness", ["--koda_gaprob_noise", "perturbed"], "choose one of gaussian, quantise"),
        ("koda_gap_robustness", ["--koda_gaprob_metric", "cosin"], "did you mean 'cosine'"),
        (
            "koda_gap_robustness",
            ["--koda_gaprob_total_var", "-1"],
            "--koda_gaprob_total_var: expected .* 0",
        ),
        ("koda_gap_robustness", ["--koda_gaprob_bins", "1"], "--koda_gaprob_bins: expected .* 2"),
        (
            "koda_gap_robustness",
            ["--koda_gaprob_noise", "quantise", "--koda_gaprob_bins", "9" * 23],
            "--koda_gaprob_bins: ",
        ),
        (
            "koda_gap_robustness",
            ["--koda_gaprob_trials", "0"],
            "--koda_gaprob_trials: expected .* 1",
        ),
        ("koda_gap_robustness", ["--koda_gaprob_alphas", "nan"], "--koda_gaprob_alphas: expected a finite number"),
        ("koda_gap_robustness", ["--koda_gaprob_rank", "1.5"], "--koda_gaprob_rank: "),
        (
            "koda_gap_robustness",
            ["--koda_gaprob_queries", "0"],
            "--koda_gaprob_queries: expected .* 1",
        ),
        ("koda_similarity", ["--koda_sim_measures", "cka_linaer"], "did you mean 'cka_linear'"),
        ("koda_similarity", ["--koda_sim_measures", "rsa", "rsa"], "rsa is listed twice"),
        (
            "koda_similarity",
            ["--koda_sim_permutations", "-1"],
            "--koda_sim_permutations: expected .* 0",
        ),
    ],
)
def test_bad_options_are_one_sentence_before_any_work(
    task: str, words: list[str], message: str, captions_wds: Path, tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    extend(host)
    whole = ["clip_benchmark", *arguments(task, captions_wds, tmp_path, tiny_clip, tiny_clip_2), *words]
    monkeypatch.setattr(sys, "argv", whole)
    monkeypatch.setattr("koda_audit.host.runner._dataset", lambda *_: pytest.fail("the dataset was loaded"))
    with pytest.raises(SystemExit) as stopped:
        host.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("koda_audit: error: ")
    assert re.search(message, line)


def outcome(
    task: Task, target: Embeddings, reference: Embeddings | None = None, seed: int = 0, **chosen: Any
) -> Outcome:
    settings = task.Settings(**chosen)
    check_task(task, settings, len(target))
    found = task.run(Inputs(target, reference, seed=seed, device="cpu"), settings)
    assert all(described(key) is not None for key in found.metrics)
    assert set(found.metrics) <= set(task.metrics(settings))
    return found


def units(values: Any) -> Any:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_every_metric_is_described_once() -> None:
    assert {f"gap_{key}" for key in {**GAP, **VARIANTS}} | DECISIONS == {key for key in METRICS if key[:4] == "gap_"}
    assert all(metric.key == key and metric.meaning for key, metric in METRICS.items())
    assert not {f"gap_{key}" for key in GAP} & DECISIONS
    for modality in MODALITIES:
        metric = described(f"sim_{modality}_mutual_knn")
        assert metric is not None
        assert metric.meaning.endswith(f"({modality})")
    assert described("sim_image_no_such_measure") is None
    assert described("no_such_metric") is None


def test_metrics_are_described_without_torch() -> None:
    code = "import sys, koda_audit.metrics as m; assert m.described('gap_rmg'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_the_gap_of_captions_and_of_classes() -> None:
    captions = outcome(gap.task, CAPTIONS, interval=False, variants=True)
    expected = np.linalg.norm(units(IMAGE).mean(axis=0) - units(TEXT).mean(axis=0))
    assert captions.metrics["gap_centroid_gap"] == pytest.approx(expected, abs=1e-6)
    assert set(captions.metrics) == {f"gap_{key}" for key in {**GAP, **VARIANTS}}
    assert list(captions.tables["tables/gap.csv"].columns) == ["metric", "value", "definition"]
    classes = outcome(gap.task, CLASSIFIED, interval=False)
    texts = units(CLASSES)[LABELS]
    expected = np.sqrt(((units(IMAGE) - texts) ** 2).sum(axis=1).mean())
    assert classes.metrics["gap_raw_gap_rms"] == pytest.approx(expected, abs=1e-6)
    counts = np.sort(np.bincount((units(IMAGE) @ units(CLASSES).T).argmax(axis=1), minlength=4))
    gini = 2 * (np.arange(1, 5) * counts).sum() / (4 * N) - 5 / 4
    assert classes.metrics["gap_prediction_gini"] == pytest.approx(gini)
    by_class = classes.tables["tables/gap_by_class.csv"].set_index("class")
    members = LABELS == 2
    expected = np.sqrt(((units(IMAGE) - texts)[members] ** 2).sum(axis=1).mean())
    assert by_class.loc["cat", "raw_gap_rms"] == pytest.approx(expected, abs=1e-6)


def test_images_of_several_classes_have_a_gap_without_pairs() -> None:
    several = Embeddings(IMAGE, labels=np.eye(4, dtype=int)[LABELS], class_text=CLASSES)
    found = outcome(gap.task, several, interval=False)
    assert not found.settings["paired"]
    assert found.metrics["gap_raw_gap_rms"] is None
    assert found.metrics["gap_prediction_gini"] is not None
    found = outcome(gap_robustness.task, several)
    assert "gaprob_clean_accuracy" not in found.metrics


@pytest.mark.parametrize("task", [gap.task, gap_robustness.task])
def test_images_alone_have_no_gap(task: Any) -> None:
    with pytest.raises(InputError, match="neither captions nor classes"):
        outcome(task, Embeddings(IMAGE))


def test_towers_of_unlike_width_have_numbers_and_no_picture() -> None:
    found = outcome(gap.task, Embeddings(IMAGE, TEXT[:, :3]), interval=False)
    assert found.metrics["gap_centroid_gap"] is None
    assert found.metrics["gap_effective_dim_text"] > 1
    assert not found.sections[0].pictures


def test_robustness_of_classes_is_about_their_prompts() -> None:
    found = outcome(gap_robustness.task, CLASSIFIED, trials=2)
    distances = ((units(IMAGE)[:, None] - units(CLASSES)) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=1) == LABELS).mean()
    assert found.metrics["gaprob_clean_accuracy"] == pytest.approx(accuracy)
    assert found.metrics["gaprob_clean_kept"] == 1
    assert found.metrics["gaprob_n_gallery"] == 4
    assert found.settings["gallery"] == "class prompts"
    flips = found.tables["tables/flips.csv"]
    assert set(flips["clean"]) | set(flips["noisy"]) <= set(NAMES)
    assert (flips["clean"] != flips["noisy"]).all()
    frame = found.tables["tables/robustness.csv"].set_index("alpha")
    assert flips["count"].sum() == pytest.approx(2 * N * (1 - frame.loc[0, "agreement"]))
    assert found.metrics["gaprob_agreement_closed"] == frame.loc[1, "agreement"]
    assert frame.loc[found.metrics["gaprob_best_alpha"], "agreement"] == frame["agreement"].max()


def test_equal_captions_are_all_right_answers() -> None:
    twice = Embeddings(IMAGE, np.repeat(TEXT[:15], 2, axis=0), captions=[f"caption {row // 2}" for row in range(N)])
    found = outcome(gap_robustness.task, twice, noise="quantise")
    nearest = (units(IMAGE) @ units(np.repeat(TEXT[:15], 2, axis=0)).T).argmax(axis=1)
    assert found.metrics["gaprob_clean_accuracy"] == pytest.approx((nearest // 2 == np.arange(N) // 2).mean())
    assert found.metrics["gaprob_agreement_se"] is None  # one trial


def test_large_sets_are_drawn_with_the_seed() -> None:
    first, same, other = (outcome(gap_robustness.task, CAPTIONS, queries=10, seed=seed).metrics for seed in (1, 1, 2))
    assert first == same != other
    assert first["gaprob_n_queries"] == first["gaprob_n_gallery"] == 10
    drawn = outcome(gap_robustness.task, CLASSIFIED, queries=10).metrics
    assert (drawn["gaprob_n_queries"], drawn["gaprob_n_gallery"]) == (10, 4)


def cka(x: Any, y: Any) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def test_similarity_of_each_modality_and_of_both() -> None:
    other = Embeddings(TEXT, IMAGE**3)
    found = outcome(similarity.task, CAPTIONS, other, measures=["cka_linear"], interval=True)
    ours, theirs = ([units(np.float32(part)) for part in parts] for parts in ((IMAGE, TEXT), (TEXT, IMAGE**3)))
    assert found.metrics["sim_image_cka_linear"] == pytest.approx(cka(ours[0], theirs[0]), abs=1e-5)
    assert found.metrics["sim_text_cka_linear"] == pytest.approx(cka(ours[1], theirs[1]), abs=1e-5)
    assert found.metrics["sim_joint_cka_linear"] == pytest.approx(cka(np.hstack(ours), np.hstack(theirs)), abs=1e-5)
    table = found.tables["tables/similarity.csv"]
    assert (table["low"] < table["high"]).all()
    assert "itself" not in table


@pytest.mark.parametrize(
    "alone",
    [
        Embeddings(IMAGE),
        Embeddings(IMAGE, labels=np.zeros(N, dtype=int), class_text=CLASSES[:1]),
        Embeddings(IMAGE, labels=np.eye(4, dtype=int)[LABELS], class_text=CLASSES),
    ],
    ids=["no texts", "one class", "several classes an image"],
)
def test_similarity_of_images_alone(alone: Embeddings) -> None:
    found = outcome(similarity.task, alone, alone, permutations=0)
    assert set(found.metrics) == {f"sim_image_{measure}" for measure in MEASURES}
    assert "chance" not in found.sections[0].table


def test_similarity_needs_samples() -> None:
    with pytest.raises(InputError, match="at least 12 samples: 11 found"):
        check_task(similarity.task, similarity.task.Settings(), 11)


def test_the_plane_of_a_gap() -> None:
    plane = gap_plane(IMAGE, TEXT)
    assert plane is not None
    means = [side.mean(axis=0) for side in (plane.image, plane.text)]
    expected = np.linalg.norm(units(IMAGE).mean(axis=0) - units(TEXT).mean(axis=0))
    np.testing.assert_allclose(means, [[expected / 2, 0], [-expected / 2, 0]], atol=1e-12)
    # the second coordinate is the first principal component of what is left once the gap's direction is taken out
    rows = np.concatenate([units(side) - units(side).mean(axis=0) for side in (IMAGE, TEXT)])
    along = units((units(IMAGE).mean(axis=0) - units(TEXT).mean(axis=0))[None])[0]
    left = rows - np.outer(rows @ along, along)
    size = np.linalg.svd(left, compute_uv=False)[0]
    across = np.concatenate([plane.image, plane.text])[:, 1]
    assert np.linalg.norm(across) == pytest.approx(size)
    np.testing.assert_allclose(plane.share, [((rows @ along) ** 2).sum() / (rows**2).sum(), size**2 / (rows**2).sum()])
    assert gap_plane(IMAGE, IMAGE) is None
    assert gap_plane(IMAGE, TEXT[:, :3]) is None


def test_pictures_of_any_size_and_name() -> None:
    plane = gap_plane(np.tile(IMAGE, (100, 1)), TEXT)
    frame = outcome(gap_robustness.task, CLASSIFIED, trials=1).tables["tables/robustness.csv"]
    table = outcome(similarity.task, CAPTIONS, CAPTIONS).tables["tables/similarity.csv"]
    name = "$x_1$ " * 40
    drawn = (
        lambda: gap_projection(plane, name, 0),
        lambda: robustness_curve(frame, name, "some noise"),
        lambda: robustness_curve(frame[["alpha", "agreement", "agreement_se"]], name, "some noise"),
        lambda: similarity_map(table, name, name),
        lambda: similarity_map(table[:1].assign(value=-0.2, null_mean=np.nan), name, "b"),
    )
    for draw in drawn:
        png = draw()
        assert png == draw()
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.width == 1350
