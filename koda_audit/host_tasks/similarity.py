"""The task koda_similarity: how alike a model and a reference represent the same samples."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from koda_audit._arrays import OnDevice, choose_device
from koda_audit._kernels.directions import directions
from koda_audit._similarity.measure import DEFAULT, ROWS, similarity
from koda_audit.document import Outcome
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError
from koda_audit.host_tasks.gap import several_classes
from koda_audit.host_tasks.protocol import Inputs
from koda_audit.host_tasks.similarity_report import similarity_section
from koda_audit.registry import measures

PERMUTATIONS = 20
LEAST = 12  # samples: ten neighbours of each, and one that an interval leaves out


class SimilarityTask:
    """``similarity`` of images, of texts, and of both together, on rows of length 1."""

    name = "koda_similarity"
    help = "how alike a model and the reference represent the same images and texts"
    compares = True

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--koda_sim_measures",
            metavar="MEASURE",
            nargs="+",
            default=list(DEFAULT),
            help=f"default: {' '.join(DEFAULT)}; also svcca and pwcca, and those of installed packages",
        )
        group.add_argument(
            "--koda_sim_permutations",
            metavar="P",
            type=int,
            default=PERMUTATIONS,
            help="random pairings of the samples, for the chance level and the p-value; default: %(default)s",
        )
        group.add_argument(
            "--koda_sim_interval",
            action="store_true",
            help="add 95 %% intervals, by leaving out each of 20 groups of samples: slow for thousands of samples",
        )

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        for name in options.koda_sim_measures:
            measures().load(name)
        if len(set(options.koda_sim_measures)) < len(options.koda_sim_measures):
            raise InputError(f"--koda_sim_measures {' '.join(options.koda_sim_measures)}: name none twice")
        if options.koda_sim_permutations < 0:
            raise InputError(f"--koda_sim_permutations {options.koda_sim_permutations}: at least 0")
        if samples is not None and samples < LEAST:
            raise InputError(f"{self.name} needs at least {LEAST} samples: {samples} found")

    def run(self, inputs: Inputs) -> Outcome:
        assert inputs.reference is not None
        options, device = inputs.options, choose_device(inputs.device)
        chosen = [measures().load(name) for name in options.koda_sim_measures]
        target, reference = _modalities(inputs.target, device), _modalities(inputs.reference, device)
        again = {} if inputs.again is None else _modalities(inputs.again[0], device)
        parts = []
        for modality in [name for name in target if name in reference]:
            found = similarity(
                target[modality],
                reference[modality],
                chosen,
                interval=options.koda_sim_interval,
                permutations=options.koda_sim_permutations,
                seed=options.seed,
            )
            if again:
                itself = similarity(target[modality], again[modality], chosen, seed=options.seed)
                found["itself"] = itself["value"]
            found.insert(0, "modality", modality)
            parts.append(found.reset_index())
        table = pd.concat(parts, ignore_index=True)
        metrics: dict[str, float | None] = {
            f"sim_{modality}_{measure}": value
            for modality, measure, value in zip(table["modality"], table["measure"], table["value"], strict=True)
        }
        settings: dict[str, Any] = {
            "measures": [measure.name for measure in chosen],
            "interval": options.koda_sim_interval,
            "permutations": options.koda_sim_permutations,
            "pairwise_rows": ROWS,
            "seed": options.seed,
        }
        section = similarity_section(table, inputs.target, inputs.reference)
        return Outcome(metrics, settings, (section,), {"tables/similarity.csv": table})


def _modalities(model: Embeddings, device: torch.device) -> dict[str, Tensor]:
    """Rows of length 1 of images and of texts, and the two side by side; images alone where texts tell none apart."""
    image = directions(OnDevice(model.image, device)[:], "image")
    texts = None if several_classes(model) else model.pairs().text
    if texts is None:
        return {"image": image}
    text = directions(OnDevice(texts, device)[:], "text")
    if (text == text[0]).all():  # a single class
        return {"image": image}
    return {"image": image, "text": text, "joint": torch.cat([image, text], dim=1)}


task = SimilarityTask()
