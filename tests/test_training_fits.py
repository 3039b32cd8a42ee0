"""Kernel alignment and the curriculum on stored embeddings."""

from __future__ import annotations

import json
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import torch

from koda_audit import Embeddings, find_discrepancies, fit_alignment, load_alignment
from koda_audit.alignment.adapters import KINDS, Adapter, Both
from koda_audit.alignment.curriculum import Phases
from koda_audit.alignment.driven import discrepancy_of, member_rows, split_members
from koda_audit.alignment.kernel_loss import anchor_loss, kernel_matrix, kernel_mse
from koda_audit.alignment.learners import CurriculumLearner, KernelGoal, KernelLearner
from koda_audit.alignment.maps import unit_rows
from koda_audit.alignment.trained import curriculum, kuea
from koda_audit.errors import InputError, KodaAuditError

N, D = 96, 8


def views(seed=0, n=N):
    """Student and teacher of coarse and fine groups: the student shows the fine ones faintly. And the coarse labels."""
    random = np.random.default_rng(seed)
    label = np.arange(n) % 3
    coarse, part = np.random.default_rng(99).normal(size=(2, 6, D // 2))
    detail = part[random.integers(0, 6, n)]
    student = np.hstack([3 * coarse[label], 0.5 * detail]) + 0.1 * random.normal(size=(n, D))
    teacher = np.hstack([coarse[label], 2 * detail]) + 0.1 * random.normal(size=(n, D))
    return student, teacher, label


def units(values):
    return unit_rows(torch.from_numpy(np.asarray(values, dtype=np.float64)))


def made(adapter, x):
    for step in adapter.steps():
        x = step(x)
    return x


def first_step(**goal):
    student, teacher, _ = views()
    image = units(student)
    adapter = Adapter(D, "linear", D, torch.Generator())
    learner = KernelLearner(adapter, image.numpy(), teacher, KernelGoal(**goal))
    rows = torch.arange(32)
    return learner, learner.step(0, rows, (image[rows],)), (image[rows], torch.from_numpy(teacher)[rows])


# adapters


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_starts_as_the_identity_and_becomes_the_same_steps(kind):
    adapter, x = Adapter(D, kind, 3, torch.Generator().manual_seed(0)), units(views()[0])
    assert torch.equal(adapter(x), x)
    assert torch.allclose(made(adapter, x), x, atol=1e-15)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(made(adapter, x), unit_rows(adapter(x).detach()), atol=1e-14)


# the loss of a batch


@pytest.mark.parametrize("scale", [1.0, "rms"])
@pytest.mark.parametrize("pairs", ["offdiag", "all"])
def test_loss_of_a_batch(scale, pairs):
    learner, _, (x, teacher) = first_step(weight=2.0, rho=3.0, rho_teacher=0.1, pairs=pairs, anchor_scale=scale)
    with torch.no_grad():
        learner.student.added += 0.01 * torch.ones(D, D)
    loss, figures = learner.step(0, torch.arange(32), (x,))
    moved = x + 0.01 * x.sum(dim=1, keepdim=True)
    size = np.mean(np.linalg.norm(views()[0] / np.linalg.norm(views()[0], axis=1, keepdims=True), axis=1) ** 2)
    kernel = kernel_mse(kernel_matrix(moved, np.log(3.0)), kernel_matrix(teacher, np.log(0.1)), pairs)
    anchor = anchor_loss(moved, x, size if scale == "rms" else 1.0)
    assert loss.item() == pytest.approx((2 * kernel + anchor).item())
    assert figures["drift"].item() == pytest.approx((((moved - x) ** 2).sum(dim=1).mean() / size).sqrt().item())


def test_first_step_is_driven_by_the_kernel_alone():
    _, (loss, figures), _ = first_step(weight=2.0)
    assert figures["anchor_loss"].item() == 0
    assert loss.item() == 2 * figures["kernel_loss"].item()


def test_without_weight_nothing_moves():
    student, teacher, _ = views()
    fitted = kuea(units(student), teacher, weight=0.0, epochs=3, batch=32)
    (step,) = fitted.first
    assert torch.equal(step.matrix, torch.eye(D, dtype=torch.float64))
    assert not step.offset.any()


@pytest.mark.parametrize("learn", [True, False])
def test_rho_moves_only_where_it_is_learnt(learn):
    student, teacher, _ = views()
    rho = kuea(units(student), teacher, rho=2.0, learn_rho=learn, epochs=2, batch=32).figures["rho"]
    assert (rho != pytest.approx(2.0, rel=1e-9)) == learn


# end to end


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_comes_closer_on_other_samples_and_classes_stay(kind):
    student, teacher, label = views()
    embeddings = Embeddings(student, labels=label)
    operator = fit_alignment("kuea", embeddings, teacher=teacher, kind=kind, rank=D, weight=20.0, epochs=60, batch=32)
    other, known, label = views(seed=1)
    aligned = np.asarray(operator.apply(Embeddings(other)).image)
    before, after = (_best(values, known) for values in (units(other).numpy(), aligned))
    assert after < 0.9 * before
    assert _knn(aligned, known) >= _knn(other, known)
    classes = [np.stack([side[label == c].mean(axis=0) for c in range(3)]) for side in (units(other).numpy(), aligned)]
    right = [np.mean((side @ classes[0].T).argmax(axis=1) == label) for side in (units(other).numpy(), aligned)]
    assert right[1] >= right[0] - 0.02
    assert operator.info["figures"]["kernel_loss_after"] < operator.info["figures"]["kernel_loss_before"]


def test_a_smaller_loss_bounds_the_drift():
    """With L falling, A is at most w times what L_k lost, whatever was trained."""
    student, teacher, _ = views()
    image = units(student)
    for weight in (0.5, 5.0):
        fitted = kuea(image, teacher, weight=weight, rho=3.0, epochs=30, batch=N, lr=1e-2)
        (step,) = fitted.first
        moved = image @ step.matrix + step.offset
        target = kernel_matrix(torch.from_numpy(teacher), np.log(1 / D))
        lost = [kernel_mse(kernel_matrix(x, np.log(3.0)), target).item() for x in (image, moved)]
        assert 0 < anchor_loss(moved, image).item() <= weight * (lost[0] - lost[1]) + 1e-12


def _best(x, teacher):
    target = kernel_matrix(torch.from_numpy(teacher), np.log(1 / D))
    rhos = np.linspace(-4, 4, 61) * np.log(10)
    return min(kernel_mse(kernel_matrix(torch.from_numpy(x), rho), target).item() for rho in rhos)


def _knn(x, y, k=10):
    """Mean share of neighbours that both have in common."""
    near = []
    for side in (x, y):
        unit = side / np.linalg.norm(side, axis=1, keepdims=True)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -2)
        near.append(np.argsort(-cosine, axis=1)[:, :k])
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])


# as an alignment


def test_no_text_and_no_label_reaches_the_loss():
    student, teacher, label = views()
    bare = fit_alignment("kuea", Embeddings(student), teacher=teacher, epochs=2)
    full = Embeddings(student, views(3)[0], labels=label, class_text=np.eye(3, D), class_names=list("abc"))
    assert torch.equal(
        bare.maps["image"][0].matrix, fit_alignment("kuea", full, teacher=teacher, epochs=2).maps["image"][0].matrix
    )
    assert bare.info["texts"] == 0
    assert bare.info["paired"] is False
    assert not {"text", "label", "labels", "captions"} & set(signature(kuea).parameters)


def test_a_teacher_in_another_order_is_sorted_by_its_ids():
    student, teacher, _ = views()
    ids = [f"s{i}" for i in range(N)]
    meta = {"model": "big", "ingredients": {"model": {"weights": "w9"}}}
    turned = Embeddings(teacher[::-1].copy(), ids=ids[::-1], meta=meta)
    embeddings = Embeddings(student, ids=ids)
    plain = fit_alignment("kuea", embeddings, teacher=teacher, epochs=2)
    sorted_ = fit_alignment("kuea", embeddings, teacher=turned, epochs=2)
    assert torch.equal(plain.maps["image"][0].matrix, sorted_.maps["image"][0].matrix)
    assert sorted_.params["teacher"]["model"] == "big"
    assert sorted_.params["teacher"]["model_hash"] == "w9"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["kuea", "curriculum"])
def test_saved_and_loaded_it_does_the_same(tmp_path, name, kind):
    student, teacher, _ = views()
    given = {"teacher": teacher} if name == "kuea" else {}
    operator = fit_alignment(name, Embeddings(student, teacher), kind=kind, epochs=2, **given)
    operator.save(tmp_path)
    other = Embeddings(*views(1)[:2])
    first, second = operator.apply(other), load_alignment(tmp_path).apply(other)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.text, second.text)
    assert load_alignment(tmp_path).info == operator.info
    assert json.loads((tmp_path / "alignment.json").read_text())["name"] == name


def test_an_adapter_that_adds_nothing_keeps_all_cosines():
    student, teacher, _ = views()
    embeddings = Embeddings(student, teacher)
    operator = fit_alignment("kuea", embeddings, teacher=teacher, weight=0.0, epochs=1, transductive=True)
    aligned = operator.apply(embeddings)
    cosine = lambda e: units(e.image) @ units(e.text).T  # noqa: E731
    assert torch.allclose(cosine(aligned), cosine(embeddings), atol=1e-14)


def test_resumed_from_checkpoints_it_is_the_same(tmp_path, monkeypatch):
    student, teacher, _ = views()
    image, given = units(student), {"epochs": 70, "batch": 32, "kind": "residual"}
    whole = kuea(image, teacher, **given)
    step = KernelLearner.step

    def stop(self, number, *rest):
        if number == 205:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(KernelLearner, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            kuea(image, teacher, checkpoints=tmp_path, **given)
    resumed = kuea(image, teacher, checkpoints=tmp_path, **given)
    assert all(
        torch.equal(getattr(whole.first[0], name), getattr(resumed.first[0], name)) for name in ("inner", "outer")
    )
    assert resumed.figures == whole.figures
    with pytest.raises(InputError, match=r"another run \(other rows\)"):
        kuea(units(views(5)[0]), teacher, checkpoints=tmp_path, **given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"teacher": np.ones((N, 4))}, "the teacher sees all images alike"),
        ({"teacher": np.ones((N - 1, 4))}, f"{N - 1} rows for {N} images"),
        ({"teacher": np.full((N, 4), np.nan)}, "teacher is not finite"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"rho": 0.0}, "rho is 0.0"),
        ({"kernel": "cubic"}, "unknown kernel 'cubic'"),
        ({"degree": 2.5}, "degree is 2.5"),
        ({"kind": "deep"}, "unknown kind 'deep'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 1}, "batch=1"),
        ({"focus": [N]}, "focus must hold rows"),
        ({"batch": 64, "focus": [1, 2]}, "cannot come from 2 in the focus"),
        ({"tecaher": 1}, "unknown parameter of 'kuea' 'tecaher'"),
    ],
)
def test_refused(given, match):
    student, teacher, _ = views()
    with pytest.raises(InputError, match=match):
        fit_alignment("kuea", Embeddings(student), **{"teacher": teacher, **given})


def test_another_model_and_another_width():
    student, teacher, _ = views()
    stored = lambda weights: {"model": weights, "ingredients": {"model": {"weights": weights}}}  # noqa: E731
    operator = fit_alignment("kuea", Embeddings(student, meta=stored("w1")), teacher=teacher, epochs=1)
    other = views(1)[0]
    with pytest.raises(InputError, match="fitted on embeddings of w1, these are of w2"):
        operator.apply(Embeddings(other, meta=stored("w2")))
    with pytest.raises(InputError, match="image vectors have width 6, 'kuea' was fitted on 8"):
        operator.apply(Embeddings(other[:, :6]))
    with pytest.raises(InputError, match="text vectors have width 6"):
        operator.apply(Embeddings(other, other[:, :6]))
    with pytest.raises(InputError, match=f"{N} of {N} samples were used to fit 'kuea'"):
        operator.apply(Embeddings(student))


def test_a_loss_that_is_no_number_stops():
    student, teacher, _ = views()
    with pytest.raises(KodaAuditError, match=r"the loss is (nan|inf) at step|a weight is not finite"):
        fit_alignment("kuea", Embeddings(student), teacher=teacher, lr=1e200, epochs=5)


# the curriculum


def gapped(seed=0, n=N):
    random = np.random.default_rng(seed)
    shift = np.random.default_rng(99).normal(size=(2, 1, D))
    common = random.normal(size=(n, D))
    return [common + 0.3 * random.normal(size=(n, D)) + 2 * side for side in shift]


def test_curriculum_closes_the_gap_on_other_pairs():
    test = Embeddings(*gapped(1))
    gap = lambda e: np.linalg.norm(units(e.image).mean(dim=0) - units(e.text).mean(dim=0))  # noqa: E731
    given = {"epochs": 60, "batch": 32, "scale": 10.0}
    plain, closing = (
        fit_alignment("curriculum", Embeddings(*gapped()), alpha_target=alpha, **given) for alpha in (0.0, 0.9)
    )
    assert closing.info["figures"]["alpha"] == 0.9
    assert plain.info["figures"]["alpha"] == 0.0
    assert gap(closing.apply(test)) < 0.5 * gap(test)
    assert gap(closing.apply(test)) < gap(plain.apply(test))


def test_only_the_chosen_side_moves():
    images = curriculum(*map(units, gapped()), sides="image", epochs=2)
    texts = curriculum(*map(units, gapped()), sides="text", epochs=2)
    assert images.second[0].matrix is None
    assert images.first[0].matrix is not None
    assert texts.first[0].matrix is None


@pytest.mark.parametrize("given", [{"sides": "left"}, {"alpha_target": 2.0}, {"scale": -1.0}, {"ramp": 1.0}])
def test_curricula_out_of_range(given):
    with pytest.raises(InputError, match=r"expected|unknown sides"):
        fit_alignment("curriculum", Embeddings(*gapped()), **given)


def test_weight_of_the_alignment_is_kept_in_the_state():
    student = Both(torch.nn.Identity(), torch.nn.Identity())
    learner = CurriculumLearner(student, torch.arange(N), Phases(0.5, 10, 0.0, 1.0), 10.0, 1.0)
    sides = [units(side).requires_grad_() for side in gapped()]
    rows = torch.arange(N)
    losses = [learner.step(number, rows, tuple(sides)) for number in range(3)]
    alphas = [figures["alpha"] for _, figures in losses]
    assert alphas[0] == 0 < alphas[1] < alphas[2] < learner.state_dict()["alpha"].item()
    for loss, figures in losses:
        mixed = (1 - figures["alpha"]) * figures["contrast"] + figures["alpha"] * figures["closing"]
        assert loss.item() == pytest.approx(mixed.item())


# discrepancy-driven


def planted(seed=0, n=240, size=40):
    """A group that the teacher holds together and the student does not, though it could: it shows it faintly."""
    random = np.random.default_rng(seed)
    student = random.normal(size=(n, 12))
    teacher = student.copy()
    group = np.arange(size)
    student[group, 0] += 3.0
    teacher[group] = 0.3 * random.normal(size=(size, 12)) + np.eye(12)[0] * 6
    ids = [f"s{i}" for i in range(n)]
    return Embeddings(student, ids=ids), Embeddings(teacher, ids=ids), group


def test_training_on_what_was_found_helps_held_out_members():
    student, teacher, group = planted()
    found = find_discrepancies(teacher, student, modality="image", n_directions=1, halves=0)
    train, held = split_members(found.subsets)
    assert set(member_rows(held, student.ids)) <= set(group)
    assert not set(train["id"]) & set(held["id"])
    rows = np.setdiff1d(np.arange(len(student)), member_rows(held, student.ids))
    ids = [student.ids[row] for row in rows]
    parts = [Embeddings(model.image[rows], ids=ids) for model in (student, teacher)]
    given = {"teacher": parts[1], "epochs": 30, "batch": 32, "weight": 50.0, "transductive": True}
    driven = fit_alignment("kuea", parts[0], focus=member_rows(train, ids), share=0.3, **given)
    general = fit_alignment("kuea", parts[0], **given)
    models = [student, driven.apply(student), general.apply(student)]
    before, after, undriven = (discrepancy_of(held, teacher, model).set_index("group") for model in models)
    assert before["n"].tolist() == [len(held)]
    assert before.loc[1, "excess"] > 0
    assert after.loc[1, "excess"] < 0.8 * before.loc[1, "excess"]
    assert after.loc[1, "excess"] < undriven.loc[1, "excess"]
    assert after.loc[1, "coherence_target"] == before.loc[1, "coherence_target"]


def test_members_that_are_not_there():
    with pytest.raises(InputError, match="1 members are not among these samples"):
        member_rows(pd.DataFrame({"id": ["x"]}), ["a"])
    small = pd.DataFrame({"group": 1, "id": list("abc"), "weight": 1.0})
    with pytest.raises(InputError, match="no group has 2 members"):
        split_members(small)


def test_members_are_split_group_by_group_and_each_counts_once():
    both = pd.DataFrame(
        {"group": [1] * 10 + [2] * 12 + [3] * 3, "id": [*map(str, range(10)), *map(str, range(4, 16)), *"abc"]}
    )
    train, held = split_members(both, share=0.3)
    assert held.groupby("group").size().to_dict() == {1: 3, 2: 2}  # 6 of the second are not the first's
    assert train.groupby("group").size().to_dict() == {1: 7, 2: 4}  # the third is too small to be split
    assert not set(train.id) & set(held.id)
    assert len(train.id.unique()) == len(train)
    again, other = split_members(both, share=0.3)[1], split_members(both, share=0.3, seed=1)[1]
    pd.testing.assert_frame_equal(again, held)
    assert not other.equals(held)
