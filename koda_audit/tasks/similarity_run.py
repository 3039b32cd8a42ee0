"""What koda_similarity computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from koda_audit._arrays import OnDevice, choose_device
from koda_audit._kernels.directions import directions
from koda_audit._similarity.measure import similarity
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import DataError
from koda_audit.metrics import P_VALUE
from koda_audit.registry import measures
from koda_audit.tasks.gap_run import several_classes
from koda_audit.tasks.numbers import known
from koda_audit.tasks.protocol import Inputs, Number, Outcome
from koda_audit.tasks.similarity import SimilaritySettings
from koda_audit.tasks.similarity_report import similarity_section

NEIGHBOURS = ("mutual_knn", "cknna")


def run(inputs: Inputs, settings: SimilaritySettings) -> Outcome:
    """Each modality that both models have, or the one that was asked for."""
    assert inputs.reference is not None
    device = choose_device(inputs.device)
    chosen = [measures().load(name) for name in settings.measures]
    options: dict[str, Any] = {"k": settings.k} if {*NEIGHBOURS} & {*settings.measures} else {}
    target, reference = (modalities(model, device) for model in (inputs.target, inputs.reference))
    again = {} if inputs.again is None else modalities(inputs.again[0], device)
    shown = [name for name in target if name in reference and settings.modality in ("all", name)]
    if not shown:
        raise DataError(
            f"there are no texts that tell samples apart, and so no modality '{settings.modality}': compare images"
        )
    parts = []
    for modality in shown:
        found = similarity(
            target[modality],
            reference[modality],
            chosen,
            interval=settings.interval,
            permutations=settings.permutations,
            seed=inputs.seed,
            **options,
        )
        if again:
            found["itself"] = similarity(target[modality], again[modality], chosen, seed=inputs.seed, **options)[
                "value"
            ]
        found.insert(0, "modality", modality)
        parts.append(found.reset_index())
    table = pd.concat(parts, ignore_index=True)
    equal = [one.name for one in chosen if one.higher_is_similar and one.high == 1]
    return Outcome(
        tuple(_numbers(table, inputs.seed, settings)),
        (similarity_section(table, inputs.target, inputs.reference),),
        {"tables/similarity.csv": table},
        settings={**settings.model_dump(), "seed": inputs.seed},
        facts={"one_if_equal": equal},
    )


def _numbers(table: pd.DataFrame, seed: int, settings: SimilaritySettings) -> Iterator[Number]:
    for row in table.to_dict("records"):
        metric, n = f"sim_{row['modality']}_{row['measure']}", int(row["n"])
        own = {"rows": row["rows"]} | ({"k": settings.k} if row["measure"] in NEIGHBOURS else {})
        yield Number(metric, known(row["value"]), known(row["low"]), known(row["high"]), n, settings=own)
        if settings.permutations:
            drawn = {"permutations": settings.permutations, "seed": seed}
            yield Number(metric + P_VALUE, known(row["p_value"]), n=n, settings={**own, **drawn})


def modalities(model: Embeddings, device: torch.device) -> dict[str, Tensor]:
    """Rows of length 1 of images and of texts, and the two side by side; images alone where texts tell none apart."""
    image = directions(OnDevice(model.image, device)[:], "image")
    texts = None if several_classes(model) else model.pairs().text
    if texts is None:
        return {"image": image}
    text = directions(OnDevice(texts, device)[:], "text")
    if (text == text[0]).all():  # a single class
        return {"image": image}
    return {"image": image, "text": text, "joint": torch.cat([image, text], dim=1)}
