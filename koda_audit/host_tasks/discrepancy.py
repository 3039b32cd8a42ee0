"""The task koda_discrepancy: groups of samples that one model clusters and the other does not, in both directions."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from koda_audit._arrays import choose_device
from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS
from koda_audit.discrepancy.agreement import group_agreement
from koda_audit.discrepancy.choices import FEATURES, N_FEATURES, PRESETS, check_numbers, plan
from koda_audit.discrepancy.find import find_both_ways, self_excess
from koda_audit.discrepancy.findings import MIN_STABILITY
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.stability import HALVES
from koda_audit.document import Outcome, Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError, unknown
from koda_audit.host_tasks.discrepancy_report import (
    NO_FINDING,
    READING,
    quality_section,
    sections,
    widths_section,
)
from koda_audit.host_tasks.discrepancy_summary import strongest_groups, unlike_groups, unlike_section
from koda_audit.host_tasks.protocol import Inputs


class DiscrepancyTask:
    """Groups of samples by KODA's contrast (ICML 2026, arXiv 2606.04180) between a model and a reference, each way."""

    name = "koda_discrepancy"
    help = "groups of samples that one model clusters and the reference does not, and the reverse"
    compares = True

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--koda_modality",
            default="joint",
            metavar="|".join(MODALITIES),
            help="what a pair is compared by; default: joint, image and text",
        )
        group.add_argument(
            "--koda_kernel", default="rbf", metavar="|".join(KERNELS), help="kernel of each modality; default: rbf"
        )
        group.add_argument(
            "--koda_features",
            default="auto",
            metavar="|".join(FEATURES),
            help="exact kernel matrices, random features, or auto (default): exact up to 10,000 samples",
        )
        group.add_argument(
            "--koda_n_features",
            metavar="R",
            type=int,
            default=N_FEATURES,
            help="random frequencies (rbf) or projections of a model; default: %(default)s",
        )
        group.add_argument(
            "--koda_directions",
            metavar="T",
            type=int,
            help="directions each way; default: the number that shows most groups that come back on random halves",
        )
        group.add_argument(
            "--koda_epsilon",
            metavar="EPSILON",
            type=float,
            help="mean coherence that the other model may show at most; default: 2/n, twice that of a random "
            "direction, and with random features at least 1/R",
        )
        group.add_argument(
            "--koda_halves",
            metavar="H",
            type=int,
            default=HALVES,
            help="random halves of the samples for the stability of each group; default: %(default)s, more near the "
            "bound; 0 for no findings",
        )
        group.add_argument(
            "--koda_min_stability",
            metavar="SHARE",
            type=float,
            default=MIN_STABILITY,
            help="of a finding: how much of a group comes back on random halves; default: %(default)s",
        )
        group.add_argument(
            "--koda_preset",
            metavar="|".join(PRESETS),
            help="paper: KODA as published, random features, as epsilon the median eigenvalue of the other model, and "
            "the 50 heaviest samples of each direction; needs more than R samples, and has no findings",
        )

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        for kind, value, known in (
            ("--koda_modality", options.koda_modality, MODALITIES),
            ("--koda_kernel", options.koda_kernel, KERNELS),
            ("--koda_features", options.koda_features, FEATURES),
            ("--koda_preset", options.koda_preset, (None, *PRESETS)),
        ):
            if value not in known:
                raise InputError(unknown(kind, value, filter(None, known)))
        check_numbers(
            **{
                "--seed": options.seed,
                "--koda_n_features": options.koda_n_features,
                "--koda_halves": options.koda_halves,
            }
        )
        for name in ("koda_directions", "koda_n_features"):
            given = getattr(options, name)
            if given is not None and given < 1:
                raise InputError(f"--{name} {given}: at least 1")
        if not 0 <= options.koda_min_stability <= 1:
            raise InputError(f"--koda_min_stability {options.koda_min_stability}: must lie in [0, 1]")
        if options.koda_epsilon is not None and not 0 < options.koda_epsilon <= 1:
            raise InputError(f"--koda_epsilon {options.koda_epsilon}: must lie in (0, 1]")
        if samples is not None:
            plan(
                samples,
                n_directions=options.koda_directions,
                kernel=options.koda_kernel,
                features=options.koda_features,
                n_features=options.koda_n_features,
                epsilon=options.koda_epsilon,
                preset=options.koda_preset,
                device=choose_device(None),
            )

    def run(self, inputs: Inputs) -> Outcome:
        assert inputs.reference is not None
        pair, again = (inputs.target, inputs.reference), inputs.again or (None, None)
        settings = _settings(inputs)
        floors = [
            None if repeated is None else self_excess(model, repeated, **settings)
            for model, repeated in zip(pair, again, strict=True)
        ]
        both = find_both_ways(
            *pair,
            (floors[0], floors[1]),
            inputs.options.koda_halves,
            inputs.options.koda_min_stability,
            **settings,
        )
        other = inputs.reference.aligned_to(inputs.target.ids)
        ways = {"": (both[0], inputs.target, other), "reverse_": (both[1], other, inputs.target)}
        metrics: dict[str, float | None] = {}
        shown: list[Section] = []
        strongest: list[pd.DataFrame] = []
        unlike: list[pd.DataFrame] = []
        files: dict[str, pd.DataFrame] = {}
        for way, (found, target, reference) in ways.items():
            members = _members(found, target)
            agreement = group_agreement(
                inputs.options.koda_kernel, found.vectors, found.sigmas, members, inputs.options.seed
            )
            metrics.update(_metrics(found, agreement, f"koda_{way}"))
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
        settings = {**found.settings, "floor": "none" if inputs.again is None else "batch"}
        differ = unlike_section(unlike, inputs.target, inputs.reference)
        return Outcome(metrics, settings, (summary, *differ, *shown, *widths), files)


def _settings(inputs: Inputs) -> dict[str, Any]:
    return {
        "modality": inputs.options.koda_modality,
        "kernel": inputs.options.koda_kernel,
        "features": inputs.options.koda_features,
        "n_features": inputs.options.koda_n_features,
        "n_directions": inputs.options.koda_directions,
        "epsilon": inputs.options.koda_epsilon,
        "seed": inputs.options.seed,
        "preset": inputs.options.koda_preset,
        "device": inputs.device,
    }


def _members(found: Discrepancies, target: Embeddings) -> pd.DataFrame:
    row_of = {sample: row for row, sample in enumerate(target.ids)}
    return found.subsets.assign(row=[row_of[sample] for sample in found.subsets["id"]])


task = DiscrepancyTask()


def _metrics(found: Discrepancies, agreement: pd.DataFrame, prefix: str) -> dict[str, float | None]:
    groups, subspace = found.groups, found.subspace
    top: Mapping[Any, Any] = groups.sort_values("excess").iloc[-1].to_dict() if len(groups) else {}
    ami = agreement[agreement["measure"] == "AMI"].set_index("model")["value"]
    tested = bool(found.settings["halves"]) and found.settings["preset"] is None
    inside = found.subsets[found.subsets["finding"].astype(bool)]["id"].nunique()
    return {
        f"{prefix}coherence": subspace["coherence_target"],
        f"{prefix}coherence_other": subspace["coherence_reference"],
        **{
            f"{prefix}{name}_top1": float(top.get(name, math.nan))
            for name in ("excess", "stability", "retention", "loss")
        },
        f"{prefix}findings": float(groups["finding"].sum()) if tested else None,
        f"{prefix}near": float(groups["near"].sum()) if tested else None,
        f"{prefix}finding_samples": inside / found.settings["n"] if tested else None,
        f"{prefix}floor": float(top.get("floor", math.nan)),
        f"{prefix}ami": float(ami.get("target", math.nan)),
        f"{prefix}ami_other": float(ami.get("reference", math.nan)),
        f"{prefix}directions": float(subspace["n_directions"]),
        f"{prefix}epsilon": found.epsilon,
        f"{prefix}duality_gap_max": subspace["duality_gap"],
        f"{prefix}lambda_max": float(found.spectrum["target"].iloc[0]),
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
