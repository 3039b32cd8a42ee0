"""The task koda_discrepancy: groups of samples that one model clusters and the other does not, in both directions."""

from __future__ import annotations

import argparse

import pandas as pd

from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS
from koda_audit.discrepancy.choices import FEATURES, N_FEATURES, PRESETS, choose_device, plan
from koda_audit.discrepancy.find import find_discrepancies
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.themes import shared_words
from koda_audit.document import Outcome, SampleGrid, Section, escape
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError, unknown
from koda_audit.host_tasks.protocol import Inputs

SHOWN = 12  # samples a grid


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
            help="coherence that the other model may show at most; default: 2/n, twice that of a random direction",
        )
        group.add_argument(
            "--koda_preset",
            metavar="|".join(PRESETS),
            help="paper: KODA as published, random features and as epsilon the median eigenvalue of the other model",
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
        for name in ("koda_directions", "koda_n_features"):
            if getattr(options, name) < 1:
                raise InputError(f"--{name} {getattr(options, name)}: at least 1")
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
        ways = {
            "": (inputs.target, inputs.reference),
            "reverse_": (inputs.reference, inputs.target),
        }
        metrics: dict[str, float | None] = {}
        sections: list[Section] = []
        strongest: list[pd.DataFrame] = []
        files: dict[str, pd.DataFrame] = {}
        for way, (target, reference) in ways.items():
            found = find_discrepancies(
                target,
                reference,
                modality=inputs.options.koda_modality,
                kernel=inputs.options.koda_kernel,
                features=inputs.options.koda_features,
                n_features=inputs.options.koda_n_features,
                n_directions=inputs.options.koda_directions,
                epsilon=inputs.options.koda_epsilon,
                seed=inputs.options.seed,
                preset=inputs.options.koda_preset,
                device=inputs.device,
            )
            metrics.update(_metrics(found, f"koda_{way}"))
            section = _section(found, target, reference, way)
            sections.append(section)
            strongest.append(_strongest(section, target, reference))
            files.update(_files(found, way))
        summary = Section("Strongest groups, both ways", READING, pd.concat(strongest, ignore_index=True))
        widths = [_widths(found, inputs)] if found.bandwidths else []
        return Outcome(metrics, found.settings, (summary, *sections, *widths), files)


READING = (
    "The lobes with the largest excess: groups of samples that one model holds together and the other does not. "
    "*Similarity* is the mean kernel value between the samples of the group, 0 (unlike) to 1 (equal). *Excess* is the "
    "coherence of the group in the model that groups it minus that in the other: 0 where both see the same, at most "
    "the kernel's largest eigenvalue. A group that a new model no longer holds together is a loss where its samples "
    "belong together, and none where they do not: look at the pictures."
)


task = DiscrepancyTask()


def _metrics(found: Discrepancies, prefix: str) -> dict[str, float | None]:
    first = found.frame.iloc[0]
    return {
        f"{prefix}coherence_top1": float(first["coherence_target"]),
        f"{prefix}coherence_other_top1": float(first["coherence_reference"]),
        f"{prefix}excess_top1": float(found.frame["excess"].max()),
        f"{prefix}directions": float(found.directions.shape[1]),
        f"{prefix}epsilon": found.epsilon,
        f"{prefix}duality_gap_max": float(found.frame["duality_gap"].max()),
        f"{prefix}lambda_max": float(found.spectrum["target"].iloc[0]),
    }


def _section(found: Discrepancies, target: Embeddings, reference: Embeddings, way: str) -> Section:
    ours, theirs = _names(target, reference)
    captions = _captions(target)
    row_of = {sample: row for row, sample in enumerate(target.ids)}
    themes, grids = [], []
    for record in found.frame.to_dict("records"):
        lobe = found.subsets[
            (found.subsets["direction"] == record["direction"]) & (found.subsets["lobe"] == record["lobe"])
        ]
        members = [row_of[sample] for sample in lobe["id"]]
        groups = record["excess"] > 0  # else the other model holds the lobe together as well
        words = shared_words(captions, members, whole=target.text is None) if captions and groups else []
        themes.append(", ".join(f"{word} {inside:.0%} ({outside:.0%})" for word, inside, outside in words) or None)
        if not groups:
            continue
        shown = members[:SHOWN]
        name = f"direction {record['direction']} {record['lobe']}"
        size = f"{len(shown)} strongest of {len(members)}" if len(shown) < len(members) else f"{len(members)} samples"
        parts = [f"{ours} over {theirs}, {name}", size, f"excess {record['excess']:.4f}", themes[-1]]
        grids.append(
            SampleGrid(
                name=f"{way}direction-{record['direction']:02d}-{record['lobe']}",
                title=" · ".join(filter(None, parts)),
                ids=tuple(target.ids[row] for row in shown),
                captions=tuple(captions[row] if captions else target.ids[row] for row in shown),
            )
        )
    frame = found.frame
    table = pd.DataFrame(
        {
            "direction": frame["direction"],
            "lobe": frame["lobe"],
            "samples": frame["n"],
            f"coherence in {ours}": frame["coherence_target"],
            f"in {theirs}": frame["coherence_reference"],
            f"similarity in {ours}": frame["similarity_target"],
            f"similarity in {theirs}": frame["similarity_reference"],
            "excess": frame["excess"],
            **{name: frame[f"excess_{name}"] for name in ("narrower", "wider") if f"excess_{name}" in frame},
            "shared words": themes,
        }
    )
    return Section(
        f"What {ours} groups and {theirs} does not",
        f"Each direction is the weighting of the samples with the largest coherence in {escape(ours)} among those that "
        f"reach at most ε = {found.epsilon:.4g} in {escape(theirs)} (the global optimum: the largest duality gap is "
        f"{found.frame['duality_gap'].max():.1g}). Its two lobes are the samples at either end; one lobe alone "
        "can be weaker than the direction, which may hold one group against another. *Shared words* stand in more of "
        "the lobe's captions than of the others' (share of the others in brackets); *narrower* and *wider* are the "
        "excess of the same samples under kernels with half and twice the leading eigenvalue. Lobes without excess "
        "have no picture.",
        table,
        tuple(grids),
    )


def _strongest(section: Section, target: Embeddings, reference: Embeddings) -> pd.DataFrame:
    """The three lobes with the largest excess, in words that hold for both ways."""
    ours, theirs = _names(target, reference)
    assert section.table is not None
    best = section.table.sort_values("excess", ascending=False).head(3)
    return pd.DataFrame(
        {
            "groups": ours,
            "does not": theirs,
            "lobe": [f"{direction} {lobe}" for direction, lobe in zip(best["direction"], best["lobe"], strict=True)],
            "samples": best["samples"],
            "similarity": best[f"similarity in {ours}"],
            "in the other": best[f"similarity in {theirs}"],
            "excess": best["excess"],
            "shared words": best["shared words"],
        }
    )


def _names(target: Embeddings, reference: Embeddings) -> tuple[str, str]:
    return str(target.meta.get("model", "target")), str(reference.meta.get("model", "reference"))


def _captions(embeddings: Embeddings) -> tuple[str, ...] | None:
    """One caption an image where that is defined: several labels an image have no single prompt."""
    several = embeddings.text is None and embeddings.labels is not None and embeddings.labels.ndim == 2
    return None if several else embeddings.pairs().captions


def _widths(found: Discrepancies, inputs: Inputs) -> Section:
    """The kernel of each model; after the last comparison the roles are exchanged."""
    rows = []
    for role, model in (("reference", inputs.target), ("target", inputs.reference)):
        assert model is not None
        width = found.bandwidths[role]
        sigmas = {f"sigma of {name}": value for name, value in width["sigmas"].items()}
        rows.append(
            {"model": model.meta.get("model", role), **sigmas, "multiplier": width["multiplier"]}
            | {"largest eigenvalue": width["lambda_max"]}
        )
    text = "Gaussian kernels, one multiplier of the median distances a model, so that both kernels are equally coarse."
    return Section(f"Kernel widths of {rows[0]['model']} and {rows[1]['model']}", text, pd.DataFrame(rows))


def _files(found: Discrepancies, way: str) -> dict[str, pd.DataFrame]:
    files = {f"tables/{way}directions.csv": found.frame, f"tables/{way}spectrum.csv": found.spectrum}
    for (direction, lobe), subset in found.subsets.groupby(["direction", "lobe"], sort=True):
        files[f"subsets/{way}direction-{direction:02d}-{lobe}.csv"] = subset
    return files
