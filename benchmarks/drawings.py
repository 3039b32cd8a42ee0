"""Drawn digits that alignments are trained on and judged by, in memory.

All drawings of a seed have colours of their own. 1,120 train scans are trained on; of the test scans, which are other
handwriting, 100 at random validate and 297 are measured, each drawn four times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import Figures, run_side
from PIL import Image

from koda_audit import Embeddings
from koda_audit._files import digest
from koda_audit.data.dataset import Dataset
from koda_audit.demo.digits import CLASS_TEMPLATES, DIGITS, Sample, draw
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.models import LoadedModel, ModelSpec, load_model

REDRAWN = 4  # drawings of each test scan
VALIDATION = 100  # of the 397 test scans, which lie writer by writer
Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Drawings:
    """Samples in memory, with their captions or their digits."""

    samples: Sequence[Sample]
    captions: bool = False
    in_order = False

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, row: int) -> tuple[str, Image.Image, Any]:
        sample = self.samples[row]
        return sample.key, sample.image, (sample.caption,) if self.captions else sample.digit

    def dataset(self) -> Dataset:
        content = digest([[s.key, s.caption, s.image.tobytes().hex()] for s in self.samples])
        if self.captions:
            return Dataset("drawings", "any", "en", "captions", self, content)
        return Dataset("drawings", "any", "en", "classes", self, content, DIGITS, list(CLASS_TEMPLATES))


@cache
def model(folder: Path) -> LoadedModel:
    return load_model(ModelSpec(f"local-dir:{folder}"))


def embedded(folder: Path, samples: Sequence[Sample], store: Store, captions: bool = False) -> Embeddings:
    return embed(model(folder), Drawings(samples, captions).dataset(), store, workers=0, quiet=True)


def judges(seed: int, part: Part) -> list[Sample]:
    """Test scans in several colours each: clusters and ``mix_bias`` need as many."""
    drawn = [draw("test", other) for other in range(REDRAWN * seed, REDRAWN * (seed + 1))]
    order = np.random.default_rng(0).permutation(len(drawn[0]))
    scans = order[:VALIDATION] if part == "validation" else order[VALIDATION:]
    return [replace(some[scan], key=f"{some[scan].key}-{time}") for time, some in enumerate(drawn) for scan in scans]


def in_processes(table: str, jobs: int, each: Iterable[Figures], **settings: Any) -> list[Figures]:
    """``run_side`` of each, some at a time, in a folder of its own."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda own: run_side(table, **own, **settings), each))


def spelled(values: Any) -> str:
    mean = f"{np.mean(values):.3f}" if abs(np.mean(values)) > 0.1 else f"{np.mean(values):.3g}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.2g}"
