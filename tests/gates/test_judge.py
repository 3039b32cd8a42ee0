"""Every verdict of the table, from audits made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from gate_audits import hits, number, run_of, write_audit
from scipy import stats

from koda_audit.errors import InputError, KodaAuditWarning
from koda_audit.evaluation.scores import per_class
from koda_audit.gates.gate import Gate
from koda_audit.gates.judge import judge
from koda_audit.gates.verdict import exit_code

DROP = Gate("acc1", "cifar", "new", max_drop=0.0)
OLD = number(hits=hits(900, 100))


def lost(count, gained=0, of=1000, **more):
    """``OLD`` with some hits lost and some gained."""
    values = hits(900, 100) if of == 1000 else hits(of, 0)
    values[:count] = 0
    values[len(values) - gained :] = 1
    return number(hits=values, **more)


def one(gate, run, baseline=None):
    (verdict,) = judge([gate], run, baseline)
    return verdict


@pytest.mark.parametrize(
    ("losses", "gains", "word"), [(0, 0, "PASS"), (0, 9, "PASS"), (3, 2, "WARN"), (4, 0, "WARN"), (5, 0, "FAIL")]
)
def test_pass_warn_and_fail_are_exact_mcnemar(losses, gains, word):
    found = one(DROP, run_of(lost(losses, gains)), run_of(OLD))
    assert found.verdict == word
    assert found.n == 1000
    assert found.estimate == pytest.approx((losses - gains) / 1000)
    expected = stats.binomtest(losses, losses + gains, 0.5, alternative="greater").pvalue if losses else 1.0
    assert found.p == pytest.approx(expected if expected < 0.5 else 1.0, rel=1e-6)
    assert "exact McNemar, 1000 paired samples" in found.sentence
    assert (word == "FAIL") == (found.bound > 0) == (found.p <= 0.05)


def test_what_could_have_been_found_is_said_where_nothing_was():
    found = one(Gate("acc1", "cifar", "new", max_drop=0.01), run_of(lost(0)), run_of(OLD))
    assert found.verdict == "PASS"
    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.8)
    x = found.smallest - 0.01  # of the formula in the documentation, without noise of its own
    assert x**2 == pytest.approx(z**2 * x * (1 - x) / 1000)
    assert f"a fall of {found.smallest:.4g} would have shown with a chance of 80 %" in found.sentence
    few = one(Gate("acc1", "cifar", "new", max_drop=0.5), run_of(lost(0, of=5)), run_of(lost(0, of=5)))
    assert few.smallest is None
    assert few.sentence.endswith("too few samples to show any")


@pytest.mark.parametrize(
    ("gate", "now", "before"),
    [
        (DROP, lost(7, 2), OLD),
        (Gate("acc1", "cifar", "new", max_rise=0.05), lost(2, 7), OLD),
        (Gate("m", "cifar", "new", max_drop=0.1), number(0.7, metric="m", ci_low=0.6, ci_high=0.75), None),
    ],
)
def test_how_bad_it_may_be_is_the_bound_of_the_gate_the_other_way(gate, now, before):
    before = number(0.75, metric="m", ci_low=0.7, ci_high=0.85) if before is None else before
    found = one(gate, run_of(now), run_of(before))
    way = {"max_rise": "max_drop", "max_drop": "max_rise"}[gate.kind]
    other = one(replace(gate, **{gate.kind: None, way: 0.0}), run_of(now), run_of(before))
    assert found.verdict != "FAIL"
    assert found.worst == pytest.approx(-other.bound)
    assert found.worst > found.estimate
    word = "fall" if gate.kind == "max_drop" else "rise"
    assert f"; {word} of at most {found.worst:.4g} with 95 % confidence" in found.sentence


def test_how_bad_a_number_may_be_itself():
    run = run_of(lost(0))
    low, high = (one(Gate("acc1", "cifar", "new", **{kind: end}), run) for kind, end in (("min", 0.5), ("max", 0.95)))
    interval = stats.binomtest(900, 1000).proportion_ci(0.9, "exact")
    assert (low.worst, high.worst) == pytest.approx(tuple(interval))
    assert f"is 0.9; at least {low.worst:.4g} with " in low.sentence
    assert f"is 0.9; at most {high.worst:.4g} with " in high.sentence


def test_numbers_that_may_be_guessed_are_said_to_be():
    def share(right, **more):
        return number(hits=hits(right, 100 - right), chance=0.1, ci_low=right / 100 - 0.05, **more)

    gate = Gate("acc1", "cifar", "new", against="old", max_drop=0.02)
    guessed = one(gate, run_of(share(10), share(12, model="old")))
    assert guessed.sentence.startswith("fell by 0.02, from 0.12 to 0.1, neither better than chance (0.1); ")
    assert "chance (" not in one(gate, run_of(share(10), share(40, model="old"))).sentence
    alone = one(Gate("acc1", "cifar", "new", min=0.05), run_of(share(10)))
    assert alone.sentence.startswith("is 0.1, no better than chance (0.1); at least ")


def test_a_rise_is_a_fall_with_sides_exchanged():
    rise = Gate("acc1", "cifar", "new", max_rise=0.0)
    found, mirrored = one(rise, run_of(OLD), run_of(lost(8, 2))), one(DROP, run_of(lost(8, 2)), run_of(OLD))
    assert (found.verdict, found.p, found.bound) == (mirrored.verdict, mirrored.p, mirrored.bound)
    assert found.sentence.startswith("rose by 0.006, from 0.894 to 0.9")
    assert mirrored.sentence.startswith("fell by 0.006, from 0.9 to 0.894")


def test_against_another_model_of_the_same_audit():
    run = run_of(lost(30), number(hits=hits(900, 100), model="old"))
    gate = Gate("acc1", "cifar", "new", against="old", max_drop=0.01)
    assert one(gate, run).verdict == "FAIL"
    with pytest.warns(KodaAuditWarning, match="no gate is compared with the baseline"):
        assert one(gate, run, run_of(lost(30))).verdict == "FAIL"  # the baseline is for gates without


@pytest.mark.parametrize(
    ("bounds", "right", "word"),
    [
        ({"min": 0.9}, 950, "PASS"),
        ({"min": 0.9}, 890, "WARN"),
        ({"min": 0.9}, 850, "FAIL"),
        ({"max": 0.9}, 850, "PASS"),
        ({"max": 0.9}, 910, "WARN"),
        ({"max": 0.9}, 950, "FAIL"),
    ],
)
def test_min_and_max_look_at_the_number_itself(bounds, right, word):
    found = one(Gate("acc1", "cifar", "new", **bounds), run_of(number(hits=hits(right, 1000 - right))))
    assert found.verdict == word
    side = "less" if "min" in bounds else "greater"
    interval = stats.binomtest(right, 1000, alternative=side).proportion_ci(0.95, "exact")
    assert found.bound == pytest.approx(interval.high if "min" in bounds else interval.low, abs=1e-12)
    assert found.p == (pytest.approx(stats.binomtest(right, 1000, 0.9, side).pvalue) if word != "PASS" else 1.0)


@pytest.mark.parametrize(("findings", "word"), [(0, "PASS"), (1, "FAIL"), (7, "FAIL")])
def test_counts_are_compared_as_they_are(findings, word):
    row = number(findings, metric="koda_findings", task="koda_discrepancy", reference="old")
    found = one(Gate("koda_findings", "cifar", "new", against="old", max=0), run_of(row))
    assert (found.verdict, found.estimate, found.bound, found.p) == (word, findings, None, None)
    fewer = Gate("koda_findings", "cifar", "new", max_rise=0)
    before = number(3, metric="koda_findings", task="koda_discrepancy", reference="old")
    assert one(fewer, run_of(row), run_of(before)).verdict == ("FAIL" if findings > 3 else "PASS")


def test_numbers_without_outcomes_are_judged_by_their_intervals():
    half = stats.norm.ppf(0.975)
    gap = {"metric": "gap_rmg", "task": "koda_modality_gap"}
    run = run_of(number(0.5, ci_low=0.5 - 0.02 * half, ci_high=0.5 + 0.01 * half, **gap))
    for limit, word in ((0.51, "PASS"), (0.48, "WARN"), (0.46, "FAIL")):
        found = one(Gate("gap_rmg", "cifar", "new", max=limit), run)
        assert found.verdict == word
        assert found.bound == pytest.approx(0.5 - 0.02 * stats.norm.ppf(0.95))
    earlier = run_of(number(0.4, ci_low=0.4 - half, ci_high=0.4 + 0.015 * half, **gap))
    found = one(Gate("gap_rmg", "cifar", "new", max_rise=0.0), run, earlier)
    assert found.bound == pytest.approx(0.1 - 0.025 * stats.norm.ppf(0.95))
    assert "not paired" in found.sentence


def test_weighted_outcomes_are_paired_and_alone_judged_by_the_stated_interval():
    """A mean over classes: the weights make its outcomes vary more than it does itself."""
    labels = np.repeat([0, 1], [900, 100])
    kept = np.ones(1000)
    kept[::50] = 0
    lost = kept.copy()
    lost[905:925] = 0
    old, new = (per_class("r", values, labels).outcomes["r"].values for values in (kept, lost))
    metric = {"metric": "mean_per_class_recall"}
    low, high = per_class("r", lost, labels).intervals["r"]
    run = run_of(number(hits=new, ci_low=low, ci_high=high, **metric), number(hits=old, model="old", **metric))
    fall = one(Gate("mean_per_class_recall", "cifar", "new", against="old", max_drop=0.02), run)
    assert (fall.verdict, fall.estimate) == ("FAIL", pytest.approx((old - new).mean()))
    alone = one(Gate("mean_per_class_recall", "cifar", "new", min=0.95), run)
    assert alone.verdict == "FAIL"
    assert "stated interval" in alone.sentence


def test_queries_of_an_image_count_as_one_sample():
    image = np.repeat(np.arange(200), 5)
    before = number(hits=np.ones(1000), image=image)
    after = np.ones(1000)
    after[:20] = 0  # all of four images
    found = one(DROP, run_of(number(hits=after, image=image)), run_of(before))
    assert (found.n, found.verdict) == (200, "WARN")
    assert "paired bootstrap over images" in found.sentence


def holm(p_values, level):
    """The textbook: the smallest against level / k, the next against level / (k - 1), until the first that stands."""
    order, rejected = np.argsort(p_values, kind="stable"), np.zeros(len(p_values), dtype=bool)
    for step, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def test_gates_of_a_suite_share_one_level_by_holm():
    counts = [0, 5, 6, 7, 8, 12]  # lost
    models = [f"m{count}" for count in counts]
    run = run_of(*(lost(count, model=model) for count, model in zip(counts, models, strict=True)))
    old = run_of(*(number(hits=hits(900, 100), model=model) for model in models))
    gates = [Gate("acc1", "cifar", model, max_drop=0.0) for model in models]
    alone = [one(gate, run, old) for gate in gates]
    together = judge(gates, run, old)
    assert [verdict.p for verdict in alone] == [verdict.p for verdict in together]
    rejected = holm([verdict.p for verdict in together], 0.05)
    assert [verdict.verdict == "FAIL" for verdict in together] == rejected.tolist()
    assert [verdict.verdict for verdict in alone] == ["PASS"] + ["FAIL"] * 5
    assert 1 <= rejected.sum() < 5  # Holm matters here
    assert [verdict.bound > 0 for verdict in together] == rejected.tolist()


def test_counts_take_no_share_of_the_level():
    count = number(0, metric="koda_findings", task="koda_discrepancy")
    gates = [DROP, *[Gate("koda_findings", "cifar", "new", max=0)] * 20]
    assert judge(gates, run_of(lost(5), count), run_of(OLD))[0].confidence == 0.95


OLD_ROC = {"metric": "koda_excess_top1", "task": "koda_discrepancy"}
MORE = {"metric": "acc1", "task": "linear_probe"}
ERRORS = {
    "no baseline": (DROP, [OLD], None, "no baseline is given"),
    "metric missing": (
        Gate("acc5", "cifar", "new", min=0.1),
        [OLD],
        None,
        "unknown metric 'acc5': did you mean",
    ),
    "model missing": (Gate("acc1", "cifar", "nwe", min=0.1), [OLD], None, "unknown model 'nwe': did you mean 'new'"),
    "dataset missing": (Gate("acc1", "cifr", "new", min=0.1), [OLD], None, "did you mean 'cifar'"),
    "alignment missing": (Gate("acc1", "cifar", "new", alignment="x", min=0), [OLD], None, "alignment x"),
    "task missing": (Gate("acc1", "cifar", "new", task="probe", min=0), [OLD], None, "task probe"),
    "missing before": (DROP, [OLD], [number(0.5, metric="acc5")], "unknown metric 'acc1'"),
    "nan": (Gate("acc1", "cifar", "new", min=0.1), [number(math.nan)], None, "not defined"),
    "none": (Gate("acc1", "cifar", "new", min=0.1), [number(None)], None, "not defined"),
    "nan before": (DROP, [OLD], [number(math.nan)], "not defined in before"),
    "other protocol": (DROP, [OLD], [number(hits=hits(900, 100), protocol="other")], "another protocol: same in"),
    "no protocol": (DROP, [number(hits=hits(9, 1), protocol=None)] * 1, [OLD], "another protocol: None in"),
    "no interval": (
        Gate("koda_excess_top1", "cifar", "new", max=0.1),
        [number(0.5, **OLD_ROC)],
        None,
        "neither per-sample outcomes nor an interval",
    ),
    "half an interval": (
        Gate("koda_excess_top1", "cifar", "new", max=0.1),
        [number(0.5, ci_low=0.4, **OLD_ROC)],
        None,
        "neither per-sample outcomes nor an interval",
    ),
    "interval turned round": (
        Gate("koda_excess_top1", "cifar", "new", max=0.1),
        [number(0.5, ci_low=0.6, ci_high=0.4, **OLD_ROC)],
        None,
        "neither per-sample outcomes nor an interval",
    ),
    "outcomes on one side": (DROP, [OLD], [number(0.9)], "0 samples paired: before lacks the per-sample outcomes"),
    "two numbers fit": (
        Gate("acc1", "cifar", "new", min=0.1),
        [OLD, number(0.5, **MORE)],
        None,
        "2 numbers of the audit fit",
    ),
    "failed": (
        Gate("acc1", "cifar", "new", min=0.1),
        [number(0.5, model="old"), number(None, metric="", status="error", error="disk on fire")],
        None,
        "failed there: disk on fire",
    ),
    "outcomes of another run": (
        Gate("acc1", "cifar", "new", min=0.1),
        [number(0.8, hits=hits(900, 100))],
        None,
        "is of two runs",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_judged_is_an_error_that_says_why(name):
    gate, ours, theirs, said = ERRORS[name]
    found = one(gate, run_of(*ours), None if theirs is None else run_of(*theirs, name="before"))
    assert found.verdict == "ERROR"
    assert said in found.sentence
    assert (found.estimate, found.bound, found.p) == (None, None, None)
    assert exit_code([found]) == 2


def test_samples_are_paired_by_their_ids_and_counted():
    ids = [f"x{row}" for row in range(10)]
    values = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], dtype=float)
    shuffled = np.random.default_rng(0).permutation(10)
    now = run_of(number(hits=values), ids=ids)
    before = run_of(number(hits=values[shuffled]), ids=[ids[row] for row in shuffled])
    found = one(DROP, now, before)
    assert (found.estimate, found.n) == (0, 10)
    part = run_of(number(hits=np.ones(6)), ids=ids[:6])
    shared = one(DROP, now, part)
    assert shared.n == 6
    assert shared.sentence.startswith("stayed 1; ")  # of the six that both have, not of the ten
    none = one(DROP, now, run_of(number(hits=values), ids=[f"y{row}" for row in range(10)]))
    assert none.verdict == "ERROR"
    assert "0 samples paired: the 10 and 10 samples of both sides have no id in common" in none.sentence


def test_a_task_or_reference_tells_numbers_apart():
    both = run_of(number(hits=hits(9, 1)), number(hits=hits(8, 2), **MORE))
    assert one(Gate("acc1", "cifar", "new", task="linear_probe", min=0.5), both).estimate == pytest.approx(0.8)
    compared = run_of(
        *(
            number(count, metric="koda_findings", task="koda_discrepancy", reference=name)
            for name, count in (("old", 0), ("older", 3))
        )
    )
    gates = [Gate("koda_findings", "cifar", "new", against=name, max=0) for name in ("old", "older")]
    assert [verdict.verdict for verdict in judge(gates, compared)] == ["PASS", "FAIL"]


def test_provenance_is_said_and_never_refuses():
    runs = [run_of(number(hits=hits(900, 100), provenance=weights)) for weights in ("a", "b", "a")]
    assert [one(DROP, runs[0], other).provenance for other in runs[1:]] == ["changed", "same"]
    assert one(DROP, runs[0], runs[1]).verdict == "PASS"


def test_damaged_outcomes_are_an_error_of_their_gates_alone(tmp_path):
    folder = write_audit(tmp_path / "run", OLD, number(0, metric="koda_findings", task="koda_discrepancy"))
    next((folder / "outcomes").glob("*.safetensors")).write_bytes(b"x")
    gates = [Gate("acc1", "cifar", "new", min=0.1), Gate("koda_findings", "cifar", "new", max=0)]
    first, second = judge(gates, folder)
    assert (first.verdict, second.verdict) == ("ERROR", "PASS")
    assert "differs from its checksum" in first.sentence


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"model": 1}]', "[" * 100_000, "\xff"])
def test_a_damaged_table_is_one_sentence(tmp_path, text):
    (tmp_path / "results.json").write_text(text, "latin-1")
    with pytest.raises(InputError, match=r"results\.json is damaged"):
        judge([DROP], tmp_path)


def test_a_folder_without_an_audit(tmp_path):
    with pytest.raises(InputError, match="holds no audit"):
        judge([DROP], tmp_path)


def test_exit_codes_are_those_of_the_worst():
    run = run_of(lost(30), number(hits=hits(900, 100), model="old"))
    good, bad = Gate("acc1", "cifar", "new", min=0.1), Gate("acc1", "cifar", "new", against="old", max_drop=0)
    wrong = Gate("acc1", "cifar", "nobody", min=0)
    assert [exit_code(judge(gates, run)) for gates in ([], [good], [good, bad], [bad, wrong])] == [0, 0, 1, 2]
