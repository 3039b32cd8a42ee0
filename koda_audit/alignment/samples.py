"""Which samples an alignment was fitted on, so that it is not judged on the same ones unawares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koda_audit.alignment.maps import CHUNK
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.rows import Floats, Rows

SHORT = 1e-30  # entry: 1e-8 of it is a float32 with all its digits


def ingredient(embeddings: Embeddings, part: str, name: str) -> Any:
    """One of the ingredients of stored embeddings, such as the fingerprint of the dataset; None where it is unknown.

    >>> ingredient(Embeddings([[1.0]]), "dataset", "fingerprint") is None
    True
    """
    found: Any = embeddings.meta
    for key in ("ingredients", part, name):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def sample_keys(embeddings: Embeddings) -> NDArray[np.int64]:
    """(n, 2) two 64-bit hashes a sample: of its id within its dataset, and of its image vector in float32.

    A sample is known again by either: by its name when it was embedded once more, by its vector under another name.
    Ids that are only row numbers, of no known dataset, name nothing; there the vector counts alone.

    >>> a, b = Embeddings([[1.0], [2.0]]), Embeddings([[3.0], [4.0]])
    >>> bool(np.isin(sample_keys(a), sample_keys(b)).any())
    False
    """
    dataset = ingredient(embeddings, "dataset", "fingerprint")
    numbers = dataset is None and embeddings.ids == tuple(map(str, range(len(embeddings))))
    keys = np.empty((len(embeddings), 2), dtype=np.int64)
    for row, (sample, vector) in enumerate(zip(embeddings.ids, _vectors(embeddings.image), strict=True)):
        content = _hash(vector.tobytes())
        keys[row] = content if numbers else _hash(f"{dataset}\0{sample}".encode()), content
    return keys


def rows_sha256(*sides: Floats | Rows) -> str:
    """sha256 of rows in float32, as the store keeps them.

    >>> rows_sha256(np.zeros((1, 1))) == rows_sha256(np.zeros((1, 1), dtype=np.float32))
    True
    """
    state = hashlib.sha256()
    for side in sides:
        state.update(str(side.shape).encode())
        state.update(np.ascontiguousarray(_float32(side)).data)
    return state.hexdigest()


def _vectors(image: Floats | Rows) -> Iterator[Floats]:
    """Row by row in float32; what lies on disk is read in large parts."""
    for start in range(0, len(image), CHUNK):
        yield from _float32(image[start : start + CHUNK])


def _float32(rows: Floats | Rows) -> Floats:
    """Rows in float32; those that are too long or too short for it at a length of their own."""
    values = np.asarray(rows)
    if values.dtype == np.float32:
        return values
    largest = np.abs(values).max(axis=1, keepdims=True)
    fits = (largest > SHORT) & (largest < 1 / SHORT) | (largest == 0)
    scaled: Floats = (values / np.where(fits, 1.0, largest)).astype(np.float32)
    return scaled


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big", signed=True)
