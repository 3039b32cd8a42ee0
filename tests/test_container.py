from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koda_audit import Embeddings
from koda_audit.errors import DataError, InputError

X = np.arange(1.0, 13.0).reshape(4, 3)
IDS = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": [1.0, 2.0]}, InputError, r"image has shape \(2,\)"),
        ({"image": np.zeros((0, 3))}, InputError, "shape"),
        ({"image": X.astype(complex)}, InputError, "complex128: expected real"),
        ({"image": X.astype(object)}, InputError, "object: expected real"),
        ({"image": [[1.0, 2.0], [3.0]]}, InputError, "image is no matrix of numbers"),
        ({"image": np.ma.masked_equal(X, 5)}, InputError, "image has masked entries"),
        ({"image": X, "labels": np.ma.masked_equal([0, 1, 2, 3], 1)}, InputError, "labels has masked entries"),
        ({"image": X, "labels": np.arange(4) + 1j}, InputError, "labels must be whole numbers, found complex128"),
        ({"image": X.astype(np.longdouble) * np.longdouble("1e400")}, DataError, "sample '0' is not finite"),
        ({"image": X, "ids": 5}, InputError, "ids is of type int"),
        ({"image": X, "text": X, "captions": "text"}, InputError, "captions is of type str"),
        ({"image": X, "text": X, "captions": [1, 2, 3, 4]}, InputError, "captions must be texts"),
        ({"image": X, "text": X, "text_image": [0.5, 1, 2, 3]}, InputError, "text_image must be whole numbers"),
        ({"image": X, "text": X, "text_image": [np.nan, 1, 2, 3]}, InputError, "text_image must be whole numbers"),
        ({"image": X, "labels": ["cat", "dog", "cat", "dog"]}, InputError, "labels must be whole numbers"),
        ({"image": X, "labels": [[0], [0, 1], [1], [1]]}, InputError, "labels must be whole numbers"),
        ({"image": X, "meta": 5}, InputError, "meta is of type int"),
        ({"image": X, "ids": ["a", "b"]}, InputError, "2 ids for 4 image rows"),
        ({"image": X, "ids": ["a", "b", "a", "c"]}, InputError, "'a' occurs more than once"),
        ({"image": X * [[1], [1], [0], [1]], "ids": IDS}, DataError, "image embedding of sample 'c' is all zero"),
        ({"image": np.where(X == 5, np.nan, X), "ids": IDS}, DataError, "sample 'b' is not finite"),
        ({"image": np.where(X == 5, 1e200, X), "ids": IDS}, DataError, "sample 'b' is too large"),
        (
            {"image": X, "ids": ["a", "b", "c", "\ud800"]},
            InputError,
            "ids: entry 3 is '.ud800', which no file can hold",
        ),
        ({"image": np.where(X == 5, np.inf, X), "ids": IDS}, DataError, "sample 'b' is not finite"),
        ({"image": X, "text": X[:3]}, InputError, "3 text rows for 4 images: say with text_image"),
        ({"image": X, "text": X, "text_image": [0, 1, 2, 4]}, InputError, r"in 0..3, found 0..4"),
        ({"image": X, "text": X, "captions": ["x"]}, InputError, "1 captions for 4"),
        ({"image": X, "captions": IDS}, InputError, "without text"),
        ({"image": X, "text": X * [[1], [0], [1], [1]], "ids": IDS}, DataError, "text embedding of sample 'b'"),
        ({"image": X, "labels": [0, 1]}, InputError, "labels of shape"),
        ({"image": X, "labels": [0, 1, 2, 0], "class_text": X[:2], "ids": IDS}, DataError, "'c' has label 2, but"),
        ({"image": X, "class_text": X[:2], "class_names": ["x"]}, InputError, "1 class names for 2"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Embeddings(**arguments)  # type: ignore[arg-type]


def test_pairs_take_the_first_caption_of_each_image() -> None:
    text = np.arange(1.0, 11.0).reshape(5, 2)
    a = Embeddings(X[:3], text, text_image=[2, 0, 2, 1, 0], captions=["c1", "a1", "c2", "b1", "a2"])
    pairs = a.pairs()
    assert pairs.captions == ("a1", "b1", "c1")
    np.testing.assert_array_equal(pairs.text, text[[1, 3, 0]])


def test_pairs_need_a_caption_an_image() -> None:
    with pytest.raises(DataError, match="sample '1' has no caption"):
        Embeddings(X[:2], X[:2], text_image=[0, 0]).pairs()


def test_pairs_fall_back_on_the_prompt_of_the_class() -> None:
    a = Embeddings(X, labels=[1, 0, 1, 1], class_text=X[:2], class_names=["cat", "dog"])
    assert a.pairs().captions == ("dog", "cat", "dog", "dog")
    np.testing.assert_array_equal(a.pairs().text, X[[1, 0, 1, 1]])
    assert Embeddings(X).pairs().text is None
    with pytest.raises(DataError, match="modality='image'"):
        Embeddings(X, labels=np.eye(4, 2), class_text=X[:2]).pairs()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_alignment_by_id_moves_whole_samples(order: list[int], owners: list[int]) -> None:
    captions = [f"{owner}-{position}" for position, owner in enumerate(owners)]
    text = np.array([[owner + 1.0, position + 1.0] for position, owner in enumerate(owners)])
    a = Embeddings(X, text, ids=IDS, text_image=owners, captions=captions, labels=[0, 1, 2, 3])
    b = a.aligned_to([IDS[row] for row in order])
    np.testing.assert_array_equal(b.image, X[order])
    assert b.labels is not None
    assert b.text is not None
    assert b.text_image is not None
    assert b.labels.tolist() == order
    for row, vector, caption in zip(b.text_image, b.text, b.captions or (), strict=True):
        assert caption.startswith(f"{IDS.index(b.ids[row])}-")
        assert vector[0] == IDS.index(b.ids[row]) + 1
    c = b.aligned_to(IDS)
    np.testing.assert_array_equal(c.image, X)
    # captions of one image keep their order
    assert [t for t in c.captions or () if t[0] == "0"] == [t for t in captions if t[0] == "0"]


def test_some_samples_keep_their_texts() -> None:
    whole = Embeddings(
        X, np.arange(18.0).reshape(6, 3) + 1, ids=IDS, text_image=[3, 0, 1, 1, 3, 0], captions=list("uvwxyz")
    )
    some = whole.take(np.array([3, 1]))
    assert (some.ids, some.captions) == (("d", "b"), ("u", "y", "w", "x"))
    np.testing.assert_array_equal(some.image, X[[3, 1]])
    assert some.text is not None
    np.testing.assert_array_equal(some.text, np.asarray(whole.text)[[0, 4, 2, 3]])
    np.testing.assert_array_equal(some.text_image, [0, 0, 1, 1])


def test_alignment_counts_and_names_what_does_not_match() -> None:
    a = Embeddings(X, ids=IDS)
    with pytest.raises(DataError, match=r"1 missing \(first: e\); 1 not expected \(first: d\)"):
        a.aligned_to(["a", "b", "c", "e"])
