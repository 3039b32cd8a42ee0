"""Verdicts for people and machines: complete, and inert whatever names they hold."""

from __future__ import annotations

import json
from xml.dom import minidom
from xml.etree import ElementTree

import pytest
from gate_audits import hits, number, run_of
from markdown_it import MarkdownIt

from koda_audit._files import write_json
from koda_audit.gates.gate import Gate, gate_of
from koda_audit.gates.judge import judge
from koda_audit.gates.outputs import COLUMNS, junit, markdown, summary, table_of, terminal
from koda_audit.gates.verdict import Verdict

EVIL = [
    "a|b",
    "<script>alert(1)</script>",
    "@octocat",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "`code` **bold** ~~gone~~",
    "line\nbreak\r\nand\ttab",
    "\x1b[31mred\x07\x00\x9b",
    "]]> & \"quoted\" 'too'",
    "\u202eturned\u2028parted\ufffe",
    "#1 $x$ https://evil.example",
]
RUN = run_of(
    number(hits=hits(850, 150)),
    number(hits=hits(900, 100), model="old"),
    number(0, metric="koda_findings", task="koda_discrepancy", reference="old"),
)
GATES = [
    Gate("acc1", "cifar", "new", min=0.5),
    Gate("acc1", "cifar", "new", min=0.86),
    Gate("acc1", "cifar", "new", against="old", max_drop=0.01),
    Gate("acc1", "cifar", "nobody", min=0.5),
    Gate("koda_findings", "cifar", "new", max=0),
]
WORDS = ["PASS", "WARN", "FAIL", "ERROR", "PASS"]


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    found = judge(GATES, RUN)
    assert [verdict.verdict for verdict in found] == WORDS
    return found


@pytest.fixture(scope="module", params=EVIL, ids=[f"evil {number}" for number in range(len(EVIL))])
def evil(request) -> tuple[str, list[Verdict]]:
    name = request.param
    run = run_of(number(hits=hits(8, 2), model=name, dataset=name, alignment=name))
    gates = [Gate("acc1", name, name, alignment=name, min=0.5), Gate(name, name, name, against="x", max_drop=0.1)]
    return name, judge(gates, run)


def test_the_terminal_shows_a_row_and_a_sentence_a_gate(verdicts):
    lines = terminal(verdicts).splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert [line.split()[0] for line in lines[2:7]] == WORDS
    failed = lines[4].split()
    assert failed[1:5] == ["acc1", "new", "old", "cifar"]
    assert failed[-4:-2] == ["max_drop", "0.01"]
    assert float(failed[6]) == pytest.approx(0.05)
    assert 0.01 < float(failed[7]) < 0.05
    assert "FAIL acc1 of new on cifar: fell by 0.05, from 0.9 to 0.85; fall of at least" in terminal(verdicts)
    assert lines[-1] == "ERROR: 1 ERROR, 1 FAIL, 1 WARN, 2 PASS of 5 gates"


def test_the_summary_of_one(verdicts):
    assert summary(verdicts[:1]) == "PASS: 1 PASS of 1 gate"


def test_json_holds_every_field_and_gives_the_gates_back(verdicts, tmp_path):
    write_json(tmp_path / "verdicts.json", [verdict.record() for verdict in verdicts])
    rows = json.loads((tmp_path / "verdicts.json").read_text(), parse_constant=pytest.fail)
    assert [row["verdict"] for row in rows] == WORDS
    names = {"tolerance", "estimate", "bound", "confidence", "n", "p", "smallest", "sentence", "provenance"}
    for row, gate in zip(rows, GATES, strict=True):
        assert names < set(row)
        kept = {name: value for name, value in row.items() if name in vars(gate) and value is not None}
        assert gate_of(kept) == gate


def test_a_report_shows_the_same_columns_with_numbers(verdicts):
    table = table_of(verdicts)
    assert list(table.columns) == [*COLUMNS, "sentence"]
    assert table["verdict"].tolist() == WORDS
    assert table["estimate"].dtype.kind == "f"


def test_junit_counts_and_tells_failures_from_errors(verdicts):
    suite = ElementTree.fromstring(junit(verdicts))
    assert (suite.tag, suite.attrib) == (
        "testsuite",
        {"name": "koda-audit", "tests": "5", "failures": "1", "errors": "1"},
    )
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"],
        ["system-out"],
        ["failure"],
        ["error"],
        ["system-out"],
    ]
    assert len({case.get("name") for case in cases}) == len(cases)
    assert cases[2].get("name") == "acc1 of new on cifar, max_drop 0.01 against old"
    assert cases[0].get("name") == "acc1 of new on cifar, min 0.5"
    assert cases[2].find("failure").get("message") == verdicts[2].sentence
    assert cases[1].find("system-out").text == f"WARN: {verdicts[1].sentence}"


def test_junit_is_xml_whatever_the_names(evil):
    name, found = evil
    for parse in (ElementTree.fromstring, minidom.parseString):
        parse(junit(found))
    for case in ElementTree.fromstring(junit(found)).iter("testcase"):
        assert case.get("name").isprintable()
        assert "".join(name.split()).isprintable() <= ("".join(name.split()) in "".join(case.get("name").split()))


def test_markdown_is_inert_whatever_the_names(evil):
    _, found = evil
    text = markdown(found)
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text)
    inner = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in [*tokens, *inner]}
    assert not kinds & {"html_block", "html_inline", "image", "link_open", "code_inline", "s_open", "em_open"}
    assert {token.content for token in inner if token.type == "strong_open"} == {""}
    assert sum(token.type == "tr_open" for token in tokens) == 1 + len(found)
    assert sum(token.type == "td_open" for token in tokens) == len(COLUMNS) * len(found)
    assert sum(token.type == "strong_open" for token in inner) == len(found)  # the words of the verdicts alone
    assert "@octocat" not in text  # nobody is told of the comment
    assert all(line.isprintable() for line in text.replace("\u200b", "").splitlines())


def test_the_terminal_obeys_no_name(evil):
    _, found = evil
    assert all(line.isprintable() for line in terminal(found).split("\n"))
    assert len(terminal(found).split("\n")) == 2 + len(found) + 1 + len(found) + 2
