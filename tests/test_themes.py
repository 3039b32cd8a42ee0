from __future__ import annotations

import numpy as np
import pytest

from koda_audit import Embeddings
from koda_audit.discrepancy.themes import Themes, sample_texts, terms


def shared_words(captions, members, most=2, whole=False):
    return Themes(captions, whole).shared(members, most)


def test_words_that_set_a_lobe_apart() -> None:
    captions = ["A red seven.", "red one", "the red, red nine", "blue seven", "green seven", "a blue one"]
    words = shared_words(captions, [0, 1, 2])
    assert words[0] == ("red", 1.0, 0.0)
    assert all(inside - outside >= 0.25 for _, inside, outside in words)


def test_names_of_classes_are_taken_whole() -> None:
    names = ["t shirt", "t shirt", "shirt", "long shirt"]
    assert shared_words(names, [0, 1], whole=True) == [("t shirt", 1.0, 0.0)]
    assert shared_words(["a t-shirt", "a shirt"], [0]) == [("t-shirt", 1.0, 0.0)]
    mixed = ["ice cream", "ice cream", "ice", "cake", "cake", "cake"]
    assert [word for word, _, _ in shared_words(mixed, [0, 1, 2], whole=True)] == [
        "ice cream"
    ]  # one "ice" is not shared


def test_nothing_is_shared_where_all_are_alike() -> None:
    assert shared_words(["a cat", "a cat", "a cat"], [0]) == []
    assert shared_words([], []) == []
    assert shared_words(["a", "b"], [0, 1]) == []


def test_empty_captions() -> None:
    assert shared_words(["", "", ""], [0]) == []
    assert shared_words(["<!-- -->", "..."], [0]) == []
    assert shared_words(["", "", "a dog"], [0, 1]) == []
    assert shared_words(["a dog", "", "", ""], [0]) == [("a dog", 1.0, 0.0)]
    assert shared_words(["", "", "cat"], [2], whole=True) == [("cat", 1.0, 0.0)]


def test_scores_are_those_of_plain_numpy() -> None:
    random = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    chance = np.where(np.arange(40)[:, None] < 15, np.linspace(0.9, 0.1, 12), np.linspace(0.1, 0.9, 12))
    # every word twice and in a row of its own: no two words stand together
    present = random.random((40, 12)) < chance
    captions = [" 标 ".join(word for word, has in zip(words, row, strict=True) if has) for row in present]
    counts = np.array([[terms(caption).count(word) for word in [*words, "标"]] for caption in captions], dtype=float)
    weights = counts * (np.log((1 + 40) / (1 + (counts > 0).sum(axis=0))) + 1)
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    weights /= np.where(lengths > 0, lengths, 1)
    score = weights[:15].mean(axis=0) - weights[15:].mean(axis=0)
    shares = (counts[:15] > 0).mean(axis=0), (counts[15:] > 0).mean(axis=0)
    clear = [i for i in range(13) if shares[0][i] - shares[1][i] >= 0.25]
    expected = sorted(clear, key=lambda i: -score[i])
    found = shared_words(captions, range(15), most=20)
    assert [word for word, _, _ in found] == [[*words, "标"][i] for i in expected]
    assert len(found) > 3
    for (_, inside, outside), i in zip(found, expected, strict=True):
        assert (inside, outside) == pytest.approx((shares[0][i], shares[1][i]))


def test_two_words_in_a_row_only_where_they_say_more() -> None:
    grounds = ["a one on a purple ground"] * 4 + ["a purple two on a red ground"] * 4 + ["a one on a red ground"] * 4
    assert shared_words(grounds, range(4), most=9) == [("purple ground", 1.0, 0.0), ("one", 1.0, 0.5)]
    told = [word for word, _, _ in shared_words(["a zebra"] * 3 + ["a dog"] * 3, range(3), most=9)]
    assert told == ["zebra"]
    courts = ["the tennis court", "a tennis court", "a red tennis court", "a food court", "a dog", "a cat", "the cat"]
    assert shared_words(courts, range(3), most=1) == [("tennis court", 1.0, 0.0)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("", []),
        ("<b>Red</b>", ["b", "red", "b", "b red", "red b"]),
        ("\x1b[31m`x`|$y$", ["31m", "x", "y", "31m x", "x y"]),
        ("rock'n'roll --- 'tis_", ["rock'n'roll", "tis", "rock'n'roll tis"]),
        ("हिन्दी में", ["हिन्दी", "में", "हिन्दी में"]),
        ("Cafe\u0301", ["café"]),
        ("马", ["马"]),
        ("写真:red カメラ one", ["写真", "red", "カメ", "メラ", "one"]),
        ("Жёлтый", ["жёлтый"]),
    ],
)
def test_words_of_any_script(caption: str, expected: list[str]) -> None:
    assert terms(caption) == expected


def test_chinese_captions() -> None:
    captions = ["两只斑马在草地上", "斑马", "一群斑马站着", "一只狗在草地上", "狗", "草地上的猫"]
    assert shared_words(captions, [0, 1, 2], most=1) == [("斑马", 1.0, 0.0)]


def test_the_same_whatever_the_order_and_the_other_lobes() -> None:
    captions = ["red cat", "red dog", "blue cat", "blue dog", "grey mouse"]
    themes = Themes(captions)
    assert themes.shared([2, 3]) == shared_words(captions, iter([3, 2, 3]))
    order = [4, 2, 0, 3, 1]
    assert shared_words([captions[i] for i in order], [order.index(0), order.index(1)], most=9) == themes.shared(
        [0, 1], most=9
    )


def test_texts_of_samples() -> None:
    image = np.eye(3)
    captioned = Embeddings(image, np.eye(3)[[2, 0, 0]], text_image=[2, 0, 0], captions=["c", "a", "b"])
    assert sample_texts(captioned) == (("a", "", "c"), False)
    labelled = Embeddings(image, labels=[0, 1, 0], class_text=np.eye(2, 3), class_names=["x y", "z"])
    assert sample_texts(labelled) == (("x y", "z", "x y"), True)
    prompts = np.array([[0.0, 5, 0], [1, 0, 1]])
    assert sample_texts(Embeddings(image, class_text=prompts)) == (("1", "0", "1"), True)
    assert sample_texts(Embeddings(image, class_text=np.eye(2))) is None
    assert sample_texts(Embeddings(image)) is None
    assert sample_texts(Embeddings(image, np.eye(3))) is None
    several = Embeddings(image, labels=np.eye(3, dtype=int), class_text=np.eye(3))
    assert sample_texts(several) is None
