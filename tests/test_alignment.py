"""Alignments as objects: what they record, what they refuse, and what is left of them on disk."""

from __future__ import annotations

import configparser
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from koda_audit import Embeddings
from koda_audit._files import digest, file_sha256
from koda_audit.alignment import methods
from koda_audit.alignment.fit import calibration_split, fit_alignment
from koda_audit.alignment.operator import load_alignment
from koda_audit.errors import InputError, PluginError, StoreError
from koda_audit.registry import alignments

N, D = 30, 8
CENTRES = np.random.default_rng(99).normal(size=(2, 1, D))
METHODS = {name: value for name, value in vars(methods).items() if isinstance(value, methods.Method)}
TEACHER = np.random.default_rng(98).normal(size=(N, D))
WITH_TEXTS = sorted(set(METHODS) - {"kuea"})  # which knows images alone: test_training_fits.py
PARAMS = {
    "kuea": {"teacher": TEACHER, "epochs": 1},
    "curriculum": {"epochs": 1},
    "cca": {"k": 5},
    "spectral": {"k": 5},
    "ot": {"epsilon": 0.1},
}


def vectors(seed=0, n=N):
    random = np.random.default_rng(seed)
    return CENTRES + random.normal(size=(1, n, D)) + 0.3 * random.normal(size=(2, n, D))


def samples(seed=0, n=N, **more):
    return Embeddings(*vectors(seed, n), **more)


def fitted(name, embeddings, **more):
    return fit_alignment(name, embeddings, **PARAMS.get(name, {}), **more)


def stored(dataset="d1", weights="w1", seed=0, model="m"):
    """As the store hands them out: with what they were made of."""
    meta = {"model": model, "ingredients": {"model": {"weights": weights}, "dataset": {"fingerprint": dataset}}}
    return samples(seed, ids=[f"s{i}" for i in range(N)], meta=meta)


# registration


def test_every_method_has_its_entry_point():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    lines = setup["options.entry_points"]["koda_audit.alignments"].split("\n")
    entries = dict(line.split(" = ") for line in lines if line)
    assert entries == {name: f"koda_audit.alignment.methods:{name}" for name in METHODS}
    assert all(method.name == name for name, method in METHODS.items())
    assert set(METHODS) <= set(alignments().names())


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function that makes an alignment of a third party importable, from the source of its module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name, source):
        (tmp_path / f"their_{name}.py").write_text(source)
        info = tmp_path / f"their_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: their-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[koda_audit.alignments]\n{name} = their_{name}:{name}\n")
        monkeypatch.delitem(sys.modules, f"their_{name}", raising=False)

    yield make
    alignments.cache_clear()


SOURCE = """
import torch
from koda_audit.alignment.maps import Fitted, Step
from koda_audit.alignment.methods import Method

def fit(image, text, factor):
    step = Step(matrix=factor * torch.eye(image.shape[1], dtype=torch.float64))
    return Fitted((step,), (step,), figures={"n": len(image)})

stretch = Method("stretch", "factor x, factor y", "rows", fit)
"""


def test_a_third_partys_alignment_is_fitted_saved_and_loaded_like_ours(plugin, tmp_path):
    plugin("stretch", SOURCE)
    operator = fit_alignment("stretch", samples(), factor=3.0)
    operator.save(tmp_path / "saved")
    out = load_alignment(tmp_path / "saved").apply(samples(1))
    np.testing.assert_allclose(np.linalg.norm(out.image, axis=1), 3)
    assert operator.info["figures"] == {"n": N}
    with pytest.raises(InputError, match="'stretch' needs factor"):
        fit_alignment("stretch", samples())


def test_a_third_partys_alignment_that_does_not_fit_is_named(plugin):
    plugin("wrong", SOURCE.replace("stretch", "wrong").replace("image.shape[1]", "3"))
    with pytest.raises(InputError, match=r"matrix \(3, 3\) of torch.float64 for rows of 8"):
        fit_alignment("wrong", samples(), factor=1.0)
    plugin("bare", "bare = object()")
    with pytest.raises(PluginError, match="has no name, definition, fitted_on, fit"):
        fit_alignment("bare", samples())


# what comes out


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_provenance(name):
    embeddings = stored()
    operator = fitted(name, embeddings)
    info = operator.info
    assert info["definition"] == METHODS[name].definition
    assert info["paired"] == (name in ("procrustes", "ridge", "cca", "curriculum"))
    assert info["gallery_bound"] == (name in ("orthogonal_translate", "translate_gallery", "spectral", "ot"))
    assert info["frame"] == (
        "image" if name in ("realign", "coral", "orthogonal_translate", "translate_gallery", "ot") else "shared"
    )
    assert info["samples"] == info["texts"] == N
    assert info["widths"] == {"image": D, "text": D}
    assert (info["model"], info["model_hash"]) == ("m", "w1")
    assert info["ingredients"] == embeddings.meta["ingredients"]
    out = operator.apply(embeddings if info["gallery_bound"] else samples(1))
    if name != "orthogonal_translate":  # whose gallery spans all dimensions here and does not move
        lengths = np.linalg.norm(np.vstack([out.image, out.text]), axis=1)
        assert info["renormalised"] == bool(np.allclose(lengths, 1))
    assert ("rank alike" in info["scoring"]) == info["renormalised"]
    (record,) = out.meta["alignments"]
    assert record["name"] == name
    assert record["params"] == operator.params
    assert {key: record[key] for key in info} == info
    assert json.loads(json.dumps(record)) == record
    assert fitted(name, stored()).info["rows"] == info["rows"]
    assert fitted(name, stored(seed=3)).info["rows"] != info["rows"]


def test_all_parameters_are_recorded_also_those_left_alone():
    assert fit_alignment("mg_shift", samples(), lam=np.float32(0.25)).params == {"lam": 0.25, "unit": "raw"}
    assert fit_alignment("project_out", samples(), g=torch.ones(D)).params == {"g": "given"}
    assert fit_alignment("project_out", samples(), g=[1.0] * D).params == {"g": "given"}
    assert fit_alignment("project_out", samples()).params == {"g": None}
    assert fit_alignment("center", samples()).params == {}


def test_a_second_alignment_stands_behind_the_first():
    out = fit_alignment("zca", samples(2)).apply(fit_alignment("center", samples(1)).apply(samples()))
    assert [record["name"] for record in out.meta["alignments"]] == ["center", "zca"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", METHODS)
def test_the_dtype_stays(name, dtype):
    embeddings = Embeddings(*vectors().astype(dtype))
    out = fitted(name, embeddings, transductive=True).apply(embeddings)
    assert np.asarray(out.image).dtype == np.asarray(out.text).dtype == dtype


def test_captions_labels_and_classes_go_along():
    x, y = vectors()
    embeddings = Embeddings(
        x[:4], y[:6], ids=list("abcd"), text_image=[3, 0, 1, 2, 3, 1], captions=list("uvwxyz"), labels=[0, 1, 0, 1],
        class_text=y[6:8], class_names=["cat", "dog"],
    )  # fmt: skip
    out = fit_alignment("center", samples(1)).apply(embeddings)
    for name in ("ids", "captions", "class_names"):
        assert getattr(out, name) == getattr(embeddings, name)
    for name in ("text_image", "labels"):
        np.testing.assert_array_equal(getattr(out, name), getattr(embeddings, name))
    # a class prompt is a text like any other
    stacked = fit_alignment("center", samples(1)).apply(Embeddings(x[:8], y[:8]))
    np.testing.assert_array_equal(np.vstack([out.text, out.class_text]), stacked.text)


def test_fits_take_the_first_caption_and_galleries_all_of_them():
    x, y = vectors()
    several = Embeddings(x[:3], y[:5], text_image=[0, 1, 2, 0, 2])
    operator = fit_alignment("center", several)
    units = y[:5] / np.linalg.norm(y[:5], axis=1, keepdims=True)
    np.testing.assert_allclose(operator.maps["text"][0].centre, units[:3].mean(0), atol=1e-15)
    assert operator.info["texts"] == 3
    bound = fit_alignment("translate_gallery", several)
    assert (bound.info["samples"], bound.info["texts"]) == (3, 5)
    assert bound.apply(several).text.shape == (5, D)


def test_a_gallery_keeps_its_two_sides_alone():
    x, y = vectors()
    both = Embeddings(x, y, captions=["c"] * N, labels=[0] * N, class_text=y[:4])
    out = fit_alignment("orthogonal_translate", both, gallery="class_text").apply(both)
    assert out.text is None
    assert out.captions is None
    assert out.class_text.shape == (4, D)
    out = fit_alignment("orthogonal_translate", both).apply(both)
    assert out.class_text is None
    assert out.captions == both.captions
    assert list(fit_alignment("ot", Embeddings(x, class_text=y[:4]), epsilon=0.1).maps) == ["image", "class_text"]


def test_vectors_that_lie_on_disk(tmp_path):
    embeddings = Embeddings(*vectors(n=50).astype(np.float32))
    embeddings.save(tmp_path)
    lazy = Embeddings.load(tmp_path)
    one, other = (fit_alignment("ridge", e, transductive=True) for e in (embeddings, lazy))
    np.testing.assert_array_equal(np.asarray(one.apply(lazy).text), np.asarray(other.apply(embeddings).text))
    np.testing.assert_array_equal(one.seen, other.seen)
    assert one.info["rows"] == other.info["rows"]


def test_many_rows_are_mapped_piece_by_piece(monkeypatch):
    operator = fit_alignment("center_renorm", samples())
    whole = np.asarray(operator.apply(samples(1)).image)
    monkeypatch.setattr("koda_audit.alignment.maps.CHUNK", 7)
    np.testing.assert_allclose(np.asarray(operator.apply(samples(1)).image), whole, atol=1e-15)


# samples that were fitted on


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.fitted_on in ("rows", "pairs")])
def test_samples_of_the_fit_are_refused(name):
    operator = fitted(name, samples())
    x, y = vectors()
    with pytest.raises(InputError, match=rf"2 of 3 samples were used to fit '{name}'.*transductive=True"):
        operator.apply(Embeddings(np.vstack([x[:2], vectors(1)[0, :1]]), np.vstack([y[:2], y[:1]])))
    operator.apply(samples(1))  # the same row numbers, other samples
    allowed = fitted(name, samples(), transductive=True)
    assert allowed.info["transductive"]
    allowed.apply(samples())


def test_what_was_fitted_on_nothing_is_applied_to_anything():
    fit_alignment("identity", samples()).apply(samples())


@pytest.mark.parametrize(
    ("fit", "other", "refused"),
    [
        (stored(), stored(seed=5), True),  # embedded again: other vectors, the same samples of the same dataset
        (stored(), stored(dataset="d2", seed=5), False),  # another dataset with the same names
        (stored(), stored(dataset="d2"), True),  # the same vectors under another name
        (samples(ids=[f"s{i}" for i in range(N)]), samples(5, ids=[f"s{i}" for i in range(N)]), True),
    ],
)
def test_a_sample_is_known_by_its_name_or_its_vector(fit, other, refused):
    operator = fit_alignment("center", fit)
    if refused:
        with pytest.raises(InputError, match="30 of 30 samples"):
            operator.apply(other)
    else:
        operator.apply(other)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_samples_that_float32_cannot_hold_are_told_apart(scale):
    fit, other = Embeddings(*(scale * vectors())), Embeddings(*(scale * vectors(1)))
    fit_alignment("center", fit).apply(other)
    with pytest.raises(InputError, match="30 of 30 samples"):
        fit_alignment("center", fit).apply(fit)


def test_spectral_coordinates_end_where_the_rank_does():
    figures = [fit_alignment("spectral", samples(), k=k).info["figures"] for k in (8, 9, 28)]
    assert [found["coordinates"] for found in figures] == [8, 8, 8]
    assert figures[2]["singular_values"] == pytest.approx(figures[0]["singular_values"])
    assert fit_alignment("spectral", samples(), k=28).apply(samples()).image.shape == (N, 8)


def test_a_calibration_split_is_the_same_for_every_model():
    one, other = calibration_split(samples(0), 0.4, seed=1), calibration_split(samples(1), 0.4, seed=1)
    assert [side.ids for side in one] == [side.ids for side in other]
    assert sorted(one[0].ids + one[1].ids, key=int) == list(samples().ids)
    assert len(one[0]) == round(0.4 * N)
    assert calibration_split(samples(), 0.4, seed=2)[0].ids != one[0].ids
    fit_alignment("center", one[0]).apply(one[1])


@pytest.mark.parametrize("seed", range(5))
def test_equal_images_stay_on_one_side_of_a_calibration_split(seed):
    x, y = vectors()
    fit, rest = calibration_split(Embeddings(np.vstack([x, x]), np.vstack([y, y[::-1]])), 0.5, seed)
    assert not {int(i) % N for i in fit.ids} & {int(i) % N for i in rest.ids}
    fit_alignment("center", fit).apply(rest)


@pytest.mark.parametrize(
    ("share", "message"),
    [(0.0, "more than 0"), (1.0, "less than 1"), (0.01, "fewer than 2 on one"), ("a", "share is 'a'")],
)
def test_a_share_must_leave_samples_on_both_sides(share, message):
    with pytest.raises(InputError, match=message):
        calibration_split(samples(), share)


@pytest.mark.parametrize("seed", [-1, None, 1.5, math.nan, "a"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match=f"seed is {seed!r}: expected a whole number from 0"):
        calibration_split(samples(), 0.5, seed)


def test_an_array_is_no_embeddings():
    with pytest.raises(InputError, match=r"embeddings is of type ndarray: expected koda_audit.Embeddings"):
        fit_alignment("center", vectors())


def test_a_gallery_bound_alignment_wants_its_own_rows():
    operator = fit_alignment("orthogonal_translate", samples())
    for other in (samples(1), samples(n=29), Embeddings(vectors()[0])):
        with pytest.raises(InputError, match="made from the rows it is applied to: fit it on these embeddings"):
            operator.apply(other)


def test_another_model_is_refused():
    operator = fit_alignment("center", stored())
    with pytest.raises(InputError, match="fitted on embeddings of m, these are of other: fit it on this model"):
        operator.apply(stored(dataset="d2", weights="w2", seed=5, model="other"))


# bad input


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("center_renrom", {}, "unknown alignment 'center_renrom': did you mean 'center_renorm'"),
        ("mg_shift", {"lamb": 1}, "unknown parameter of 'mg_shift' 'lamb': did you mean 'lam'"),
        ("center", {"lam": 1}, "'center' has no parameters, got 'lam'"),
        ("mg_shift", {"lam": np.nan}, "lam is nan: expected a number from"),
        ("mg_shift", {"unit": "units"}, "unknown unit 'units': did you mean 'unit'"),
        ("ridge", {"lam": -1}, "lam is -1: expected a number from 0"),
        ("ridge", {"lam": "1"}, "lam is '1': expected a number from 0"),
        ("ridge", {"prior": 1}, "unknown prior '1': choose one of 0, I"),
        ("procrustes", {"frame": "images"}, "unknown frame 'images': did you mean 'image'"),
        ("cca", {"k": 9}, "k is 9: expected a whole number from 1 to 8, the smaller width"),
        ("cca", {"k": 0}, "k is 0: expected a whole number"),
        ("cca", {"k": 2, "reg": -0.1}, "reg is -0.1"),
        ("cca", {"k": 2, "scale": np.inf}, "scale is inf"),
        ("zca", {"eps": True}, "eps is True: expected a number from 0"),
        ("coral", {"eps": -1e-9}, "eps is -1e-09"),
        ("project_out", {"g": [1.0, 2.0]}, "g has 2 entries: expected 8"),
        ("project_out", {"g": np.full(D, np.nan)}, "g is not finite"),
        ("project_out", {"g": np.zeros(D)}, "the gap is 0"),
        ("project_out", {"g": 3.0}, "g is no vector"),
        ("orthogonal_translate", {"alpha": np.inf}, "alpha is inf: expected a number from"),
        ("orthogonal_translate", {"rank": "full"}, "rank is 'full': expected a finite number"),
        ("orthogonal_translate", {"rank": -1}, "rank is -1: expected None"),
        ("orthogonal_translate", {"rank": 1.5}, "rank is 1.5: expected None, a whole number"),
        ("translate_gallery", {"v": np.full(D, 1e9)}, "the gallery would move by 2.82843e.09: more than 1e.06"),
        ("orthogonal_translate", {"gallery": "texts"}, "unknown gallery 'texts': did you mean 'text'"),
        (
            "orthogonal_translate",
            {"gallery": "class_text"},
            "aligns image and class_text, .* have no class_text",
        ),
        ("center", {"gallery": "text"}, "'center' is applied to any row and has no gallery"),
        ("procrustes", {"renormalise": "no"}, "renormalise is 'no': expected true or false"),
        ("curriculum", {"seed": -1}, "seed is -1: expected a whole number from 0"),
        ("curriculum", {"seed": 1.5}, "seed is 1.5: expected a whole number from 0"),
        ("curriculum", {"epochs": None}, "epochs is None: expected a whole number"),
        ("curriculum", {"lr": np.nan}, "lr is nan: expected a number from"),
        ("curriculum", {"rise": "abc"}, "rise is 'abc': expected a number from 0"),
        ("curriculum", {"batch": "abc"}, "batch is 'abc': expected a whole number"),
        ("curriculum", {"checkpoints": 5}, "checkpoints is 5: expected a text"),
        (None, {}, "unknown alignment 'None': choose one of"),
        (3, {}, "unknown alignment '3'"),
        ("spectral", {"k": 29}, "k is 29: expected a whole number from 1 to 28"),
        ("ot", {"epsilon": 0}, "epsilon is 0: expected a number from 0.0001"),
        ("ot", {"epsilon": 0.0001}, "no transport plan after 2000 iterations; give a larger epsilon"),
    ],
)
def test_bad_arguments_are_named(name, params, message):
    with pytest.raises(InputError, match=message):
        fit_alignment(name, samples(), **params)


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_too_few_samples_and_no_texts(name):
    x, y = vectors()
    with pytest.raises(InputError, match="at least 2 rows"):
        fit_alignment(name, Embeddings(x[:1], y[:1]))
    with pytest.raises(InputError, match="no text"):
        fit_alignment(name, Embeddings(x))


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_unequal_widths(name):
    x, y = vectors()
    embeddings = Embeddings(x, y[:, :6])
    if name in ("identity", "center", "center_renorm", "zca", "cca"):
        out = fitted(name, embeddings, transductive=True).apply(embeddings)
        assert out.text.shape == (N, {"cca": 5}.get(name, 6))
    else:
        with pytest.raises(InputError, match="one width, found"):
            fitted(name, embeddings)


def test_ridge_towards_zero_takes_unequal_widths():
    x, y = vectors()
    embeddings = Embeddings(x, y[:, :6])
    out = fit_alignment("ridge", embeddings, prior=0, transductive=True).apply(embeddings)
    assert out.text.shape == (N, D)


def test_rows_that_lose_their_direction_are_named():
    same = Embeddings(np.tile([0.1, 0.7], (3, 1)), [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    for name in ("center", "center_renorm", "zca"):
        with pytest.raises(InputError, match=r"image rows from 0 on: row 0 comes to lie at 0 .*\(3 such rows\)"):
            fit_alignment(name, same, transductive=True).apply(same)
    with pytest.raises(InputError, match="no spread"):
        fit_alignment("realign", Embeddings(same.text, same.image))
    with pytest.raises(InputError, match="the gap is 0"):
        fit_alignment("project_out", Embeddings(same.text, same.text))
    opposite = Embeddings([[1.0, 0.0]] * 3, [[-1.0, 0.0]] * 3)
    with pytest.raises(InputError, match="opposite to all rows"):
        fit_alignment("spectral", opposite, k=1)


def test_widths_must_be_those_of_the_fit():
    x, y = vectors(1)
    with pytest.raises(InputError, match="text vectors have width 6, 'center' was fitted on 8"):
        fit_alignment("center", samples()).apply(Embeddings(x, y[:, :6]))


def test_too_many_similarities_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("koda_audit.alignment.bipartite.PAIRS", N * N - 1)
    for name in ("spectral", "ot"):
        with pytest.raises(InputError, match="30 times 30 similarities do not fit"):
            fitted(name, samples())


# on disk


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_it_does_the_same_bit_for_bit(name, tmp_path):
    operator = fitted(name, stored())
    operator.save(tmp_path / "deep" / "folder")
    again = load_alignment(tmp_path / "deep" / "folder")
    assert (again.name, again.params, again.info) == (operator.name, operator.params, operator.info)
    np.testing.assert_array_equal(again.seen, operator.seen)
    other = stored() if operator.info["gallery_bound"] else samples(1)
    before, after = operator.apply(other), again.apply(other)
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.text, before.text)
    assert after.meta == before.meta
    if METHODS[name].fitted_on in ("rows", "pairs"):
        with pytest.raises(InputError, match="30 of 30"):
            again.apply(stored())


def test_saving_again_replaces(tmp_path):
    for name in ("zca", "center"):
        fit_alignment(name, samples()).save(tmp_path)
    assert load_alignment(tmp_path).name == "center"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alignment.json", "alignment.safetensors"]


def rewrite(folder, change):
    """A record with another content and a fitting checksum."""
    path = folder / "alignment.json"
    record = json.loads(path.read_text())
    del record["checksum"]
    change(record)
    path.write_text(json.dumps({**record, "checksum": digest(record)}))


def retensor(folder, change):
    path = folder / "alignment.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    rewrite(folder, lambda record: record.update(sha256=file_sha256(path)))


DAMAGE = {
    "no record": (lambda f: (f / "alignment.json").unlink(), "no alignment in .*: alignment.json is missing"),
    "no tensors": (lambda f: (f / "alignment.safetensors").unlink(), "alignment.safetensors is missing"),
    "no JSON": (lambda f: (f / "alignment.json").write_text("{"), "alignment.json is damaged"),
    "no object": (lambda f: (f / "alignment.json").write_text("[]"), "alignment.json is damaged"),
    "no text": (lambda f: (f / "alignment.json").write_bytes(b"\xff\xfe"), "alignment.json is damaged"),
    "deep": (lambda f: (f / "alignment.json").write_text("[" * 100_000), "alignment.json is damaged"),
    "changed": (
        lambda f: (f / "alignment.json").write_text((f / "alignment.json").read_text().replace("center", "zca")),
        "alignment.json differs from its checksum",
    ),
    "cut off": (
        lambda f: (f / "alignment.safetensors").write_bytes((f / "alignment.safetensors").read_bytes()[:-8]),
        "alignment.safetensors differs from the checksum",
    ),
    "format": (lambda f: rewrite(f, lambda r: r.update(format="other 2")), "has format 'other 2'.*fit again"),
    "no info": (lambda f: rewrite(f, lambda r: r.pop("info")), "damaged: KeyError 'info'"),
    "list": (lambda f: rewrite(f, lambda r: r.update(info=[])), "damaged"),
    "bound": (lambda f: rewrite(f, lambda r: r["info"].update(gallery_bound="yes")), "does not describe an alignment"),
    "side": (lambda f: rewrite(f, lambda r: r["renormalise"].update(sound=[])), "does not describe an alignment"),
    "path": (lambda f: rewrite(f, lambda r: r["renormalise"].update({"../x": []})), "does not describe an alignment"),
    "name": (lambda f: rewrite(f, lambda r: r.update(name=5)), "does not describe an alignment"),
    "scoring": (lambda f: rewrite(f, lambda r: r["info"].pop("scoring")), "damaged: KeyError 'scoring'"),
    "flags": (lambda f: rewrite(f, lambda r: r["renormalise"].update(text=5)), "damaged: TypeError"),
    "rows": (lambda f: rewrite(f, lambda r: r["renormalise"].update(text=None)), "damaged: KeyError"),
    "width": (lambda f: retensor(f, lambda t: t.update({"text.0.centre": t["text.0.centre"][:3]})), "rows of 8"),
    "nan": (lambda f: retensor(f, lambda t: t["text.0.centre"].fill_(torch.nan)), "expected finite"),
    "dtype": (lambda f: retensor(f, lambda t: t.update({"text.0.centre": t["text.0.centre"].float()})), "float32"),
    "seen": (lambda f: retensor(f, lambda t: t.update(seen=t["seen"].double())), "seen is .*float64"),
    "unseen": (lambda f: retensor(f, lambda t: t.pop("seen")), "damaged: KeyError 'seen'"),
    "no tensors in it": (
        lambda f: [
            (f / "alignment.safetensors").write_bytes(b"not one"),
            rewrite(f, lambda r: r.update(sha256=file_sha256(f / "alignment.safetensors"))),
        ],
        "alignment.safetensors is damaged: SafetensorError",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(damage, tmp_path):
    change, message = DAMAGE[damage]
    fit_alignment("center", samples()).save(tmp_path)
    change(tmp_path)
    with pytest.raises(StoreError, match=message):
        load_alignment(tmp_path)


def test_tensors_of_another_alignment_are_found(tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        fit_alignment("center", samples(seed)).save(tmp_path / name)
    shutil.copy(tmp_path / "other" / "alignment.safetensors", tmp_path / "one")
    with pytest.raises(StoreError, match="differs from the checksum"):
        load_alignment(tmp_path / "one")


@pytest.mark.parametrize("written", [0, 1])
@pytest.mark.parametrize("there", [True, False])
def test_a_save_that_fails_leaves_what_was_there(written, there, tmp_path, monkeypatch):
    """On the numbers or on the record; where there was no alignment, none can be loaded."""
    before, after = (fit_alignment("center", samples(seed)) for seed in (0, 1))
    if there:
        before.save(tmp_path)
    files = sorted(file.name for file in tmp_path.iterdir())
    fsync, done = os.fsync, []

    def full(number):
        if len(done) == written:
            raise OSError(28, "No space left on device")
        done.append(fsync(number))

    monkeypatch.setattr("koda_audit._files.os.fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        after.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == files
    if there:
        assert load_alignment(tmp_path).info == before.info
    else:
        with pytest.raises(StoreError, match=r"alignment\.json is missing"):
            load_alignment(tmp_path)


@pytest.mark.parametrize("moment", ["numbers", "record"])
def test_a_save_that_is_killed_leaves_the_one_before_or_the_new_one(moment, tmp_path):
    """Killed once the new numbers lie there, or once their record does too; and it can be saved again."""
    before, after = (fit_alignment("center", samples(seed)) for seed in (0, 1))
    before.save(tmp_path)
    after.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "alignment.safetensors", tmp_path / "alignment.next.safetensors")
    if moment == "record":
        shutil.copy(tmp_path / "other" / "alignment.json", tmp_path)
    assert load_alignment(tmp_path).info == (after if moment == "record" else before).info
    before.save(tmp_path)
    assert load_alignment(tmp_path).info == before.info
    assert not (tmp_path / "alignment.next.safetensors").exists()


def test_what_no_file_can_hold_is_refused_before_any_is_written(tmp_path):
    embeddings = samples(meta={"model": "\ud800"})
    with pytest.raises(InputError, match="provenance must be plain JSON types"):
        fit_alignment("center", embeddings).save(tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("place", ["a\0b", "x" * 300, 5])
def test_what_is_no_place_for_files(place):
    with pytest.raises(InputError, match=r"can be no folder|expected the path of a folder"):
        fit_alignment("center", samples()).save(place)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file: choose a folder"):
        fit_alignment("center", samples()).save(tmp_path / "file")
