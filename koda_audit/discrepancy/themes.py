"""The words that set the captions of a group apart."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from koda_audit._arrays import OnDevice
from koda_audit._kernels.directions import directions
from koda_audit.embeddings.container import Embeddings

CLEAR = 0.25  # smallest difference of shares that is worth a reader's time
MORE = 0.05  # difference of shares that two words in a row must gain, or may lose, against the better of the two
BLOCK = 4096  # images whose nearest class is sought at a time

JOINERS = "-'’_"  # within a word, not at its ends
# Chinese characters and Japanese syllables, written without spaces
UNSPACED = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

Floats = NDArray[Any]
Shared = list[tuple[str, float, float]]


class Themes:
    """The words of all captions, counted once; then those of any group. ``tfidf`` is (n, terms) or None without words.

    Args:
        captions: (n,) one text a sample, possibly empty.
        whole: takes each caption as one word: the name of a class.

    >>> themes = Themes(["a red cat", "a red dog", "a blue cat", "a blue dog"])
    >>> themes.shared([0, 1]), themes.shared([2, 3])
    ([('red', 1.0, 0.0)], [('blue', 1.0, 0.0)])
    """

    def __init__(self, captions: Sequence[str], whole: bool = False) -> None:
        self._n, self._whole = len(captions), whole
        analyzer = _one_term if whole else terms
        self._column: dict[str, int] = {}
        self.tfidf: Any = None
        if any(map(analyzer, captions)):  # scikit-learn refuses texts without a single word
            vectorizer = TfidfVectorizer(analyzer=analyzer)
            self.tfidf = vectorizer.fit_transform(captions).tocsr()
            self._column = vectorizer.vocabulary_
            self._weight, self._count = _sums(self.tfidf)

    def shared(self, members: Iterable[int], most: int = 2) -> Shared:
        """(word, share of the members' captions with it, share of the others'), best first, at most ``most``.

        A word's score is its mean TF-IDF over the members minus that over the others (each caption a vector of length
        1, as in scikit-learn), and it must stand in at least a quarter more of the members' captions than of the
        others', and in two of them at least. Two words in a row take the place of both where they say more: the
        difference of their shares is larger than that of either by more than 0.05; or both words stand out by
        themselves, and together as much, within 0.05. These rules are ours. Empty where nothing stands out.
        """
        rows = sorted(set(members))
        if not self._column or not rows:
            return []
        weight, count = _sums(self.tfidf[rows])
        n_in, n_out = len(rows), max(self._n - len(rows), 1)
        inside, outside = count / n_in, (self._count - count) / n_out
        # rounded, so that the order of equal words is that of the alphabet and not of rounding
        score = np.round(weight / n_in - (self._weight - weight) / n_out, 9)
        apart = inside - outside
        several = count >= min(2, n_in)
        clear = [term for term, at in self._column.items() if apart[at] >= CLEAR and several[at]]
        if not self._whole:
            clear = self._telling(clear, apart)
        best = sorted(clear, key=lambda term: (-score[self._column[term]], term))[:most]
        return [(term, float(inside[self._column[term]]), float(outside[self._column[term]])) for term in best]

    def _telling(self, clear: list[str], apart: Floats) -> list[str]:
        """Single words, and the pairs that say more than their words, which then go."""
        words = {term: term.split(" ") for term in clear if " " in term}
        telling = set()
        for pair, both in words.items():
            gain = apart[self._column[pair]] - max(apart[self._column[word]] for word in both)
            if gain > MORE or (gain >= -MORE and all(word in clear for word in both)):
                telling.add(pair)
        replaced = {word for pair in telling for word in words[pair]}
        return [term for term in clear if term in telling or (term not in words and term not in replaced)]


def sample_texts(model: Embeddings) -> tuple[tuple[str, ...], bool] | None:
    """What is known of each sample in words, and whether each text is one word: the name of a class.

    The first caption of each image ("" where it has none); or the name of its class; or, where there are neither
    captions nor labels, that of the class whose prompt lies nearest to the image (cosine). None where there is nothing
    of this, with several labels an image, or where prompts and images differ in width and there are no labels.

    >>> sample_texts(Embeddings([[2.0, 0.0], [1.0, 3.0]], class_text=np.eye(2), class_names=["cat", "dog"]))
    (('cat', 'dog'), True)
    """
    if model.text is not None and model.captions is not None:
        assert model.text_image is not None
        first = [""] * len(model)
        for image, caption in zip(model.text_image[::-1], model.captions[::-1], strict=True):
            first[image] = caption
        return tuple(first), False
    if model.class_text is None or (model.labels is not None and model.labels.ndim == 2):
        return None
    labels = model.labels
    if labels is None:
        if model.class_text.shape[1] != model.image.shape[1]:
            return None
        labels = nearest_classes(model.image, model.class_text)
    names = model.class_names or tuple(str(c) for c in range(len(model.class_text)))
    return tuple(names[label] for label in labels), True


def terms(caption: str) -> list[str]:
    """The words of a caption in small letters, then every two in a row.

    A word is a run of letters, their marks and digits; ``-`` and ``'`` may stand within. Where a script has no spaces,
    every two neighbouring characters are a word. Nothing else is left, whatever markup a caption holds.

    >>> terms("A red t-shirt!")
    ['a', 'red', 't-shirt', 'a red', 'red t-shirt']
    >>> terms("斑马在草地")
    ['斑马', '马在', '在草', '草地']
    """
    text = unicodedata.normalize("NFKC", caption).lower()
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c in JOINERS else " " for c in text)
    spaced = re.sub(f"([{UNSPACED}]+)", r" \1 ", kept)
    words: list[str] = []
    pairs: list[str] = []
    previous = None
    for word in filter(None, (run.strip(JOINERS) for run in spaced.split())):
        if re.match(f"[{UNSPACED}]", word):
            words += [word] if len(word) == 1 else [a + b for a, b in pairwise(word)]
            previous = None
            continue
        words.append(word)
        if previous is not None:
            pairs.append(f"{previous} {word}")
        previous = word
    return words + pairs


def _one_term(caption: str) -> list[str]:
    return [caption] if caption else []


def _sums(tfidf: Any) -> tuple[Floats, Floats]:
    """Of each column of a sparse (n, terms) matrix: its sum, and in how many rows it is not 0."""
    return np.asarray(tfidf.sum(axis=0)).ravel(), tfidf.getnnz(axis=0)


def nearest_classes(images: Any, prompts: Floats) -> NDArray[np.int64]:
    """(n,) the class whose prompt (C, d) lies nearest to each image (n, d), the first of equals."""
    classes = directions(torch.from_numpy(np.array(prompts, dtype=np.float64)), "class prompt")
    image = OnDevice(images, torch.device("cpu"))
    parts = [
        (directions(image[start : start + BLOCK], "image") @ classes.T).argmax(dim=1)
        for start in range(0, len(image), BLOCK)
    ]
    return torch.cat(parts).numpy()
