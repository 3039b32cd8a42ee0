"""What a reader sees of koda_discrepancy: its findings, tables and pictures."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from koda_audit.discrepancy.layout import lobe_layout
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.themes import Themes, sample_texts
from koda_audit.discrepancy.views import lobe_bars, lobe_map, spectra
from koda_audit.document import Picture, SampleGrid, Section, escape
from koda_audit.embeddings.container import Embeddings

SHOWN = 12  # samples a grid
UNLIKE = 8  # groups in the table of those that the models differ on
SHOWN_MEASURES = ("pair_cosine", "zeroshot_accuracy", "image_to_text_recall@5", "text_to_image_recall@5")

READING = (
    "Groups of samples that one model holds together and the other does not: findings first, then by excess. A "
    "*finding* comes back on other samples (*stability*: its mean overlap with what random halves of the samples "
    "show) and exceeds what the same model shows against itself. *Accuracy* (with captions *recall@5*) is that of the "
    "two models on the group alone. *Loss* is the share of the group's coherence that the model in the second column "
    "lacks, *excess* the same as a difference: 0 where both see the same, at most the kernel's largest eigenvalue. A "
    "group that a new model no longer holds together is a loss where its samples belong together; one that it alone "
    "holds together may be samples that it no longer tells apart: accuracy and pictures say which."
)
NO_FINDING = (
    "**None is a finding**: no group came back on random halves of these samples as often as a finding must. That is "
    "no proof that the models agree (see `koda_similarity`): with more samples, fewer directions or one modality "
    "groups are more stable."
)


def section(
    found: Discrepancies, target: Embeddings, reference: Embeddings, members: pd.DataFrame, way: str
) -> Section:
    ours, theirs = _names(target, reference)
    known = sample_texts(target)
    words = Themes(*known) if known else None
    captions = known[0] if known else None
    themes = []
    grids: list[SampleGrid] = []
    findings: list[SampleGrid] = []
    for record in found.frame.to_dict("records"):
        rows = members[(members["direction"] == record["direction"]) & (members["lobe"] == record["lobe"])][
            "row"
        ].tolist()
        groups = record["excess"] > 0  # else the other model holds the lobe together as well
        shared = words.shared(rows) if words and groups else []
        themes.append(", ".join(f"{word} {inside:.0%} ({outside:.0%})" for word, inside, outside in shared) or None)
        if not groups:
            continue
        shown = rows[:SHOWN]
        name = f"direction {record['direction']} {record['lobe']}"
        size = f"{len(shown)} strongest of {len(rows)}" if len(shown) < len(rows) else f"{len(rows)} samples"
        parts = [f"{ours} over {theirs}, {name}", record["verdict"], size, themes[-1]]
        (findings if record["finding"] else grids).append(
            SampleGrid(
                name=f"{way}direction-{record['direction']:02d}-{record['lobe']}",
                title=" · ".join(filter(None, parts)),
                ids=tuple(target.ids[row] for row in shown),
                captions=tuple(captions[row] if captions else target.ids[row] for row in shown),
            )
        )
    frame = found.frame
    shares = {"of it by images": frame["image_share"] / frame["excess"]} if "image_share" in frame else {}
    table = pd.DataFrame(
        {
            "direction": frame["direction"],
            "lobe": frame["lobe"],
            "samples": frame["n"],
            "verdict": frame["verdict"],
            "shared words": themes,
            "stability": frame["stability"],
            "loss": frame["loss"],
            "excess": frame["excess"],
            **{name: share.where(frame["excess"] > 0) for name, share in shares.items()},
            f"similarity in {ours}": frame["similarity_target"],
            f"in {theirs}": frame["similarity_reference"],
        }
    )
    names = {"target": ours, "reference": theirs}
    pictures = [Picture(f"{way}lobes", f"Lobes of {ours} over {theirs}", lobe_bars(frame, names))]
    if found.epsilon is not None:
        pictures.append(
            Picture(f"{way}spectra", "Spectra of both kernels", spectra(found.spectrum, found.epsilon, names))
        )
    layout = lobe_layout(found.settings["kernel"], found.vectors, found.sigmas, members, found.settings["seed"])
    if layout is not None:
        pictures.append(Picture(f"{way}map", "Map of the lobes: a picture, no evidence", lobe_map(layout, names)))
    floor = frame["floor"].iloc[0]
    against = "not measured" if math.isnan(floor) else f"{floor:.2g}"
    rule = found.settings
    certified = f" (the global optimum: the largest duality gap is {frame['duality_gap'].max():.1g})"
    if rule["rotation"] != "none":
        certified = ", and all of them were then turned by varimax, within their span and beyond ε where need be"
    used = ""
    if rule["path"] != "dense":
        used = (
            f"They were found with {rule['n_features']:,} random features a model, on which ε holds; under the exact "
            f"kernel, which all other numbers are of, they reach up to {frame['coherence_reference'].max():.4g}. "
        )
    return Section(
        f"What {ours} groups and {theirs} does not",
        f"Each direction is the weighting of the samples with the largest coherence in {escape(ours)} among those that "
        f"reach at most ε = {found.epsilon:.4g} in {escape(theirs)}{certified}. {used}Its "
        f"lobes are the groups of samples at either end. {int(frame['finding'].sum())} of "
        f"{len(frame)} are findings: stability at least {rule['min_stability']:g}, "
        f"excess above the floor ({escape(ours)} against itself: {against}), and no repeat of a more stable lobe. "
        "*Shared words* stand in more of the lobe's captions than of the others' (share of the others in brackets). "
        "*Similarity* is the mean kernel value between the samples of the lobe, 0 (unlike) to 1 (equal). "
        "Lobes without excess have no picture.",
        table,
        (*findings, *grids),
        tuple(pictures),
    )


def quality_section(
    quality: pd.DataFrame, found: Discrepancies, target: Embeddings, reference: Embeddings
) -> list[Section]:
    """What both models do on the lobes that the reference holds less, beside the whole set."""
    measures = [m for m in SHOWN_MEASURES if (quality["measure"] == m).any()]
    if not measures:
        return []
    ours, theirs = _names(target, reference)
    lobes = found.frame[found.frame["excess"] > 0]
    wanted = [(None, None), *zip(lobes["direction"], lobes["lobe"], strict=True)]
    rows = []
    for direction, lobe in wanted:
        everything = quality["direction"].isna()
        part = quality[
            everything if direction is None else (quality["direction"] == direction) & (quality["lobe"] == lobe)
        ]
        row: dict[str, Any] = {"samples": "all" if direction is None else f"{direction} {lobe}"}
        for measure in measures:
            for role, name in (("target", ours), ("reference", theirs)):
                one = part[(part["measure"] == measure) & (part["model"] == role)]
                row[f"{measure.replace('_', ' ')}, {name}"] = (
                    f"{one['value'].iloc[0]:.3f} ({one['low'].iloc[0]:.3f} to {one['high'].iloc[0]:.3f})"
                    if len(one)
                    else None
                )
        rows.append(row)
    return [
        Section(
            f"What {ours} and {theirs} can do on these groups",
            f"{_at_chance(quality, target, reference)}On the samples of each lobe, beside all samples, with 95 % "
            "intervals, which take the lobe as given. A group that a model no longer clusters may still be told apart "
            "by it.",
            pd.DataFrame(rows),
        )
    ]


def _at_chance(quality: pd.DataFrame, target: Embeddings, reference: Embeddings) -> str:
    """Which of the models is no better than blind guessing on the whole set, so that its texts say nothing."""
    classes = 0 if target.class_text is None else len(target.class_text)
    whole = quality[quality["direction"].isna()].set_index(["model", "measure"])["low"]
    said = []
    for role, name in zip(("target", "reference"), _names(target, reference), strict=True):
        for measure, chance in (
            ("zeroshot_accuracy", 1 / classes if classes else math.inf),
            ("image_to_text_recall@5", 5 / len(target)),
        ):
            if math.isfinite(chance) and whole.get((role, measure), math.inf) <= chance:
                said.append(f"{escape(name)} ({measure.replace('_', ' ')}, chance {chance:.3g})")
    if not said:
        return ""
    return (
        f"**No better than chance on all samples: {', '.join(said)}.** What the texts of such a model say of these "
        "images means nothing; compare the images alone (modality image). "
    )


def strongest_lobes(main: Section, quality: pd.DataFrame, target: Embeddings, reference: Embeddings) -> pd.DataFrame:
    """Three lobes, findings first, then the largest excess, in words that hold for both ways."""
    ours, theirs = _names(target, reference)
    known, heading = _task_of(quality)
    table = main.table
    assert table is not None
    best = table.assign(first=table["verdict"] == "finding").sort_values(["first", "excess"], ascending=False).head(3)
    places = list(zip(best["direction"], best["lobe"], strict=True))
    return pd.DataFrame(
        {
            "groups": ours,
            "does not": theirs,
            "samples": best["samples"],
            "verdict": best["verdict"],
            **{
                f"{heading}, {column}": [known[direction, lobe, role] for direction, lobe in places]
                for column, role in (("groups", "target"), ("does not", "reference"))
                if heading
            },
            "shared words": best["shared words"],
            "stability": best["stability"],
            "loss": best["loss"],
            "excess": best["excess"],
            "lobe": [f"{direction} {lobe}" for direction, lobe in places],
        }
    )


def unlike_lobes(main: Section, quality: pd.DataFrame, target: Embeddings, reference: Embeddings) -> pd.DataFrame:
    """The lobes of one way with what both models get right of them, stable or not."""
    known, heading = _task_of(quality)
    table = main.table
    assert table is not None
    if not heading:
        return pd.DataFrame()
    lobes = table[table["excess"] > 0]
    places = list(zip(lobes["direction"], lobes["lobe"], strict=True))
    return pd.DataFrame(
        {
            "held together by": target.meta.get("model", "target"),
            "lobe": [f"{direction} {lobe}" for direction, lobe in places],
            "samples": lobes["samples"].to_list(),
            **{
                f"{heading}, {name}": [known[direction, lobe, role] for direction, lobe in places]
                for role, name in zip(("target", "reference"), _names(target, reference), strict=True)
            },
            "verdict": lobes["verdict"].to_list(),
            "stability": lobes["stability"].to_list(),
            "shared words": lobes["shared words"].to_list(),
        }
    )


def unlike_section(ways: list[pd.DataFrame], target: Embeddings, reference: Embeddings) -> list[Section]:
    """The lobes of both ways on which the models differ most in what they get right."""
    table = pd.concat(ways, ignore_index=True)
    if table.empty:
        return []
    ours, theirs = _names(target, reference)
    heading = str(table.columns[3]).removesuffix(f", {ours}")
    change = table[f"{heading}, {ours}"] - table[f"{heading}, {theirs}"]
    table.insert(3, "change", change)
    table = table.sort_values("change", key=abs, ascending=False, kind="stable")
    table = table[table["change"] != 0].head(UNLIKE)
    if table.empty:
        return []
    first = ["change", f"{heading}, {ours}", f"{heading}, {theirs}", "samples", "verdict", "shared words"]
    columns = [*first, *(column for column in table if column not in first)]
    text = (
        f"The groups on which the {heading} of the two models differs most: *change* is that of {escape(ours)} minus "
        f"that of {escape(theirs)}. These groups were searched for, and many are small: one that is no finding may be "
        "chance."
    )
    return [Section(f"Groups on which {ours} and {theirs} differ most in {heading}", text, table[columns])]


def _task_of(quality: pd.DataFrame) -> tuple[pd.Series[float], str]:
    """What tells whether a model can do its task on a lobe, by direction, lobe and role; and its name, or ""."""
    measure = next((m for m in ("zeroshot_accuracy", "image_to_text_recall@5") if (quality["measure"] == m).any()), "")
    known = quality[quality["measure"] == measure].set_index(["direction", "lobe", "model"])["value"]
    return known, measure.replace("zeroshot_", "").replace("image_to_text_", "")


def _names(target: Embeddings, reference: Embeddings) -> tuple[str, str]:
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
    return Section(f"Kernel widths of {rows[0]['model']} and {rows[1]['model']}", text, pd.DataFrame(rows))
