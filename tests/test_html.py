from __future__ import annotations

import io
import json
import re
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Browser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from koda_audit.document import Picture, SampleGrid, Section, escape, printable
from koda_audit.report.html import SHOWN, to_html
from koda_audit.report.markdown import cell
from koda_audit.report.pictures import thumbnail
from koda_audit.report.write import write_report
from koda_audit.results import Result, frame

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=http://example.org/x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "=1+1",
    "[x](javascript:alert(1)) ![y](http://example.org/y) <http://example.org>",
    "\x1b[31mred\x00\u202e",
    "*bold* `code` &lt;i&gt; &amp;",
    "{{ 7 * 7 }} {% raw %} </style> ]]> -->",
]
IDS = tuple(f"{text}{number}" for number, text in enumerate(EVIL))
IMAGES = {sample: thumbnail(Image.new("RGB", (400 + 10 * i, 30), (20 * i, 90, 90))) for i, sample in enumerate(IDS)}
VOID = {"meta", "link", "img", "input", "br"}


def chart() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(stream, format="PNG")
    return stream.getvalue()


def hostile_sections() -> list[Section]:
    table = pd.DataFrame({EVIL[0]: EVIL, EVIL[1]: EVIL, "model": EVIL, "x": np.linspace(-1.5, 1e9, len(EVIL))})
    figures = (SampleGrid("g", EVIL[1], IDS, tuple(EVIL)),), (Picture("p", EVIL[2], chart()),)
    return [
        Section(EVIL[0], "\n\n".join([*EVIL, *map(escape, EVIL)]), table, *figures),
        Section("Second", "*em* **strong** `code`\n\n- one\n- two"),
    ]


def results(n: int = 3) -> pd.DataFrame:
    models = [("a", "b", EVIL[0])[i % 3] for i in range(n)]
    return frame([Result(model, "", EVIL[6], "t", f"m{i % 2}", i / 7, n=9) for i, model in enumerate(models)])


VERDICTS = pd.DataFrame(
    {"metric": ["acc1", "acc5"], "estimate": [0.1, None], "verdict": ["PASS", "ERROR"], "sentence": ["good", EVIL[1]]}
)


def page(n: int = 3) -> str:
    settings = {"torch": "2", EVIL[0]: {"b": EVIL[1]}}
    return to_html(EVIL[1], hostile_sections(), IMAGES, results(n), VERDICTS, settings)


class Parsed(HTMLParser):
    """Every element with its attributes and text; fails where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict[str, str]] = []
        self.elements: list[dict[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        element = {"tag": tag, "text": "", **{name: value or "" for name, value in attrs}}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [element for element in self.elements if element["tag"] == tag]


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed(page())


def test_all_parts_are_there_in_order(parsed: Parsed) -> None:
    titles = ["Verdicts", EVIL[0], "Second", "All results", "Environment"]
    assert [heading["text"] for heading in parsed.all("h2")] == titles
    sections = [section["id"] for section in parsed.all("section")]
    assert [link["href"] for link in parsed.all("a")[1:]] == [f"#{name}" for name in sections]
    assert [link["text"] for link in parsed.all("a")[1:]] == titles
    assert parsed.all("h1")[0]["text"] == parsed.all("title")[0]["text"] == EVIL[1]
    assert len(parsed.all("table")) == 4
    assert len(parsed.all("figure")) == 2
    assert [item["text"] for item in parsed.all("li") if item["text"] in ("one", "two")] == ["one", "two"]
    for tag in ("em", "strong", "code"):
        assert tag in [element["text"] for element in parsed.all(tag)]


def test_hostile_text_is_shown_and_does_nothing(parsed: Parsed) -> None:
    assert len(parsed.all("script")) == len(parsed.all("style")) == 1
    names = {name for element in parsed.elements for name in element}
    assert not [name for name in names if name.startswith("on") or name in ("style", "action", "srcset", "background")]
    assert all(link["href"].startswith("#") for link in parsed.all("a"))
    assert [link["href"] for link in parsed.all("link")] == ["data:,"]
    assert all(image["src"].startswith("data:image/webp;base64,") for image in parsed.all("img"))
    assert {element["tag"] for element in parsed.elements if "src" in element} == {"img"}
    shown = [element["text"] for element in parsed.elements]
    for text in EVIL:
        assert shown.count(printable(text)) >= 4  # its cells, and its caption
    text = page()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "7 * 7" in text
    assert "49" not in parsed.all("main")[0]["text"]


@given(st.text())
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    body = Parsed(to_html("t", [Section("S", f"Said: {escape(text)}.")], {})).all("p")[0]["text"]
    assert body == f"Said: {printable(text)}."


@given(st.text("<>[]()!&;:#`*_~|\\/ \n\t-+1.=\"'ahpr\x00"))
def test_no_markdown_becomes_more_than_emphasis_lists_and_code(text: str) -> None:
    body = to_html("t", [Section("S", f"x\n\n{text}")], {}).split('<div class="prose">')[1].split("</div>")[0]
    elements = Parsed(body).elements
    assert {element["tag"] for element in elements} <= {*("p", "em", "strong", "code", "ul", "ol", "li", "br")}
    assert {name for element in elements for name in element} <= {"tag", "text", "start"}


def test_the_policy_knows_the_script_and_the_style_and_no_address(parsed: Parsed) -> None:
    policy = next(meta["content"] for meta in parsed.all("meta") if "http-equiv" in meta)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag in ("script", "style"):
        digest = sha256(parsed.all(tag)[0]["text"].encode()).digest()
        assert rules.pop(f"{tag}-src") == f"'sha256-{b64encode(digest).decode()}'"
    assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}


def test_pictures_are_the_samples_and_the_charts(parsed: Parsed) -> None:
    images = parsed.all("img")
    assert [image["alt"] for image in images] == [EVIL[2], *(f"sample {printable(sample)}" for sample in IDS)]
    first, *others = (Image.open(io.BytesIO(b64decode(image["src"].split(",")[1]))) for image in images)
    assert first.convert("RGB").tobytes() == Image.new("RGB", (30, 20), "red").tobytes()
    assert (images[0]["width"], images[0]["height"]) == ("30", "20")
    for sample, image in zip(IDS, others, strict=True):
        assert image.width == 300
        drawn = 20 * IDS.index(sample), 90, 90
        assert np.abs(np.subtract(image.convert("RGB").getpixel((9, 9)), drawn)).max() < 8


def test_tables_have_names_and_heads(parsed: Parsed) -> None:
    ids = [element["id"] for element in parsed.elements if "id" in element]
    assert len(ids) == len(set(ids))
    for element in parsed.elements:
        assert element.get("aria-labelledby", ids[0]) in ids
    assert [caption["text"] for caption in parsed.all("caption")][1] == f"Table: {EVIL[0]}"
    heads = parsed.all("th")
    assert {head["scope"] for head in heads} == {"row", "col"}
    assert all(head["aria-sort"] == "none" for head in heads if head["scope"] == "col")
    regions = [element for element in parsed.elements if element.get("role") in ("region", "group")]
    assert all(region["tabindex"] == "0" and {"aria-label", "aria-labelledby"} & set(region) for region in regions)
    assert len(regions) == 5
    assert [head["text"] for head in heads[:4]] == ["verdict", "sentence", "metric", "estimate"]


def cells(text: str) -> list[dict[str, str]]:
    return [
        element for element in Parsed(text).elements if element["tag"] in ("td", "th") and "aria-sort" not in element
    ]


def test_numbers_read_as_in_markdown_and_sort_by_what_they_are() -> None:
    values = [0.123456, -3.0, 1e-9, 1234567.0, np.nan, np.inf]
    texts = ["0.95 (0.74 to 0.99)", "3 positive", "1.5", "", "–", "x"]
    table = pd.DataFrame({"n": range(6), "x": values, "t": texts, "none": None})
    found = cells(to_html("t", [Section("S", "", table)], {}))
    assert [one["text"] for one in found[1::4]] == [cell(value) for value in values]
    assert [one.get("data-value") for one in found[::4]] == [f"{i}.0" for i in range(6)]
    assert [one.get("data-value") for one in found[1::4]] == [
        *("0.123456", "-3.0", "1e-09", "1234567.0", None, "Infinity")
    ]
    assert [one.get("data-value") for one in found[2::4]] == ["0.95", None, None, None, None, None]
    assert [one.get("class") for one in found[:4]] == ["number", "number", None, None]


def test_verdicts_say_in_words_what_colours_say(parsed: Parsed) -> None:
    spans = [span for span in parsed.all("span") if "class" in span]
    assert [(span["class"], span["text"]) for span in spans] == [("ERROR", "1 ERROR"), ("PASS", "1 PASS")]
    first = [head for head in parsed.all("th") if head["scope"] == "row"][:2]
    assert [(head["class"], head["text"]) for head in first] == [("PASS", "PASS"), ("ERROR", "ERROR")]
    other = pd.DataFrame({"verdict": ["finding"], "x": ["PASS"]})
    assert [one.get("class") for one in cells(to_html("t", [Section("S", "", other)], {}))] == [None, None]


def test_the_results_are_all_there_and_say_once_what_is_the_same() -> None:
    text = to_html("t", [], {}, results(SHOWN + 5))
    whole = Parsed(text)
    assert [head["text"] for head in whole.all("th")[:3]] == ["model", "metric", "value"]
    assert f"all rows: dataset {printable(EVIL[6])}, task t, n 9" in whole.all("p")[0]["text"]
    rows = whole.all("tr")[1:]
    assert len(rows) == SHOWN + 5
    assert ["hidden" in row for row in rows] == [False] * SHOWN + [True] * 5
    assert [option["value"] for option in whole.all("option")] == ["", "a", "b", EVIL[0], "", "m0", "m1"]
    assert all("<label>" in part for part in re.split(r"<select|<input", text)[:-1])
    assert "All results" not in to_html("t", [], {}, frame([]), VERDICTS[:0], {})


def test_the_same_input_gives_the_same_page() -> None:
    assert page() == page()


def test_a_report_has_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    environment = {"python": {"version": "3.11"}}
    write_report(
        folder,
        EVIL[1],
        hostile_sections(),
        {},
        [Result("m", "p", "d", "t", "x", 1.0)],
        lambda wanted: {sample: IMAGES[sample] for sample in wanted},
        VERDICTS,
        environment,
    )
    assert "report.html" in json.loads((folder / "files.json").read_text())["files"]
    written = Parsed((folder / "report.html").read_text("utf-8"))
    titles = [heading["text"] for heading in written.all("h2")]
    assert titles == ["Verdicts", EVIL[0], "Second", "All results", "Environment"]
    markdown = (folder / "report.md").read_text()
    assert "## Verdicts\n\n1 ERROR, 1 PASS." in markdown
    assert "| python version | 3.11" in markdown


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None or shutil.which("bash") is None:
        pytest.skip("no Chromium here")
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


COLUMN = "[...document.querySelectorAll('#s4 tbody tr')].filter(r => !r.hidden).map(r => r.cells[2].textContent)"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_has_no_complaint(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(), "utf-8")
    browser.open(path, width, dark=dark)
    assert browser.faults() == []
    assert browser.requests() == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth && innerWidth") == width
    assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 64) == dark


def test_sorting_and_filtering_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    n = SHOWN + 10
    path.write_text(page(n), "utf-8")
    browser.open(path)
    values = [i / 7 for i in range(n)]
    assert browser.run(COLUMN) == [cell(value) for value in values[:SHOWN]]
    head = "document.querySelectorAll('#s4 thead th')[2]"
    states = []
    for _ in range(3):
        browser.run(f"{head}.firstElementChild.focus()")
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, text="\r")
        browser.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", windowsVirtualKeyCode=13)
        states.append((browser.run(f"{head}.getAttribute('aria-sort')"), browser.run(COLUMN)[0]))
    assert states == [("ascending", "0"), ("descending", cell(values[-1])), ("none", "0")]
    browser.run("document.querySelector('#s4 .more button').click()")
    assert len(browser.run(COLUMN)) == n
    choose = "s = document.querySelectorAll('#s4 select')[{}]; s.value = {!r}; s.dispatchEvent(new Event('input'))"
    browser.run(choose.format(0, EVIL[0]))
    browser.run(choose.format(1, "m1"))
    expected = [cell(value) for i, value in enumerate(values) if i % 3 == 2 and i % 2 == 1]
    assert browser.run(COLUMN) == expected
    assert browser.run("document.querySelector('#s4 output').textContent") == f"{len(expected)} of {n} rows"
    typed = f"i = document.querySelector('#s4 input'); i.value = 'SCRIPT {expected[3]}'; "
    browser.run(typed + "i.dispatchEvent(new Event('input'))")
    assert browser.run(COLUMN) == [value for value in expected if expected[3] in value]
    assert browser.faults() == []


def test_what_is_not_defined_stays_last(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    table = pd.DataFrame({"i": range(4), "none": 0, "x": [np.nan, 10.0, -2.5, 1e-9]})
    empty = Section("empty", "", pd.DataFrame({"a": []}))
    path.write_text(to_html("t", [empty, empty, empty, Section("S", "", table)], {}), "utf-8")
    browser.open(path)
    for expected in (["-2.5", "1e-09", "10", "–"], ["10", "1e-09", "-2.5", "–"]):
        browser.run("document.querySelectorAll('#s4 thead button')[2].click()")
        assert browser.run(COLUMN) == expected


def test_the_policy_holds_what_slipped_in(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    slipped = "<script>document.title = 'owned'</script><img src='http://127.0.0.1:9/x' onerror='document.title = 1'>"
    path.write_text(to_html("t", [], {}).replace("</main>", slipped + "</main>"), "utf-8")
    browser.open(path)
    assert browser.run("document.title") == "t"
    assert len(browser.faults()) >= 2
    path.write_text(re.sub(r'<meta http-equiv="[^>]*>', "", path.read_text("utf-8")), "utf-8")
    browser.open(path)
    assert browser.run("document.title") != "t"  # it would have
