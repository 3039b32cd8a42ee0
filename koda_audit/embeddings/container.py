"""The embeddings of one dataset under one model: the only thing that measures, alignments and benchmarks read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from koda_audit.embeddings.checks import check_rows, listed, matrix, texts, whole_numbers
from koda_audit.embeddings.files import ALONE, Shard, read_all, write_all
from koda_audit.embeddings.rows import Floats, Rows
from koda_audit.errors import DataError, InputError


@dataclass(frozen=True)
class Pairs:
    """Image-text pairs, one text an image: ``image`` (n, d_i), ``text`` (n, d_t) or None, ``captions`` (n,) or None."""

    ids: tuple[str, ...]
    image: Floats | Rows
    text: Floats | Rows | None
    captions: tuple[str, ...] | None


class Embeddings:
    """Raw (not normalised) vectors of one dataset under one model.

    ``image`` and ``text`` are arrays, or ``Rows``, which are read from disk where they are indexed and behave as arrays
    everywhere else.

    Args:
        image: (n, d_i), one row an image.
        text: (m, d_t), one row a caption, or None.
        ids: (n,) unique sample ids; default "0" … "n-1".
        text_image: (m,) the image row of each text; default one text an image, in order.
        captions: (m,) the texts themselves.
        labels: (n,) class index of each image, or (n, C) zeros and ones for several labels an image.
        class_text: (C, d_t) one vector a class (the prompt ensemble as the host builds it: unit length).
        class_names: (C,) names of the classes.
        meta: where the vectors come from; plain JSON types.

    Raises:
        InputError: shapes that do not fit, ids that are not unique.
        DataError: a row that is zero or not finite; the message names its sample.

    >>> a = Embeddings([[1.0, 0.0], [0.0, 2.0]], ids=["cat", "dog"])
    >>> len(a), a.image.shape, a.pairs().ids
    (2, (2, 2), ('cat', 'dog'))
    """

    def __init__(
        self,
        image: ArrayLike,
        text: ArrayLike | None = None,
        *,
        ids: Sequence[str] | None = None,
        text_image: ArrayLike | None = None,
        captions: Sequence[str] | None = None,
        labels: ArrayLike | None = None,
        class_text: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.image = matrix(image, "image")
        n = len(self.image)
        self.ids = (
            tuple(str(i) for i in range(n)) if ids is None else texts([str(i) for i in listed(ids, "ids")], "ids")
        )
        if len(self.ids) != n:
            raise InputError(f"{len(self.ids)} ids for {n} image rows: give one id an image")
        if len(set(self.ids)) != n:
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise InputError(f"sample id '{twice}' occurs more than once: ids must be unique")
        check_rows(self.image, self.ids, "image")

        self.text = None if text is None else matrix(text, "text")
        self.text_image: NDArray[np.int64] | None = None
        self.captions = None if captions is None else texts(captions, "captions")
        if self.text is None:
            if captions is not None or text_image is not None:
                raise InputError("captions or text_image without text: give the text vectors too")
        else:
            m = len(self.text)
            rows = np.arange(m) if text_image is None else whole_numbers(text_image, "text_image")
            if rows.shape != (m,) or (text_image is None and m != n):
                raise InputError(f"{m} text rows for {n} images: say with text_image which image each text belongs to")
            if m and (rows.min() < 0 or rows.max() >= n):
                raise InputError(f"text_image must lie in 0..{n - 1}, found {rows.min()}..{rows.max()}")
            self.text_image = rows.astype(np.int64)
            if self.captions is not None and len(self.captions) != m:
                raise InputError(f"{len(self.captions)} captions for {m} text rows")
            check_rows(self.text, [self.ids[row] for row in self.text_image], "text")

        self.labels = None if labels is None else whole_numbers(labels, "labels")
        if self.labels is not None and (self.labels.ndim not in (1, 2) or len(self.labels) != n):
            raise InputError(f"labels of shape {self.labels.shape} for {n} images: expected ({n},) or ({n}, classes)")
        self.class_text = None if class_text is None else np.asarray(matrix(class_text, "class_text"))
        self.class_names = (
            None
            if class_names is None
            else texts([str(name) for name in listed(class_names, "class_names")], "class_names")
        )
        if self.class_text is not None:
            names = self.class_names or tuple(str(c) for c in range(len(self.class_text)))
            if len(names) != len(self.class_text):
                raise InputError(f"{len(names)} class names for {len(self.class_text)} rows of class_text")
            check_rows(self.class_text, names, "class prompt")
            self._check_labels(len(self.class_text))
        if meta is not None and not isinstance(meta, Mapping):
            raise InputError(f"meta is of type {type(meta).__name__}: expected a mapping")
        self.meta: dict[str, Any] = dict(meta or {})

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        shapes = [f"image {self.image.shape}"]
        if self.text is not None:
            shapes.append(f"text {self.text.shape}")
        if self.class_text is not None:
            shapes.append(f"class_text {self.class_text.shape}")
        return f"Embeddings({self.meta.get('model', 'unnamed')}: {', '.join(shapes)})"

    def pairs(self) -> Pairs:
        """One text an image: its first caption, or else the prompt ensemble of its class.

        ``text`` and ``captions`` are None where there is neither.

        Raises:
            DataError: an image without a caption, or with several labels.
        """
        if self.text is not None:
            first = np.full(len(self), -1, dtype=np.int64)
            assert self.text_image is not None
            # written backwards, so that the first caption of an image is the one that stays
            first[self.text_image[::-1]] = np.arange(len(self.text))[::-1]
            if (first < 0).any():
                raise DataError(f"sample '{self.ids[int(np.argmin(first))]}' has no caption: every image needs one")
            captions = None if self.captions is None else tuple(self.captions[i] for i in first)
            one_each = np.array_equal(first, np.arange(len(self.text)))
            return Pairs(self.ids, self.image, self.text if one_each else _taken(self.text, first), captions)
        if self.class_text is not None and self.labels is not None:
            if self.labels.ndim == 2:
                raise DataError("samples with several labels have no single class prompt: use modality='image'")
            names = self.class_names or tuple(str(c) for c in range(len(self.class_text)))
            captions = tuple(names[label] for label in self.labels)
            return Pairs(self.ids, self.image, _taken(self.class_text, self.labels), captions)
        return Pairs(self.ids, self.image, None, None)

    def aligned_to(self, ids: Sequence[str]) -> Embeddings:
        """The same samples in the order of ``ids``; never by file order.

        Raises:
            DataError: the two sets of ids differ; the message counts them and names the first ones.
        """
        if tuple(ids) == self.ids:
            return self
        mine, theirs = set(self.ids), set(ids)
        if mine != theirs:
            missing, extra = sorted(theirs - mine), sorted(mine - theirs)
            parts = []
            if missing:
                parts.append(f"{len(missing)} missing (first: {', '.join(missing[:3])})")
            if extra:
                parts.append(f"{len(extra)} not expected (first: {', '.join(extra[:3])})")
            raise DataError(
                f"sample ids do not match: {'; '.join(parts)}; embed both models on the same samples of one dataset"
            )
        row_of = {sample: row for row, sample in enumerate(self.ids)}
        return self.take(np.array([row_of[sample] for sample in ids], dtype=np.int64))

    def take(self, order: NDArray[np.int64]) -> Embeddings:
        """Some samples with their texts, in this order; nothing is read.

        Args:
            order: their rows, none of them twice.

        >>> Embeddings([[1.0], [2.0]], [[3.0], [4.0], [5.0]], text_image=[0, 1, 1]).take(np.array([1])).text.tolist()
        [[4.0], [5.0]]
        """
        text, text_image, captions = self.text, self.text_image, self.captions
        if text is not None and text_image is not None:
            new_row = np.full(len(self), -1, dtype=np.int64)
            new_row[order] = np.arange(len(order))
            owners = new_row[text_image]
            text_order = np.argsort(owners, kind="stable")[(owners < 0).sum() :]
            text, text_image = _taken(text, text_order), owners[text_order]
            captions = None if captions is None else tuple(captions[i] for i in text_order)
        return Embeddings(
            _taken(self.image, order),
            text,
            ids=[self.ids[row] for row in order],
            text_image=text_image,
            captions=captions,
            labels=None if self.labels is None else self.labels[order],
            class_text=self.class_text,
            class_names=self.class_names,
            meta=self.meta,
        )

    def with_classes(self, classes: Embeddings) -> Embeddings:
        """The same with the labels and class prompts of ``classes``, which has the same samples.

        Raises:
            DataError: sample ids that differ.

        >>> labelled = Embeddings([[1.0], [2.0]], ids=["b", "a"], labels=[0, 1], class_text=[[1.0], [3.0]])
        >>> Embeddings([[5.0], [6.0]], ids=["a", "b"]).with_classes(labelled).labels.tolist()
        [1, 0]
        """
        other = classes.aligned_to(self.ids)
        return Embeddings(
            self.image,
            self.text,
            ids=self.ids,
            text_image=self.text_image,
            captions=self.captions,
            labels=other.labels,
            class_text=other.class_text,
            class_names=other.class_names,
            meta=self.meta,
        )

    def save(self, folder: str | Path) -> None:
        """Write to ``folder`` (float32 .npy and a JSON manifest with checksums); replaces embeddings that lie there.

        Raises:
            StoreError: the folder cannot be written.
        """
        rows, labels = self.text_image, self.labels
        shard = Shard(
            self.ids,
            self.image,
            self.text,
            None if rows is None else tuple(rows.tolist()),
            self.captions,
            None if labels is None else tuple(labels.tolist()),
        )
        write_all(Path(folder), shard, {**self.meta, "class_names": self.class_names}, self.class_text)

    @classmethod
    def load(cls, folder: str | Path, key: str = ALONE) -> Embeddings:
        """Read what ``save`` wrote; checksums are verified. ``key`` is for the entries of a store.

        Vectors stay on disk: they are mapped while they are indexed, so memory does not grow with their number.

        Raises:
            StoreError: missing or damaged; the message names the file.
        """
        shards, meta, class_text = read_all(Path(folder), key)
        class_names = meta.pop("class_names", None)
        return cls.from_shards(shards, class_text=class_text, class_names=class_names, meta=meta)

    @classmethod
    def from_shards(cls, shards: Sequence[Shard], **arguments: Any) -> Embeddings:
        """Consecutive shards as one; none is read. Equal ids get the suffixes -2, -3, …"""
        starts = np.cumsum([0, *(len(shard.ids) for shard in shards)])
        texts = [shard.text for shard in shards if shard.text is not None]
        owners = [
            np.asarray(shard.text_image, dtype=np.int64) + start
            for shard, start in zip(shards, starts, strict=False)
            if shard.text_image is not None
        ]
        return cls(
            Rows([shard.image for shard in shards]),
            Rows(texts) if texts else None,
            ids=_unique([sample for shard in shards for sample in shard.ids]),
            text_image=np.concatenate(owners) if owners else None,
            captions=[text for shard in shards for text in shard.captions or ()] or None,
            labels=[label for shard in shards for label in shard.labels or ()] or None,
            **arguments,
        )

    def _check_labels(self, classes: int) -> None:
        if self.labels is None:
            return
        if self.labels.ndim == 2 and self.labels.shape[1] != classes:
            raise InputError(f"labels have {self.labels.shape[1]} columns for {classes} classes")
        if self.labels.ndim == 1 and len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < classes:
            worst = int(np.argmax((self.labels < 0) | (self.labels >= classes)))
            raise DataError(
                f"sample '{self.ids[worst]}' has label {self.labels[worst]}, but there are {classes} classes: "
                "check the class names of the dataset"
            )


def check_embeddings(value: Any, name: str) -> None:
    """Raises InputError for what is none.

    >>> check_embeddings(Embeddings([[1.0]]), "train")
    """
    if not isinstance(value, Embeddings):
        raise InputError(f"{name} is of type {type(value).__name__}: expected koda_audit.Embeddings")


def _unique(ids: Sequence[str]) -> list[str]:
    """Equal ids (the same image twice) told apart, in their order.

    >>> _unique(["a", "b", "a"])
    ['a', 'b', 'a-2']
    """
    seen: Counter[str] = Counter()
    result = []
    for sample in ids:
        seen[sample] += 1
        result.append(sample if seen[sample] == 1 else f"{sample}-{seen[sample]}")
    return result


def _taken(vectors: Floats | Rows, order: NDArray[np.int64]) -> Rows:
    return (vectors if isinstance(vectors, Rows) else Rows([vectors])).take(order)
