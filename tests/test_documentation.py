"""The documentation says what is so: its commands run, its output is what they print, its tables are the package's.

Of ``README.md`` and ``docs/*.md``, by the first word after the fence:

- ``sh``: run by bash, blocks of one page in one folder. ``sh no-run`` and ``console`` are only parsed: every option
  of a ``koda-audit`` or ``clip_benchmark`` in them exists.
- ``python``: executed, blocks of one page in one namespace.
- ``yaml``: a suite passes ``validate --static``, gates are read, the commands of a workflow are parsed.
- a second word with a dot is a file that the block is saved as, before what follows it runs.
- ``text`` right after a block that runs is what it prints: words are equal, numbers to 5 %; a line ``…`` stands for
  any lines.

``python tests/test_documentation.py`` writes the tables of ``docs/numbers.md`` anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from koda_audit import cli
from koda_audit.gates.gate import read_gates
from koda_audit.metrics import METRICS, Metric, described
from koda_audit.registry import alignments, measures, tasks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBERS = ROOT / "docs" / "numbers.md"
HOST = "import clip_benchmark.cli as host; from koda_audit.host.extension import extend; extend(host); host.main()"
COMMANDS = {"koda-audit": ["-m", "koda_audit.cli"], "clip_benchmark": ["-c", HOST], "python": []}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``output`` is the text that stands right behind it."""

    page: Path
    line: int
    language: str
    mark: str
    text: str
    output: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def tokens_of(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    before = ""
    for token in tokens_of(page):
        if token.type == "fence":
            assert token.map is not None
            language, mark, *_ = [*token.info.split(), "", ""]
            if language == "text" and before == "fence":
                found[-1] = replace(found[-1], output=token.content)
            else:
                found.append(Block(page, token.map[0] + 1, language, mark, token.content))
        before = token.type
    return found


def inline_of(page: Path) -> list[Token]:
    return [child for token in tokens_of(page) for child in token.children or ()]


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the commands of this checkout are found, with one store for all pages."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in COMMANDS.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    cache = tmp_path_factory.mktemp("cache")
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}


@pages
def test_every_block_does_what_the_page_says(
    page: Path, commands: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    wrong = []
    for block in blocks_of(page):
        file = tmp_path / (block.mark if "." in block.mark else f"block.{block.language}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        printed = ""
        if block.mark == "no-run":
            continue
        if block.language in ("sh", "bash"):
            line = ["bash", "-eu", "-o", "pipefail", str(file)]
            done = subprocess.run(line, env=commands, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{block.place}: {done.stdout}{done.stderr}"
            printed = done.stdout
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(compile(block.text, str(file), "exec"), namespace)
            printed = stream.getvalue()
        elif block.language == "yaml":
            for name in re.findall(r"\$\{(\w+)\}", block.text):
                monkeypatch.setenv(name, "set")
            check_yaml(block, file)
        if block.output is not None and block.language != "console" and not agrees(block.output, printed):
            wrong.append(f"{block.place} prints\n{printed}")
    assert not wrong, "\n".join(wrong)


def check_yaml(block: Block, file: Path) -> None:
    value = yaml.safe_load(block.text)
    if "jobs" in value:
        assert any("koda-audit" in words for words in lines_of(block)), block.place
    elif "suite" in value:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as wrong:
            code = cli.main(["validate", "--static", "--allow-code", str(file)])
        assert code == 0, f"{block.place}: {wrong.getvalue()}"
    else:
        assert read_gates(file), block.place


def agrees(shown: str, printed: str) -> bool:
    """Equal words, numbers within 5 %, any lines where ``…`` stands; blanks and rules of a table do not count."""
    parts = [[line.split() for line in lines] for lines in _parts(shown)]
    rest = [line.split() for line in printed.splitlines() if line.strip()]
    if len(parts) == 1:
        return len(parts[0]) == len(rest) and all(map(_line_agrees, parts[0], rest))
    start = 0
    for number, part in enumerate(parts):
        first = len(rest) - len(part) if number == len(parts) - 1 else start
        ends = range(max(first, start), (start if number == 0 else len(rest) - len(part)) + 1)
        at = next((i for i in ends if all(map(_line_agrees, part, rest[i : i + len(part)]))), None)
        if at is None:
            return False
        start = at + len(part)
    return True


def _parts(shown: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in filter(str.strip, shown.splitlines()):
        if line.strip() == "…":
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _line_agrees(shown: list[str], printed: list[str]) -> bool:
    a, b = (re.sub("-{2,}", "--", " ".join(words)) for words in (shown, printed))
    numbers = [[float(number) for number in NUMBER.findall(line)] for line in (a, b)]
    return NUMBER.sub("0", a) == NUMBER.sub("0", b) and numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=1e-9)


def test_output_is_compared_word_by_word() -> None:
    assert agrees("n  397\n…\nFAIL acc1 0.2443", "n 397\nmore\nand more\nFAIL acc1 0.245\n")
    assert agrees("a\n…", "a\nb\nc")
    assert not agrees("a", "a\nb")
    assert not agrees("a\n…\nc", "b\na\nc")
    assert not agrees("FAIL acc1 0.2443", "FAIL acc1 0.3")
    assert not agrees("FAIL acc1 0.2443", "PASS acc1 0.2443")
    assert not agrees("step 1a", "step 2a")


@pytest.fixture(scope="module")
def host() -> Any:
    import clip_benchmark.cli as host

    from koda_audit.host.extension import extend

    extend(host)
    return host


@pages
def test_every_command_is_understood(page: Path, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks_of(page):
        for words in lines_of(block):
            name, *rest = Path(words[0]).name, *words[1:]
            if name == "clip_benchmark" or (name == "koda-audit" and rest[:1] == ["eval"]):
                monkeypatch.setattr(sys, "argv", ["clip_benchmark", *rest])
                assert host.get_parser_args()[1].which == rest[0], block.place
            elif name == "koda-audit":
                assert cli._parser().parse_args(rest), block.place


def lines_of(block: Block) -> Iterator[list[str]]:
    """The words of each command, without redirections and variables."""
    text = re.sub(r"\d?>(&\d|>? *\S+)", "", block.text.replace("\\\n", " "))
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    elif block.language == "yaml" and "jobs:" in text:
        jobs = yaml.safe_load(text)["jobs"].values()
        text = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    elif block.language not in ("sh", "bash"):
        return
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("();<>|&"):
                words.append(word)
                continue
            while words and re.fullmatch(r"\w+=.*", words[0]):
                del words[0]
            if words:
                yield words
            words = []


def test_options_in_the_text_exist(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", "eval"])
    known = {option for parser in (host.get_parser_args()[0], cli._parser()) for option in _options(parser)}
    for page in PAGES:
        for token in inline_of(page):
            if token.type == "code_inline":
                for option in re.findall(r"(?<![\w-])--[a-z][\w-]*…?", token.content):
                    if option.endswith("…"):
                        assert any(name.startswith(option[:-1]) for name in known), f"{page.name}: {option}"
                    else:
                        assert option in known, f"{page.name}: {option}"


def _options(parser: Any) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, Mapping):
            for inner in action.choices.values():
                yield from _options(inner)


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for token in inline_of(page):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not target or "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in _anchors(file), f"{page.name}: {target}"


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    found = tokens_of(page)
    titles = [found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_listed() -> None:
    index = {Path(str(token.attrs["href"])).name for token in inline_of(ROOT / "docs" / "README.md") if token.attrs}
    assert {page.name for page in PAGES[1:]} - {"README.md"} <= index
    listed = {str(token.attrs.get("href", "")) for token in inline_of(ROOT / "README.md")}
    assert any(link.startswith("docs/") for link in listed)


def test_the_tables_of_numbers_are_those_of_the_package() -> None:
    text = NUMBERS.read_text("utf-8")
    assert text == with_tables(text), "run `python tests/test_documentation.py`"
    shown = re.findall(r"<!-- metrics: (\S+) -->", text)
    assert sorted(shown) == sorted([*GROUPS, "measures"])
    assert {key for group in GROUPS for key in _group(group)} == {
        key for key in METRICS if not key.startswith("koda_reverse_") and not key.endswith(CHANGES)
    }


def test_keys_named_in_the_text_of_numbers_exist() -> None:
    named = {token.content for token in inline_of(NUMBERS) if token.type == "code_inline"}
    ours = {name for name in named if re.fullmatch(r"(koda|gap|gaprob|sim|aligned)_[a-z\d_@.]*[a-z\d]", name)}
    others = {*tasks().names(), *alignments().names()}
    assert len(ours - others) > 10
    assert not [name for name in ours - others if described(name) is None]


# groups of keys by their prefix; "benchmark" are those without
GROUPS = ("koda_", "gap_", "gaprob_", "aligned_", "benchmark")
CHANGES = ("_before", "_change", "_change_low", "_change_high")
BETTER = {"up": "more", "down": "less", None: "–"}


def _group(group: str) -> dict[str, Metric]:
    prefixes = [prefix for prefix in GROUPS if prefix.endswith("_")]
    return {
        key: metric
        for key, metric in METRICS.items()
        if (key.startswith(group) or (group == "benchmark" and not key.startswith(tuple(prefixes))))
        and not key.startswith("koda_reverse_")
        and not key.endswith(CHANGES)
    }


def with_tables(text: str) -> str:
    """The page with its tables made anew."""

    def made(found: re.Match[str]) -> str:
        rows = _measure_rows() if found[1] == "measures" else _metric_rows(_group(found[1]).values())
        return "\n".join([f"<!-- metrics: {found[1]} -->", *rows, "", "<!-- end -->"])

    return re.sub(r"<!-- metrics: (\S+) -->.*?<!-- end -->", made, text, flags=re.DOTALL)


def _metric_rows(metrics: Iterable[Metric]) -> list[str]:
    rows = ["", "| key | what it is | range | better |", "| --- | --- | --- | --- |"]
    for metric in metrics:
        span = _range(metric.low, metric.high)
        rows.append(f"| `{metric.key}` | {_cell(metric.meaning)} | {span} | {BETTER[metric.better]} |")
    return rows


def _measure_rows() -> list[str]:
    rows = ["", "| measure | what it is | range | unchanged by | source |", "| --- | --- | --- | --- | --- |"]
    registered = measures()
    for name in registered.names():
        if registered.packages(name) == ["koda-audit"]:
            one = registered.load(name)
            same = ", ".join(one.invariances)
            rows.append(
                f"| `{name}` | {_cell(one.meaning)} | {_range(one.low, one.high)} | {same} | {_cell(one.source)} |"
            )
    return rows


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "any" if low is high else f"{low:g} or more" if high is None else f"at most {high:g}"
    return f"{low:g} to {high:g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    NUMBERS.write_text(with_tables(NUMBERS.read_text("utf-8")), "utf-8")
