"""Published figures of 500 pairs of a real CLIP, to every digit that is printed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from gap_oracle import oracle

from koda_audit._gap.centroid import centroid_metrics, gap_top_dims
from koda_audit._gap.covariances import covariance_metrics
from koda_audit._gap.folds import drawn_groups, folds
from koda_audit._gap.means import means
from koda_audit._gap.metrics import modality_gap
from koda_audit._gap.separability import RidgeClassifier, accuracy
from koda_audit._gap.sides import sides
from koda_audit.data.load import load_dataset
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.models import ModelSpec, load_model

VALUES = {
    "centroid_gap": "0.851352",
    "raw_gap_rms": "1.174803",
    "raw_gap_mean": "1.174481",
    "dist_gap_paired": "0.809545",
    "dist_gap_rel": "0.6888",
    "rmg": "0.591460",
    "energy_centred": "0.00642",
    "energy": "0.65199",
    "mmd2_u_centred": "0.00442",
    "frechet_mean": "0.72480",
    "frechet_cov": "0.38038",
    "mix_bias_image": "1.00",
    "mix_bias_text": "1.00",
    "alignment": "1.3802",
    "uniformity_joint": "-2.3126",
    "uniformity_image": "-1.7945",
    "uniformity_text": "-1.8409",
    "uniformity_cross": "-3.3343",
    "effective_dim_image": "298.0",
    "effective_dim_text": "280.4",
    "participation_ratio_image": "42.7",
    "participation_ratio_text": "41.7",
    "gap_dir_var_image": "2.5",
    "gap_dir_var_text": "3.4",
    "gap_top2_share": "0.69",
    "mean_length_image": "0.7297",
    "mean_length_text": "0.7184",
    "mean_cosine": "0.3088",
    "pair_cosine": "0.3099",
    "linear_sep_accuracy_80_20": "1.000",
}
IDENTITY = np.arange(500)


def printed(value, like):
    return f"{value:.{len(like.split('.')[1])}f}"


@pytest.fixture(scope="module")
def clip():
    folder = os.environ.get("KODA_AUDIT_FIXTURES")
    if not folder:
        pytest.skip("KODA_AUDIT_FIXTURES names no folder with features_clip.npy")
    path = Path(folder) / "features_clip.npy"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest.startswith("7227280ace0f")
    assert digest.endswith("5342adb")
    return np.load(path)


@pytest.fixture(scope="module")
def estimates(clip):
    return modality_gap(*clip, interval=True, variants=True)


@pytest.mark.parametrize("key", VALUES)
def test_a_published_value(estimates, key):
    assert printed(estimates[key].value, VALUES[key]) == VALUES[key]


def test_real_photographs_under_a_real_model_are_those_of_whole_matrices(tmp_path):
    """713 photographs and the prompts of their ten classes: texts repeat, so their covariance has rank 9 of 128."""
    folder = os.environ.get("KODA_AUDIT_FIXTURES")
    if not folder:
        pytest.skip("KODA_AUDIT_FIXTURES names no folder with photographs and a model")
    loader, checkpoint = (f"{folder}/mira/{name}" for name in ("mira_clip.py:load", "clip_final.pt"))
    model = load_model(ModelSpec(f"py:{loader}", checkpoint, allow_code=True))
    pairs = embed(model, load_dataset("folder/clothing", f"{folder}/clothing"), Store(tmp_path), quiet=True).pairs()
    assert len(pairs.image) == 713
    image, text = (np.asarray(side, dtype=np.float64) for side in (pairs.image, pairs.text))
    found, expected = modality_gap(image, text), oracle(image, text)
    for key, value in expected.items():
        # some columns of this model hardly vary: from a covariance, deviations below 1e-7 of the largest are rounding
        close = 1e-5 if key.startswith("effective_dim") else 1e-9
        assert found[key] == pytest.approx(value, rel=close, abs=close), key


def test_the_dimensions_of_the_gap(clip):
    dims, values = gap_top_dims(*clip)
    assert dims.tolist() == [442, 362, 292, 96]
    assert [f"{abs(value):.4f}" for value in values] == ["0.5008", "0.4963", "0.1420", "0.1251"]


def test_a_line_separates_them_and_500_pairs_are_too_few_to_say_so(clip, estimates):
    both = sides(*clip)
    groups = drawn_groups(both, 20, seed=0)
    assert [accuracy(RidgeClassifier.fit(rest), part) for rest, part in folds(both, groups)] == [1.0] * 20
    assert np.isnan(estimates["linear_sep"].value)
    assert estimates["linear_sep_underdetermined"].value == 1


def test_pairs_at_random_lie_apart_by_both_spreads(clip):
    both = sides(*clip)
    found = means(both)
    spread = (found.image_spread + found.text_spread).sqrt().item()
    assert printed(spread, "0.9754") == "0.9754"
    random = np.random.default_rng(0)
    gaps = [means(both.chosen(IDENTITY, random.permutation(500))).centred_square.sqrt().item() for _ in range(200)]
    assert np.mean(gaps) == pytest.approx(spread, abs=3 * np.std(gaps) / np.sqrt(200))
    assert abs(0.9758 - np.mean(gaps)) < 3 * np.std(gaps)  # the published one is of one permutation


@pytest.mark.parametrize(("n", "published"), [(10, 0.897), (32, 0.866), (64, 0.859), (128, 0.854), (256, 0.852)])
def test_the_centroid_gap_of_few_samples_is_too_large(clip, n, published):
    """On disjoint images and texts; 244 texts are left for 256 images."""
    both, found = sides(*clip, paired=False), []
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(500)
        metrics = centroid_metrics(means(both.chosen(order[:n], order[n : 2 * n])))
        found.append([metrics[key].item() for key in ("centroid_gap", "centroid_gap_sq_unbiased")])
    biased, unbiased = np.mean(found, axis=0)
    error = np.std(found, axis=0)
    assert abs(published - biased) < 3 * error[0]
    assert biased > 0.8513
    assert unbiased == pytest.approx(0.7229, abs=3 * error[1] / np.sqrt(200))


def test_two_halves_of_the_images(clip):
    """Within three standard errors over splits of what is published for one split."""
    published = {"centroid_gap": 0.0602, "frechet_cov": 0.178, "energy_centred": 0.0039, "mmd2_u_centred": -0.0029}
    found = {key: [] for key in published}
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(500)
        gap = modality_gap(clip[0][order[:250]], clip[0][order[250:]])
        for key, values in found.items():
            values.append(gap[key])
    for key, value in published.items():
        half_a_digit = 0.5 * 10 ** -len(str(value).split(".")[1])
        assert abs(value - np.mean(found[key])) < 3 * np.std(found[key], ddof=1) + half_a_digit, key
    assert np.sqrt(2 * means(sides(*clip)).image_spread.item() / 250) == pytest.approx(0.0612, abs=5e-5)


def test_images_against_texts_in_halves(clip):
    published = {"frechet_cov": 0.451, "energy_centred": 0.0085, "mmd2_u_centred": 0.0033}
    found = {key: [] for key in published}
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(500)
        gap = modality_gap(clip[0][order[:250]], clip[1][order[250:]], paired=False)
        for key, values in found.items():
            values.append(gap[key])
    for key, value in published.items():
        half_a_digit = 0.5 * 10 ** -len(str(value).split(".")[1])
        assert abs(value - np.mean(found[key])) < 3 * np.std(found[key], ddof=1) + half_a_digit, key


def test_the_null_stands_beside_the_value(estimates):
    assert estimates["centroid_gap"].null == pytest.approx(0.0612, abs=0.01)
    assert estimates["frechet_cov"].null == pytest.approx(0.178, abs=0.01)
    assert np.isnan(estimates["linear_sep"].null)
    for key in ("centroid_gap", "raw_gap_rms", "frechet_cov", "energy_centred", "rmg", "uniformity_joint"):
        assert estimates[key].low < estimates[key].value < estimates[key].high


def test_covariances_of_fewer_rows_than_columns_have_all_metrics(clip):
    both = sides(clip[0][:40], clip[1][:40])
    found, without = covariance_metrics(both, drawn_groups(both, 20, seed=0), jackknife=True)
    assert found["participation_ratio_image"] <= 39
    assert found["effective_dim_image"] <= 39
    assert len(without) == 20
