from __future__ import annotations

from koda_audit.discrepancy.themes import shared_words


def test_words_that_set_a_lobe_apart() -> None:
    captions = ["A red seven.", "red one", "the red, red nine", "blue seven", "green seven", "a blue one"]
    words = shared_words(captions, [0, 1, 2])
    assert words[0] == ("red", 1.0, 0.0)
    assert all(inside - outside >= 0.25 for _, inside, outside in words)


def test_names_of_classes_are_taken_whole() -> None:
    names = ["t shirt", "t shirt", "shirt", "long shirt"]
    assert shared_words(names, [0, 1], whole=True) == [("t shirt", 1.0, 0.0)]
    assert shared_words(["a t-shirt", "a shirt"], [0]) == [("t-shirt", 1.0, 0.0)]


def test_nothing_is_shared_where_all_are_alike() -> None:
    assert shared_words(["a cat", "a cat", "a cat"], [0]) == []
    assert shared_words([], []) == []
    assert shared_words(["a", "b"], [0, 1]) == [("a", 0.5, 0.0), ("b", 0.5, 0.0)]
