"""Training of towers under the names of its methods, with flat settings as command lines and suites have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from types import MappingProxyType
from typing import Any

from koda_audit._options import one_of
from koda_audit.alignment.choices import check_kinds
from koda_audit.alignment.curriculum import Phases
from koda_audit.alignment.learners import KernelGoal
from koda_audit.alignment.plans import TowerPlan, kuea_paper
from koda_audit.alignment.tower import align_tower, check_student, curriculum_tower
from koda_audit.errors import InputError, unknown
from koda_audit.models import ModelSpec

TRAINERS: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {"kuea": align_tower, "curriculum": curriculum_tower}
)
PRESET = "kuea-paper"
# of a plan, given elsewhere: --members, --num_workers
ELSEWHERE = ("focus", "workers")


def tower_arguments(name: str, student: ModelSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ``TRAINERS[name]`` takes, besides models, data and places, from flat settings.

    Args:
        student: an open_clip model.
        settings: fields of ``TowerPlan``, and of ``KernelGoal`` or the curriculum; ``preset``, "kuea-paper", whose
            values others replace.

    Raises:
        InputError: a method without towers, a model that cannot be trained, an unknown setting, a value out of range.

    >>> found = tower_arguments("kuea", ModelSpec("ViT-B-16", "openai"), {"preset": "kuea-paper", "epochs": 3})
    >>> found["plan"].epochs, found["plan"].warmup, found["goal"].pairs
    (3, 1400, 'all')
    """
    if name not in TRAINERS:
        raise InputError(f"'{name}' has no tower mode: {' and '.join(TRAINERS)} have one, all others map embeddings")
    check_student(student)
    settings = dict(settings)
    preset = settings.pop("preset", None)
    goal, plan = KernelGoal(), TowerPlan()
    if preset is not None:
        one_of(preset, f"preset of '{name}'", (PRESET,) if name == "kuea" else ())
        goal, plan = kuea_paper(student.name)
    planned, others = _defaults(name, goal, plan)
    known = {**others, **planned}
    for key in settings:
        if key not in known:
            raise InputError(unknown(f"setting of '{name}' in tower mode", key, [*known, "preset"]))
    for formula in (KernelGoal if name == "kuea" else TRAINERS[name], TowerPlan):
        check_kinds(formula, settings)
    chosen = {**known, **settings}
    plan = replace(plan, **{key: chosen[key] for key in planned})
    if name == "kuea":
        return {"goal": KernelGoal(**{key: chosen[key] for key in others}), "plan": plan}
    Phases(chosen["alpha_target"], 1, chosen["anchor"], chosen["ramp"], chosen["rise"])
    one_of(chosen["towers"], "towers", ("both", "visual"))
    return {**{key: chosen[key] for key in others}, "plan": plan}


def settings_of(name: str) -> tuple[str, ...]:
    """The settings that ``tower_arguments`` knows.

    >>> "alpha_target" in settings_of("curriculum"), "weight" in settings_of("curriculum")
    (True, False)
    """
    planned, others = _defaults(name, KernelGoal(), TowerPlan())
    return (*others, *planned, "preset")


def _defaults(name: str, goal: KernelGoal, plan: TowerPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the plan, and those of what is minimised."""
    planned = {key: value for key, value in vars(plan).items() if key not in ELSEWHERE}
    if name == "kuea":
        return planned, dict(vars(goal))
    parts = signature(TRAINERS[name]).parameters.values()
    given = {part.name: part.default for part in parts if part.default is not part.empty}
    return planned, {key: value for key, value in given.items() if key not in ("plan", "device")}
