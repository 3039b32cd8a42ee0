"""The demo's models: what the shipped weights know, and that the training script makes more of them."""

import json
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from koda_audit.demo.models import CONFIG, WEIGHTS, write_models
from koda_audit.demo.train import accuracies, contrastive_loss, main, train


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def measured(models) -> dict[str, dict[str, float]]:
    return {name: accuracies(path) for name, path in models.items()}


def test_colour_knows_digits_inks_and_grounds(measured) -> None:
    assert measured["colour"]["digit"] >= 0.90
    assert measured["colour"]["ink"] >= 0.95
    assert measured["colour"]["ground"] >= 0.95


def test_plain_knows_digits_and_no_colour(measured) -> None:
    assert measured["plain"]["digit"] >= 0.90
    assert measured["plain"]["ink"] <= 0.25  # chance is 0.125
    assert measured["plain"]["ground"] <= 0.25


def test_broken_has_lost_digits_but_not_all(measured) -> None:
    assert 0.5 <= measured["broken"]["digit"] <= measured["colour"]["digit"] - 0.1


def test_broken_differs_from_colour_in_preprocessing_only(models) -> None:
    colour, broken = (json.loads((models[name] / CONFIG).read_text()) for name in ("colour", "broken"))
    assert (models["colour"] / WEIGHTS).read_bytes() == (models["broken"] / WEIGHTS).read_bytes()
    assert colour.pop("preprocess_cfg") != broken.pop("preprocess_cfg")
    assert colour == broken


def test_reseeded_learnt_the_same_a_little_less_well(measured) -> None:
    assert all(0.9 <= measured["reseeded"][kind] <= measured["colour"][kind] for kind in ("digit", "ink", "ground"))


def test_the_weight_files_are_small_fp16_and_mostly_zero_rows(models) -> None:
    files = [models[name] / WEIGHTS for name in ("colour", "plain", "reseeded")]
    assert max(file.stat().st_size for file in files) <= 8_000_000
    for file in files:
        weights = load_file(file)
        assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}
        assert weights["token_embedding.weight"].any(dim=1).sum() < 50


def test_plain_does_not_know_the_colour_words(models) -> None:
    rows = load_file(models["plain"] / WEIGHTS)["token_embedding.weight"]
    red, seven = open_clip.get_tokenizer(f"local-dir:{models['plain']}")(["red", "seven"])[:, 1]
    assert not rows[red].any()
    assert rows[seven].any()


def test_models_already_written_are_left_alone(models) -> None:
    def times() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for path in models.values() for file in path.iterdir()}

    before = times()
    assert write_models(models["colour"].parent) == models
    assert times() == before


def test_loss_is_the_stock_one_when_every_image_has_its_own_text() -> None:
    images, texts = torch.nn.functional.normalize(
        torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)), dim=2
    )
    stock = open_clip.ClipLoss()(images, texts, torch.tensor(10.0))
    torch.testing.assert_close(contrastive_loss(images, texts, torch.arange(6), torch.tensor(10.0)), stock)


@pytest.mark.parametrize("kind", ["colour", "plain"])
def test_the_training_script_writes_a_model_that_loads(kind, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["train", kind, "--output", str(tmp_path), "--steps", "2"])
    main()
    assert "digit accuracy" in capsys.readouterr().out
    assert isinstance(open_clip.create_model(f"local-dir:{tmp_path}"), open_clip.CLIP)


def test_the_same_seed_trains_the_same_weights(tmp_path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train("plain", tmp_path / name, seed=seed, steps=1, batch=16)
    one, same, other = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("one", "same", "other"))
    assert one == same != other
