"""What the captions of a lobe have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

CLEAR = 0.25  # smallest difference of shares that is worth a reader's time


def shared_words(
    captions: Sequence[str], members: Iterable[int], most: int = 2, whole: bool = False
) -> list[tuple[str, float, float]]:
    """The words that set some captions apart: (word, share of the members with it, share of the others), best first.

    A word counts once a caption; the score is the difference of the two shares (ours). Empty where no word stands out.
    ``whole`` takes each caption as one word: the name of a class.

    >>> shared_words(["a red cat", "a red dog", "a blue cat", "a blue dog"], members=[0, 1])
    [('red', 1.0, 0.0)]
    """
    chosen = set(members)
    inside: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    for row, caption in enumerate(captions):
        words = {caption} if whole else set(re.findall(r"\w+(?:[-']\w+)*", caption.lower()))
        (inside if row in chosen else outside).update(words)
    n_in, n_out = max(len(chosen), 1), max(len(captions) - len(chosen), 1)
    shares = [(word, inside[word] / n_in, outside[word] / n_out) for word in inside]
    clear = [entry for entry in shares if entry[1] - entry[2] >= CLEAR]
    return sorted(clear, key=lambda entry: (entry[2] - entry[1], entry[0]))[:most]
