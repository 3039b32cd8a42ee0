"""The task koda_discrepancy: groups of samples that one model clusters and the other does not, in both directions."""

from __future__ import annotations

import argparse
import math
from typing import Any

import pandas as pd

from koda_audit._arrays import choose_device
from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS
from koda_audit.discrepancy.agreement import lobe_agreement
from koda_audit.discrepancy.choices import FEATURES, N_FEATURES, PRESETS, check_numbers, plan
from koda_audit.discrepancy.find import find_discrepancies, self_excess
from koda_audit.discrepancy.findings import MIN_STABILITY
from koda_audit.discrepancy.quality import lobe_quality
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.rotation import ROTATIONS
from koda_audit.discrepancy.stability import HALVES
from koda_audit.document import Outcome, Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError, unknown
from koda_audit.host_tasks.discrepancy_report import (
    NO_FINDING,
    READING,
    quality_section,
    section,
    strongest_lobes,
    unlike_lobes,
    unlike_section,
    widths_section,
)
from koda_audit.host_tasks.protocol import Inputs


class DiscrepancyTask:
    """KODA (ICML 2026, arXiv 2606.04180) between a model and a reference, each way."""

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
            help="exact kernel matrices, random features, or auto (default): exact up to 20,000 samples",
        )
        group.add_argument(
            "--koda_n_features",
            metavar="R",
            type=int,
            default=N_FEATURES,
            help="random frequencies (rbf) or projections of a model; default: %(default)s",
        )
        group.add_argument(
            "--koda_directions", metavar="T", type=int, default=10, help="directions each way; default: 10"
        )
        group.add_argument(
            "--koda_epsilon",
            metavar="EPSILON",
            type=float,
            help="coherence that the other model may show at most; default: 2/n, twice that of a random direction, "
            "and with random features at least 1/R",
        )
        group.add_argument(
            "--koda_rotation",
            default="none",
            metavar="|".join(ROTATIONS),
            help="varimax turns the directions so that each has its weight on few samples; default: none",
        )
        group.add_argument(
            "--koda_halves",
            metavar="H",
            type=int,
            default=HALVES,
            help="random halves of the samples for the stability of each lobe; default: %(default)s, 0 for no findings",
        )
        group.add_argument(
            "--koda_min_stability",
            metavar="SHARE",
            type=float,
            default=MIN_STABILITY,
            help="of a finding: how much of a lobe comes back on random halves; default: %(default)s",
        )
        group.add_argument(
            "--koda_preset",
            metavar="|".join(PRESETS),
            help="paper: KODA as published, random features and as epsilon the median eigenvalue of the other model; "
            "needs more than R samples",
        )

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        for kind, value, known in (
            ("--koda_modality", options.koda_modality, MODALITIES),
            ("--koda_kernel", options.koda_kernel, KERNELS),
            ("--koda_features", options.koda_features, FEATURES),
            ("--koda_rotation", options.koda_rotation, ROTATIONS),
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
            if getattr(options, name) < 1:
                raise InputError(f"--{name} {getattr(options, name)}: at least 1")
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
        ways = {"": (*pair, again[0]), "reverse_": (*pair[::-1], again[1])}
        metrics: dict[str, float | None] = {}
        sections: list[Section] = []
        strongest: list[pd.DataFrame] = []
        unlike: list[pd.DataFrame] = []
        files: dict[str, pd.DataFrame] = {}
        for way, (target, reference, repeated) in ways.items():
            search = _settings(inputs)
            floor = None if repeated is None else self_excess(target, repeated, **search)
            found = find_discrepancies(
                target,
                reference,
                **search,
                floor=floor,
                halves=inputs.options.koda_halves,
                min_stability=inputs.options.koda_min_stability,
            )
            members = _members(found, target)
            agreement = lobe_agreement(
                inputs.options.koda_kernel, found.vectors, found.sigmas, members, inputs.options.seed
            )
            quality = lobe_quality(target, reference, members, inputs.options.seed, choose_device(inputs.device))
            metrics.update(_metrics(found, agreement, f"koda_{way}"))
            main = section(found, target, reference, members, way)
            sections += [main, *quality_section(quality, found, target, reference)]
            strongest.append(strongest_lobes(main, quality, target, reference))
            unlike.append(unlike_lobes(main, quality, target, reference))
            files.update(_files(found, way))
            files |= {f"tables/{way}quality.csv": quality, f"tables/{way}agreement.csv": agreement}
        table = pd.concat(strongest, ignore_index=True)
        reading = READING if (table["verdict"] == "finding").any() else f"{NO_FINDING} {READING}"
        summary = Section("Strongest groups, both ways", reading, table)
        widths = [widths_section(found, inputs.target, inputs.reference)] if found.bandwidths else []
        settings = {**found.settings, "floor": "none" if inputs.again is None else "batch"}
        differ = unlike_section(unlike, inputs.target, inputs.reference)
        return Outcome(metrics, settings, (summary, *differ, *sections, *widths), files)


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
        "rotation": inputs.options.koda_rotation,
        "device": inputs.device,
    }


def _members(found: Discrepancies, target: Embeddings) -> pd.DataFrame:
    row_of = {sample: row for row, sample in enumerate(target.ids)}
    return found.subsets.assign(row=[row_of[sample] for sample in found.subsets["id"]])


task = DiscrepancyTask()


def _metrics(found: Discrepancies, agreement: pd.DataFrame, prefix: str) -> dict[str, float | None]:
    first = found.frame.iloc[0]
    top = found.frame.sort_values("excess").iloc[-1]
    ami = agreement[agreement["measure"] == "AMI"].set_index("model")["value"]
    return {
        f"{prefix}coherence_top1": float(first["coherence_target"]),
        f"{prefix}coherence_other_top1": float(first["coherence_reference"]),
        f"{prefix}excess_top1": float(top["excess"]),
        f"{prefix}findings": float(found.frame["finding"].sum()) if found.settings["halves"] else None,
        f"{prefix}stability_top1": float(top["stability"]),
        f"{prefix}loss_top1": float(top["loss"]),
        f"{prefix}floor": float(top["floor"]),
        f"{prefix}ami": float(ami.get("target", math.nan)),
        f"{prefix}ami_other": float(ami.get("reference", math.nan)),
        f"{prefix}directions": float(found.directions.shape[1]),
        f"{prefix}epsilon": found.epsilon,
        f"{prefix}duality_gap_max": float(found.frame["duality_gap"].max()),
        f"{prefix}lambda_max": float(found.spectrum["target"].iloc[0]),
    }


def _files(found: Discrepancies, way: str) -> dict[str, pd.DataFrame]:
    files = {f"tables/{way}directions.csv": found.frame, f"tables/{way}spectrum.csv": found.spectrum}
    for (direction, lobe), subset in found.subsets.groupby(["direction", "lobe"], sort=True):
        files[f"subsets/{way}direction-{direction:02d}-{lobe}.csv"] = subset
    return files
