"""What a reader sees of koda_discrepancy: its findings, tables and pictures."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from koda_audit.discrepancy.describe import TOLD
from koda_audit.discrepancy.layout import group_layout
from koda_audit.discrepancy.pool import KEPT, MARGIN
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.themes import sample_texts
from koda_audit.discrepancy.views import group_bars, group_map, spectra
from koda_audit.document import Picture, SampleGrid, Section, escape
from koda_audit.embeddings.container import Embeddings

SHOWN = 12  # samples a grid
WIDE, CLEAN = 0.4, 0.8  # share of the samples in findings, and fit of a clean group, for a word of warning
SHOWN_MEASURES = ("pair_cosine", "zeroshot_accuracy", "image_to_text_recall@5", "text_to_image_recall@5")
WITNESSES = ("text", "image", "captions", "classes")

READING = (
    "Groups of samples that one model holds together and the other does not: findings first, then what the models get "
    "right. A *finding* comes back on other samples (*stability*: its mean overlap with the most similar group of "
    "random halves of the samples), is held apart from the rest, and is not kept by the other model (*retention*: how "
    "much of it the other model keeps; 0 nothing, 1 all). *Accuracy* (with captions *recall@5*) is that of the two "
    "models on the group alone. A group that a new model no longer holds together is a loss where its samples belong "
    "together; one that it alone holds together may be samples that it no longer tells apart: accuracy and pictures "
    "say which."
)
NO_FINDING = (
    "**None is a finding**: no group came back on random halves of these samples as often as a finding must, or the "
    "other model keeps it. That is no proof that the models agree (see `koda_similarity`): with more samples, or one "
    "modality, groups are more stable."
)


def sections(
    found: Discrepancies, target: Embeddings, reference: Embeddings, members: pd.DataFrame, way: str
) -> list[Section]:
    """The findings of one way with their pictures; what is none is folded away, and has no picture."""
    ours, theirs = names_of(target, reference)
    table = _table(found, target, reference)
    is_finding = found.groups["finding"].astype(bool)
    findings, others = table[is_finding], table[~is_finding]
    pictures: list[Picture] = []
    if len(findings):
        names = {"target": ours, "reference": theirs}
        bars = group_bars(found.groups[is_finding], names)
        pictures.append(Picture(f"{way}groups", f"Groups of {ours} that {theirs} lacks", bars))
        shown = members[members["finding"].astype(bool)]
        layout = group_layout(found.settings["kernel"], found.vectors, found.sigmas, shown, found.settings["seed"])
        if layout is not None:
            pictures.append(
                Picture(f"{way}map", "Map of the findings: a picture, no evidence", group_map(layout, names))
            )
    if found.epsilon is not None and len(findings):
        names = {"target": ours, "reference": theirs}
        spectrum = spectra(found.spectrum, found.epsilon, names)
        pictures.append(Picture(f"{way}spectra", "Spectra of both kernels", spectrum))
    main = Section(
        f"What {ours} groups and {theirs} does not",
        _explained(found, ours, theirs),
        findings if len(findings) else None,
        tuple(_grids(found, target, reference, members, way)),
        tuple(pictures),
    )
    if others.empty:
        return [main]
    why = (
        "*within floor*: no more than the model shows against itself; *not apart*: the model does not hold it apart "
        "from the others; *kept*: the other model keeps more than half of it; *repeat*: part of a more stable group; "
        "*unstable*: random halves do not bring it back."
    )
    return [main, Section(f"Other groups of {ours} over {theirs}: none is a finding", why, others, folded=True)]


def _explained(found: Discrepancies, ours: str, theirs: str) -> str:
    rule, subspace, groups = found.settings, found.subspace, found.groups
    ours, theirs = escape(ours), escape(theirs)
    floor = groups["floor"].iloc[0] if len(groups) else math.nan
    against = "not measured" if math.isnan(floor) else f"{floor:.2g}"
    used = ""
    if rule["path"] != "dense":
        used = (
            f" They were found with {rule['n_features']:,} random features a model; under the exact kernel, which all "
            f"other numbers are of, their mean coherence in {theirs} is {subspace['coherence_reference']:.4g}."
        )
    count, near = int(groups["finding"].sum()), int(groups["near"].sum())
    doubt = f", and {near} of all lie near the bound on stability, which other halves may pass" if near else ""
    findings = groups[groups["finding"].astype(bool)]
    share = found.subsets[found.subsets["finding"].astype(bool)]["id"].nunique() / rule["n"]
    throughout = ""
    if share > WIDE and findings["fit"].median() < CLEAN:
        fit = f"{findings['fit'].median():.2f}"
        throughout = (
            f"**The findings hold {share:.0%} of all samples and fit loosely (median {fit}): the models arrange these "
            "samples differently throughout, and the groups divide that; single ones say little.** "
        )
    if rule["preset"] == "paper":
        level = f" among those that reach at most ε = {found.epsilon:.4g} in {theirs}"
        return (
            f"The {subspace['n_directions']} directions with the largest coherence in {ours}{level}, and the 50 "
            f"heaviest samples of each, as KODA reads them off; no group is tested.{used}"
        )
    price = "is given"
    if (epsilon := found.epsilon) is not None:
        price = f"was set so that the leading {rule['priced_directions']} hold ε = {epsilon:.4g} there in the mean"
    return (
        f"{throughout}{subspace['n_directions']} directions over the samples hold most in {ours} at a price of "
        f"coherence in {theirs} that {price} (the global optimum: the duality gap is {subspace['duality_gap']:.1g}), "
        f"and were turned within their span until each has its weight on few samples.{used} {count} of {len(groups)} "
        f"groups are findings: stability at least {rule['min_stability']:g}, separation at least {MARGIN:g}, retention "
        f"at most {KEPT:g}, and an excess above the floor "
        f"({ours} against itself: {against}){doubt}. *Shared words* stand in more of the group's captions than of "
        "the others' (share of the others in brackets). *Fit* says how clean a group is: 1 at best, .64 for none. A "
        "*witness* was not used to find the group; p is how often as many samples at random agree as well."
    )


def _table(found: Discrepancies, target: Embeddings, reference: Embeddings) -> pd.DataFrame:
    ours, theirs = names_of(target, reference)
    groups = found.groups
    scores = {
        f"{heading.replace('_at_', '@')}, {name}": groups[f"{heading}_{role}"]
        for heading in (heading_of(groups),)
        if heading
        for role, name in (("target", ours), ("reference", theirs))
    }
    said = {
        f"{name} says": groups[f"answers_{role}"]
        for role, name in (("target", ours), ("reference", theirs))
        if groups[f"answers_{role}"].notna().any()
    }
    seen = {
        f"witness: {name}": [
            f"{alike:.2f} (p {p:.2g})" for alike, p in zip(groups[f"witness_{name}"], groups[p_of], strict=True)
        ]
        for name in WITNESSES
        if (p_of := f"witness_{name}_p") in groups
    }
    shares = {"of it by images": groups["image_share"] / groups["excess"]} if "image_share" in groups else {}
    return pd.DataFrame(
        {
            "group": groups["group"],
            "samples": groups["n"],
            "verdict": verdicts_of(groups),
            **scores,
            "shared words": groups["theme"],
            **said,
            "stability": groups["stability"],
            "± its error": groups["stability_error"],
            "retention": groups["retention"],
            "separation": groups["separation"],
            "fit": groups["fit"],
            "excess": groups["excess"],
            **shares,
            **seen,
        }
    )


def verdicts_of(groups: pd.DataFrame) -> list[str]:
    return [
        f"{verdict}, near the bound" if near else verdict
        for verdict, near in zip(groups["verdict"], groups["near"], strict=True)
    ]


def heading_of(groups: pd.DataFrame) -> str:
    """What tells whether a model can do its task on a group, or ""."""
    return next((name for name in TOLD.values() if f"{name}_target" in groups and f"{name}_reference" in groups), "")


def _grids(
    found: Discrepancies, target: Embeddings, reference: Embeddings, members: pd.DataFrame, way: str
) -> list[SampleGrid]:
    ours, theirs = names_of(target, reference)
    known = sample_texts(target)
    grids = []
    for record in found.groups.to_dict("records"):
        if not record["finding"]:
            continue
        rows = members[members["group"] == record["group"]]["row"].tolist()
        shown = rows[:SHOWN]
        size = f"{len(shown)} strongest of {len(rows)}" if len(shown) < len(rows) else f"{len(rows)} samples"
        kept = f"{theirs} keeps {max(record['retention'], 0):.0%} of it"
        parts = [f"{ours} over {theirs}, group {record['group']}", size, record["theme"], kept]
        grids.append(
            SampleGrid(
                name=f"{way}group-{record['group']:02d}",
                title=" · ".join(part for part in parts if isinstance(part, str)),
                ids=tuple(target.ids[row] for row in shown),
                captions=tuple(known[0][row] if known else target.ids[row] for row in shown),
            )
        )
    return grids


def quality_section(found: Discrepancies, target: Embeddings, reference: Embeddings) -> list[Section]:
    """What both models do on the findings, beside the whole set."""
    quality = found.quality
    measures = [m for m in SHOWN_MEASURES if (quality["measure"] == m).any()]
    if not measures:
        return []
    ours, theirs = names_of(target, reference)
    rows = []
    for group in (None, *found.groups[found.groups["finding"].astype(bool)]["group"]):
        part = quality[quality["group"].isna() if group is None else quality["group"] == group]
        row: dict[str, Any] = {"samples": "all" if group is None else f"group {group}"}
        for measure in measures:
            for role, name in (("target", ours), ("reference", theirs)):
                one = part[(part["measure"] == measure) & (part["model"] == role)]
                row[f"{measure.replace('_', ' ')}, {name}"] = (
                    f"{one['value'].iloc[0]:.3f} ({one['low'].iloc[0]:.3f} to {one['high'].iloc[0]:.3f})"
                    if len(one)
                    else None
                )
        rows.append(row)
    at_chance = _at_chance(quality, target, reference, found.settings["modality"])
    return [
        Section(
            f"What {ours} and {theirs} can do on these groups",
            f"{at_chance}On the samples of each finding, beside all samples, with 95 % "
            "intervals, which take the group as given. A group that a model no longer clusters may still be told apart "
            "by it.",
            pd.DataFrame(rows),
        )
    ]


def _at_chance(quality: pd.DataFrame, target: Embeddings, reference: Embeddings, modality: str) -> str:
    """Which of the models is no better than blind guessing on the whole set, so that its texts say nothing."""
    classes = 0 if target.class_text is None else len(target.class_text)
    whole = quality[quality["group"].isna()].set_index(["model", "measure"])["low"]
    said = []
    for role, name in zip(("target", "reference"), names_of(target, reference), strict=True):
        for measure, chance in (
            ("zeroshot_accuracy", 1 / classes if classes else math.inf),
            ("image_to_text_recall@5", 5 / len(target)),
        ):
            if math.isfinite(chance) and whole.get((role, measure), math.inf) <= chance:
                said.append(f"{escape(name)} ({measure.replace('_', ' ')}, chance {chance:.3g})")
    if not said:
        return ""
    remedy = "" if modality == "image" else "; compare the images alone (modality image)"
    return (
        f"**No better than chance on all samples: {', '.join(said)}.** What the texts of such a model say of these "
        f"images means nothing{remedy}. "
    )


def names_of(target: Embeddings, reference: Embeddings) -> tuple[str, str]:
    return str(target.meta.get("model", "target")), str(reference.meta.get("model", "reference"))


def widths_section(found: Discrepancies, target: Embeddings, reference: Embeddings) -> Section:
    """The kernel of each model; after the last comparison the roles are exchanged."""
    rows = []
    for role, model in (("reference", target), ("target", reference)):
        width = found.bandwidths[role]
        sigmas = {f"sigma of {name}": value for name, value in width["sigmas"].items()}
        rows.append(
            {"model": model.meta.get("model", role), **sigmas, "multiplier": width["multiplier"]}
            | {"largest eigenvalue": width["lambda_max"]}
        )
    text = "Gaussian kernels, one multiplier of the median distances a model, so that both kernels are equally coarse."
    return Section(f"Kernel widths of {rows[0]['model']} and {rows[1]['model']}", text, pd.DataFrame(rows), folded=True)
