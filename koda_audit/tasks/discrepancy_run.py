"""What koda_discrepancy computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from koda_audit.discrepancy.agreement import group_agreement
from koda_audit.discrepancy.find import find_both_ways, self_excess
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.document import Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.tasks.discrepancy import DiscrepancySettings
from koda_audit.tasks.discrepancy_report import (
    NO_FINDING,
    READING,
    quality_section,
    sections,
    widths_section,
)
from koda_audit.tasks.discrepancy_summary import strongest_groups, unlike_groups, unlike_section
from koda_audit.tasks.numbers import known
from koda_audit.tasks.protocol import Inputs, Number, Outcome

# what was asked for, resolved; the other settings are measured on the models, which are what is compared
SIGNED = (
    *("modality", "kernel", "path", "preset", "n_features", "n_directions", "priced_directions", "epsilon", "halves"),
    *("min_stability", "bandwidth_rule", "bandwidth_target", "seed"),
)
JUDGED = ("findings", "finding_samples", "floor")  # numbers that depend on the floor


def run(inputs: Inputs, settings: DiscrepancySettings) -> Outcome:
    """Both ways."""
    assert inputs.reference is not None
    pair, again = (inputs.target, inputs.reference), inputs.again or (None, None)
    arguments = _arguments(inputs, settings)
    floors = [
        None if repeated is None else self_excess(model, repeated, **arguments)
        for model, repeated in zip(pair, again, strict=True)
    ]
    both = find_both_ways(
        *pair,
        (floors[0], floors[1]),
        settings.halves,
        settings.min_stability,
        **arguments,
    )
    other = inputs.reference.aligned_to(inputs.target.ids)
    ways = {"": (both[0], inputs.target, other), "reverse_": (both[1], other, inputs.target)}
    numbers: list[Number] = []
    shown: list[Section] = []
    strongest: list[pd.DataFrame] = []
    unlike: list[pd.DataFrame] = []
    files: dict[str, pd.DataFrame] = {}
    for way, (found, target, reference) in ways.items():
        members = _members(found, target)
        agreement = group_agreement(settings.kernel, found.vectors, found.sigmas, members, inputs.seed)
        for metric, value in _metrics(found, agreement).items():
            own = {name: found.settings[name] for name in SIGNED}
            own |= {"floor": settings.floor} if metric in JUDGED else {}
            numbers.append(Number(f"koda_{way}{metric}", known(value), n=len(target), settings=own))
        shown += sections(found, target, reference, members, way)
        shown += quality_section(found, target, reference)
        strongest.append(strongest_groups(found, target, reference))
        unlike.append(unlike_groups(found, target, reference))
        files.update(_files(found, way))
        files[f"tables/{way}agreement.csv"] = agreement
    table = pd.concat(strongest, ignore_index=True)
    reading = READING if (table["verdict"] == "finding").any() else f"{NO_FINDING} {READING}"
    summary = Section("Strongest groups, both ways", reading, table)
    widths = [widths_section(found, inputs.target, inputs.reference)] if found.bandwidths else []
    differ = unlike_section(unlike, inputs.target, inputs.reference)
    asked = {**found.settings, "floor": settings.floor}
    return Outcome(tuple(numbers), (summary, *differ, *shown, *widths), files, settings=asked)


def _arguments(inputs: Inputs, settings: DiscrepancySettings) -> dict[str, Any]:
    chosen = settings.model_dump(exclude={"directions", "halves", "min_stability", "floor"})
    return {**chosen, "n_directions": settings.directions, "seed": inputs.seed, "device": inputs.device}


def _members(found: Discrepancies, target: Embeddings) -> pd.DataFrame:
    row_of = {sample: row for row, sample in enumerate(target.ids)}
    return found.subsets.assign(row=[row_of[sample] for sample in found.subsets["id"]])


def _metrics(found: Discrepancies, agreement: pd.DataFrame) -> dict[str, float | None]:
    groups, subspace = found.groups, found.subspace
    top: Mapping[Any, Any] = groups.sort_values("excess").iloc[-1].to_dict() if len(groups) else {}
    ami = agreement[agreement["measure"] == "AMI"].set_index("model")["value"]
    tested = bool(found.settings["halves"]) and found.settings["preset"] is None
    inside = found.subsets[found.subsets["finding"].astype(bool)]["id"].nunique()
    return {
        "coherence": subspace["coherence_target"],
        "coherence_other": subspace["coherence_reference"],
        **{f"{name}_top1": float(top.get(name, math.nan)) for name in ("excess", "stability", "retention", "loss")},
        "findings": float(groups["finding"].sum()) if tested else None,
        "near": float(groups["near"].sum()) if tested else None,
        "finding_samples": inside / found.settings["n"] if tested else None,
        "floor": float(top.get("floor", math.nan)),
        "ami": float(ami.get("target", math.nan)),
        "ami_other": float(ami.get("reference", math.nan)),
        "directions": float(subspace["n_directions"]),
        "epsilon": found.epsilon,
        "duality_gap_max": subspace["duality_gap"],
        "lambda_max": float(found.spectrum["target"].iloc[0]),
    }


def _files(found: Discrepancies, way: str) -> dict[str, pd.DataFrame]:
    files = {
        f"tables/{way}groups.csv": found.groups,
        f"tables/{way}quality.csv": found.quality,
        f"tables/{way}spectrum.csv": found.spectrum,
    }
    for group, subset in found.subsets.groupby("group", sort=True):
        files[f"subsets/{way}group-{group:02d}.csv"] = subset
    return files
