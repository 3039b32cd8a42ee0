"""Evaluations against the unmodified functions of clip_benchmark, on a model that gives stored embeddings back."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import image_caption_selection as host_selection
from clip_benchmark.metrics import zeroshot_classification as host_classification
from clip_benchmark.metrics import zeroshot_retrieval as host_retrieval

from koda_audit import Embeddings
from koda_audit.data.load import load_dataset
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.evaluation import retrieval
from koda_audit.evaluation.classification import zeroshot_classification
from koda_audit.evaluation.ranks import mutual_ranks
from koda_audit.evaluation.retrieval import zeroshot_retrieval
from koda_audit.evaluation.selection import image_caption_selection
from koda_audit.evaluation.tasks import evaluate
from koda_audit.models import ModelSpec, load_model

pytestmark = [  # all are the host's
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*shardshuffle.*"),
]

WIDTH = 12
BATCH = 7
AT = [1, 5, 10]


class Given:
    """Images are their own embeddings; a text is the number of its row."""

    def __init__(self, text):
        self.text = torch.from_numpy(text)

    def encode_image(self, images):
        return images.flatten(1)

    def encode_text(self, tokens):
        return self.text[tokens]


def tokenizer(texts):
    return torch.tensor([int(text) for text in texts])


def random(seed, *shape):
    # one common direction, as real embeddings have, and lengths far from 1
    draws = np.random.default_rng([7, seed])
    return ((draws.normal(size=shape) + 0.5) * draws.uniform(0.2, 5, size=(*shape[:-1], 1))).astype(np.float32)


class Loader(list):
    """Batches of (images, targets), with the classes that the host asks for."""

    def __init__(self, images, targets, classes=(), collate=list):
        parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
        super().__init__((torch.as_tensor(images[part]), collate(targets[part])) for part in parts)
        self.dataset = SimpleNamespace(classes=classes)


def host_classes(image, prompts, labels):
    """The host's numbers for (C, T, d) raw prompt embeddings."""
    count, templates, _ = prompts.shape
    model = Given(prompts.transpose(1, 0, 2).reshape(-1, prompts.shape[2]).copy())
    names = [str(c) for c in range(count)]

    def parse(texts):  # "t c" -> the row of template t and class c
        return torch.tensor([int(t) * count + int(c) for t, c in map(str.split, texts)])

    loader = Loader(image, labels, names, torch.as_tensor)
    return host_classification.evaluate(
        model, loader, parse, names, [f"{t} {{c}}" for t in range(templates)], "cpu", amp=False
    )


def ensemble(prompts):
    units = prompts / np.linalg.norm(prompts, axis=2, keepdims=True)
    return units.mean(axis=1) * 3  # of any length


def same(found, expected):
    assert set(found.values) == set(expected)
    for name, value in expected.items():
        assert found.values[name] == pytest.approx(value, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(("classes", "n", "used"), [(20, 150, 20), (5, 60, 5), (4, 60, 4), (12, 60, 9)])
def test_single_label_classification(classes, n, used):
    prompts = random(classes, classes, 3, WIDTH)
    labels = classes - 1 - np.random.default_rng(classes).integers(used, size=n)
    image = random(n, n, WIDTH) + 2 * ensemble(prompts)[labels].astype(np.float32)
    expected = host_classes(image, prompts, labels)
    assert 0.05 < expected["acc1"] < 1
    assert np.isnan(expected["acc5"]) == (classes < 5)
    same(zeroshot_classification(image, ensemble(prompts), labels), expected)


def test_several_labels_classification():
    prompts, n = random(0, 9, 2, WIDTH), 80
    labels = (np.random.default_rng(1).random((n, 9)) < 0.2).astype(np.int64)
    labels[:, 4] = 0  # a class without images
    image = random(1, n, WIDTH) + labels.astype(np.float32) @ ensemble(prompts).astype(np.float32)
    expected = host_classes(image, prompts, labels)
    assert 0.3 < expected["mean_average_precision"] < 0.9
    same(zeroshot_classification(image, ensemble(prompts), labels), expected)


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("block", [16, 2048])
def test_retrieval(most, block, monkeypatch):
    monkeypatch.setattr(retrieval, "mutual_ranks", partial(mutual_ranks, block=block))
    n = 60
    counts = np.random.default_rng(most).integers(1, most + 1, size=n)
    owner = np.repeat(np.arange(n), counts)
    image = random(2, n, WIDTH)
    text = random(3, len(owner), WIDTH) + image[owner]
    groups = np.split(np.arange(len(owner)), np.cumsum(counts)[:-1])
    loader = Loader(image, [[str(row) for row in group] for group in groups])
    expected = host_retrieval.evaluate(Given(text), loader, tokenizer, "cpu", amp=False, recall_k_list=[*AT, 23])
    assert 0.1 < expected["text_retrieval_recall@1"] < 0.9
    same(zeroshot_retrieval(image, text, owner, [*AT, 23]), expected)
    mixed = np.random.default_rng(0).permutation(len(owner))  # texts need not stand in the order of their images
    same(zeroshot_retrieval(image, text[mixed], owner[mixed], [*AT, 23]), expected)


@pytest.mark.parametrize(("images", "captions"), [(1, 2), (2, 2), (2, 3), (3, 2)])
def test_selection(images, captions):
    n = 90
    image = random(4, n, images, WIDTH)
    text = random(5, n, captions, WIDTH)
    both = min(images, captions)
    text[:, :both] += image[:, :both]
    names = np.arange(n * captions).reshape(n, captions).astype(str).tolist()
    loader = Loader(image.reshape(n, images, 1, 1, WIDTH), names)
    expected = host_selection.evaluate(Given(text.reshape(-1, WIDTH)), loader, tokenizer, "cpu", amp=False)
    assert 0.2 < expected["acc"] < 0.95
    same(image_caption_selection(image.reshape(-1, WIDTH), text.reshape(-1, WIDTH), n), expected)
    if images == 1 or captions == images:
        mixed = np.random.default_rng(0).permutation(n)  # texts need not stand in the order of their images
        owner = (np.arange(n * captions) * images // captions).reshape(n, captions)[mixed].ravel()
        stored = Embeddings(image.reshape(-1, WIDTH), text[mixed].reshape(-1, WIDTH), text_image=owner)
        same(evaluate(stored, "image_caption_selection", images_per_instance=images), expected)


@pytest.mark.parametrize("kind", ["captions", "classes"])
def test_a_model_from_its_images_to_the_numbers(kind, tiny_clip, captions_wds, classes_wds, tmp_path):
    model = load_model(ModelSpec(f"local-dir:{tiny_clip}"))
    dataset = load_dataset("wds/any", str({"captions": captions_wds, "classes": classes_wds}[kind]))
    stored = embed(model, dataset, Store(tmp_path), batch_size=BATCH, workers=0, quiet=True)
    rows = [dataset.samples.read(row) for row in range(len(dataset.samples))]
    images = torch.stack([model.preprocess(image) for _, image, _ in rows])
    targets = [target for _, _, target in rows]
    if kind == "captions":
        loader = Loader(images, targets)
        expected = host_retrieval.evaluate(model.encoder, loader, model.tokenizer, "cpu", amp=False, recall_k_list=AT)
        same(evaluate(stored, "zeroshot_retrieval"), expected)
    else:
        names = dataset.class_names
        loader = Loader(images, targets, names, torch.as_tensor)
        expected = host_classification.evaluate(
            model.encoder, loader, model.tokenizer, names, dataset.templates, "cpu", amp=False
        )
        same(evaluate(stored, "zeroshot_classification"), expected)
