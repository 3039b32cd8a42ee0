"""The samples on which widths are set and groups are tested, drawn by their ids, and both kernels among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

from koda_audit._kernels.blocks import Blocks

Floats = NDArray[np.float64]
POOL = 2_000  # samples: all of them up to here
MARGIN = 0.3  # least separation of a finding
KEPT = 0.5  # largest retention of a finding
SAME = 0.85  # similarity between two groups, in that within the looser one, from which they are one


def drawn(ids: Sequence[str], seed: int = 0) -> NDArray[np.int64]:
    """(p,) rows of at most 2,000 samples, in an order that depends on the ids and the seed and not on their order.

    >>> ids = ["cat", "dog", "eel"]
    >>> [ids[row] for row in drawn(ids)] == [ids[::-1][row] for row in drawn(ids[::-1])]
    True
    """
    key = seed.to_bytes(8, "little")
    hashes = np.array(
        [blake2b(sample.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest() for sample in ids]
    )
    return np.argsort(hashes, kind="stable")[:POOL]


@dataclass(frozen=True)
class Pool:
    """``rows`` (p,) and the kernels of both models among them, (p, p) with k(x, x) = 1."""

    rows: NDArray[np.int64]
    target: Floats
    reference: Floats

    @classmethod
    def of(cls, rows: NDArray[np.int64], target: Blocks, reference: Blocks) -> Pool:
        chosen = torch.from_numpy(rows)
        kernels = (blocks.part(chosen).mul_(blocks.n).numpy() for blocks in (target, reference))
        return cls(rows, *kernels)

    @cached_property
    def sums(self) -> tuple[Floats, Floats]:
        """Sum of each row of both kernels."""
        return self.target.sum(axis=0), self.reference.sum(axis=0)

    def same(self, marks: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(G, G): whether the target takes two groups (p, G) for one: their samples are as alike across as within.

        A large group comes with directions of what varies in it, and a column for each. (Ours.)
        """
        group = marks.astype(np.float64)
        common = group.T @ group
        pairs = np.outer(common.diagonal(), common.diagonal()) - common
        with np.errstate(invalid="ignore", divide="ignore"):
            alike = (group.T @ self.target @ group - common) / pairs
        within = np.minimum.outer(alike.diagonal(), alike.diagonal())
        same: NDArray[np.bool_] = alike >= SAME * within
        return same

    def apart(self, marks: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """``separation`` and ``retention`` of groups (p, G) of the pool's samples; nan where a group has no pair.

        separation = 1 - mean k(S, others) / mean k within S of the target, over pairs i < j: 0 where the group is no
        denser than what surrounds it. retention = (within - across) of the reference in parts of that of the target:
        how much of the group the reference keeps. Both are ours.

        >>> pool = Pool(np.arange(3), np.array([[1, 0.8, 0.2], [0.8, 1, 0.2], [0.2, 0.2, 1]]), np.eye(3))
        >>> separation, retention = pool.apart(np.array([[1], [1], [0]], np.float32))
        >>> separation.round(3).tolist(), retention.round(3).tolist()
        ([0.75], [0.0])
        """
        sizes = marks.sum(axis=0, dtype=np.float64)
        group = marks.astype(np.float64)
        held: list[tuple[Floats, Floats]] = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for kernel, sums in zip((self.target, self.reference), self.sums, strict=True):
                inside = (group * (kernel @ group)).sum(axis=0)
                within = (inside - sizes) / (sizes * (sizes - 1))
                across = (sums @ group - inside) / (sizes * (len(kernel) - sizes))
                held.append((within, across))
            (within, across), (kept, beyond) = held
            # all samples have no others, and samples that are nothing to one another are no group
            undefined = np.where((sizes == len(self.rows)) | (within <= 0), np.nan, 0.0)
            return 1 - across / within + undefined, (kept - beyond) / (within - across)


def is_lost(separation: Floats, retention: Floats) -> NDArray[np.bool_]:
    """Whether the target holds a group apart and the reference keeps less than half of it."""
    return (separation >= MARGIN) & (retention <= KEPT)
