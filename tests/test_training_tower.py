"""Towers that are trained: what changes, what stays, and that the result is a model like any other."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import open_clip
import pytest
import torch
from clip_benchmark.models import load_clip
from conftest import write_tiny_clip, write_webdataset
from PIL import Image

from koda_audit.alignment import tower
from koda_audit.alignment.kernel_loss import anchor_loss, kernel_matrix, kernel_mse
from koda_audit.alignment.learners import CurriculumLearner, KernelGoal, KernelLearner
from koda_audit.alignment.plans import TowerPlan, kuea_paper
from koda_audit.alignment.tower import align_tower, curriculum_tower
from koda_audit.data.load import load_dataset
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError, KodaAuditError
from koda_audit.models import ModelSpec, load_model

N = 24
GOAL = KernelGoal(weight=500.0, rho_teacher=100.0)
PLAN = TowerPlan(epochs=4, batch=8, lr=1e-3, save_every=5, workers=0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    write_tiny_clip(folder / "student")
    write_tiny_clip(folder / "teacher", seed=1, mean=0.3)
    write_webdataset(folder / "data", n=N)
    return folder


@pytest.fixture(scope="module")
def store(home):
    return Store(home / "store")


@pytest.fixture(scope="module")
def dataset(home):
    return load_dataset("wds/data", str(home / "data"))


@pytest.fixture(scope="module")
def teacher(home):
    return load_model(spec(home / "teacher"))


def spec(folder):
    return ModelSpec(f"local-dir:{folder}")


def weights(folder):
    return load_model(spec(folder)).encoder.state_dict()


@pytest.fixture(scope="module")
def aligned(home, store, dataset, teacher):
    """A trained tower, and the figures of its training."""
    output = home / "aligned"
    return output, align_tower(spec(home / "student"), teacher, dataset, output, store, GOAL, PLAN)


def test_kernel_comes_closer(aligned, store, dataset, teacher, home):
    output, figures = aligned
    before, after, known = (
        torch.from_numpy(np.asarray(embed(model, dataset, store, workers=0).image))
        for model in (load_model(spec(home / "student")), load_model(spec(output)), teacher)
    )
    target = kernel_matrix(known, np.log(100.0))
    rhos = np.linspace(-4, 4, 61) * np.log(10)
    best = [min(kernel_mse(kernel_matrix(x, rho), target).item() for rho in rhos) for x in (before, after)]
    assert figures["kernel_loss_before"] == pytest.approx(best[0], rel=1e-3)
    assert figures["kernel_loss_after"] == pytest.approx(best[1], rel=1e-3)
    assert best[1] < best[0]
    drift = anchor_loss(after, before).item() / (before.double() ** 2).sum(dim=1).mean().item()
    assert figures["drift"] == pytest.approx(drift**0.5, rel=1e-3)


def test_only_the_visual_tower_changes(aligned, home):
    before, after = weights(home / "student"), weights(aligned[0])
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == (not name.startswith("visual.")), name


def test_unmodified_loaders_read_it(aligned):
    output, _ = aligned
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    ours = load_model(spec(output))
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{output}")
    host, host_preprocess, _ = load_clip("open_clip", f"local-dir:{output}", None, None, "cpu")
    with torch.no_grad():
        expected = ours.encoder.encode_image(ours.preprocess(picture)[None])
        assert torch.equal(plain.eval().encode_image(preprocess(picture)[None]), expected)
        assert torch.equal(host.eval().encode_image(host_preprocess(picture)[None]), expected)


def test_record_tells_where_it_comes_from(aligned, home, teacher):
    record = json.loads((aligned[0] / tower.RECORD).read_text())
    assert record["student"] == load_model(spec(home / "student")).identity["weights"]
    assert record["teacher"] == teacher.identity["weights"]
    assert record["goal"]["weight"] == 500.0
    assert record["figures"] == pytest.approx(aligned[1])
    assert record["history"][0]["anchor_loss"] < 1e-9
    assert str(home) not in (aligned[0] / tower.RECORD).read_text()


def test_without_weight_and_decay_nothing_moves(home, store, dataset, teacher):
    """With the anchor alone the gradient is what rounding leaves: features were embedded in other batches."""
    output = home / "still"
    plan = replace(PLAN, weight_decay=0.0, lr=1e-6)
    align_tower(spec(home / "student"), teacher, dataset, output, store, replace(GOAL, weight=0.0), plan)
    before, after = weights(home / "student"), weights(output)
    # Adam takes steps of lr whatever the size of a gradient
    assert max((after[name] - before[name]).abs().max().item() for name in before) <= 12 * 1.01e-6


def test_stored_features_are_those_of_a_frozen_copy(home, store, dataset, teacher):
    """The loss of a batch with stored features, and with both models run on that very batch."""
    student = load_model(spec(home / "student"))
    vectors = [embed(model, dataset, store, workers=0).image for model in (student, teacher)]
    learner = KernelLearner(tower.VisualTower(student.encoder), *vectors, GOAL)
    rows = torch.tensor([20, 3, 11, 7])
    pictures = [dataset.samples.read(row)[1] for row in rows.tolist()]
    inputs = torch.stack([student.preprocess(picture) for picture in pictures])
    with torch.no_grad():
        loss, figures = learner.step(0, rows, (inputs,))
        known = teacher.encoder.encode_image(torch.stack([teacher.preprocess(picture) for picture in pictures]))
        x = student.encoder.encode_image(inputs)
    expected = 500 * kernel_mse(kernel_matrix(x, learner.log_rho.item()), kernel_matrix(known, np.log(100.0)))
    assert figures["anchor_loss"].item() < 1e-10
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_interrupted_it_goes_on_to_the_same_weights(aligned, home, store, dataset, teacher, monkeypatch):
    output, step = home / "resumed", KernelLearner.step

    def stop(self, number, *rest):
        if number == 8:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    given = (spec(home / "student"), teacher, dataset, output, store, GOAL, PLAN)
    with monkeypatch.context() as patch:
        patch.setattr(KernelLearner, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            align_tower(*given)
    assert not (output / tower.WEIGHTS).exists()
    assert align_tower(*given) == aligned[1]
    assert (output / tower.WEIGHTS).read_bytes() == (aligned[0] / tower.WEIGHTS).read_bytes()
    with pytest.raises(InputError, match=r"another run \(other goal\)"):
        align_tower(*given[:5], replace(GOAL, degree=2), PLAN)
    with pytest.raises(InputError, match=r"another run \(other student\)"):
        align_tower(spec(home / "teacher"), *given[1:])


def test_a_loss_that_is_no_number_leaves_no_model(home, store, dataset, teacher):
    output = home / "diverged"
    with pytest.raises(KodaAuditError, match="training stops"):
        align_tower(spec(home / "student"), teacher, dataset, output, store, GOAL, replace(PLAN, lr=1e30))
    assert not (output / tower.WEIGHTS).exists()


def test_teacher_that_sees_all_images_alike(home, store, dataset, teacher):
    with pytest.raises(InputError, match="the teacher sees all images alike"):
        align_tower(spec(home / "student"), teacher, dataset, home / "none", store, KernelGoal(rho_teacher=1e-6), PLAN)
    assert not (home / "none").exists()


def test_students_that_cannot_be_written_again(home, store, dataset, teacher):
    with pytest.raises(InputError, match="towers are trained of open_clip models"):
        align_tower(ModelSpec("py:a:b"), teacher, dataset, home / "none", store)


# the curriculum


@pytest.fixture(scope="module")
def closed(home, store, dataset):
    """A function that trains the towers asked for, once, to their folder and figures."""

    @cache
    def closed(towers):
        output = home / towers
        return output, curriculum_tower(spec(home / "student"), dataset, output, store, 0.8, towers=towers, plan=PLAN)

    return closed


@pytest.mark.parametrize("towers", ["both", "visual"])
def test_curriculum_trains_the_towers_it_should(home, closed, towers):
    output, figures = closed(towers)
    assert 0 < figures["alpha"] <= 0.8
    before, after = weights(home / "student"), weights(output)
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any(name.startswith("visual.") for name in moved)
    assert "logit_scale" not in moved
    assert any(not name.startswith("visual.") for name in moved) == (towers == "both")
    history = json.loads((output / tower.RECORD).read_text())["history"]
    assert history[-1]["closing"] < history[0]["closing"]


def test_curriculum_interrupted_it_goes_on_to_the_same_weights(home, store, dataset, closed, monkeypatch):
    step = CurriculumLearner.step

    def stop(self, number, *rest):
        if number == 8:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    given = {"alpha_target": 0.8, "plan": PLAN}
    with monkeypatch.context() as patch:
        patch.setattr(CurriculumLearner, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            curriculum_tower(spec(home / "student"), dataset, home / "twice", store, **given)
    curriculum_tower(spec(home / "student"), dataset, home / "twice", store, **given)
    assert (home / "twice" / tower.WEIGHTS).read_bytes() == (closed("both")[0] / tower.WEIGHTS).read_bytes()


# the preset


@pytest.mark.parametrize(
    ("model", "weight", "batch", "epochs", "warmup"),
    [
        ("ViT-B-16", 0.5, 128, 2, 1400),
        ("ViT-L-14-quickgelu", 0.5, 64, 2, 2800),
        ("ViT-L-14-336", 1.0, 32, 4, 5600),
    ],
)
def test_preset(model, weight, batch, epochs, warmup):
    goal, plan = kuea_paper(model)
    assert (goal.weight, goal.pairs, goal.anchor_scale, goal.learn_rho, goal.degree) == (weight, "all", 1.0, False, 3)
    assert goal.rho == pytest.approx(0.0032 / 0.191623)
    assert goal.rho_teacher is None
    assert (plan.batch, plan.epochs, plan.warmup) == (batch, epochs, warmup)
    assert (plan.lr, plan.weight_decay) == (1e-5, 1e-4)


def test_preset_of_another_model():
    with pytest.raises(InputError, match="kuea-paper has no settings for 'RN50'"):
        kuea_paper("RN50")
