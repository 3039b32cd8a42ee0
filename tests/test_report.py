from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from koda_audit._files import slug, write_csv
from koda_audit.document import Picture, SampleGrid, Section, escape
from koda_audit.errors import InputError, StoreError
from koda_audit.report import write
from koda_audit.report.markdown import cell, markdown_table, terminal_table
from koda_audit.report.pictures import draw_grid, thumbnail
from koda_audit.report.write import write_report
from koda_audit.results import COLUMNS, Result

EVIL = [
    "<script>alert(1)</script>",
    "a | b",
    "[x](javascript:1)",
    "=1+1",
    "\x1b[31mred",
    "*bold* `code`",
    "a\nb",
    "$x$",
]


def images(wanted: list[str]) -> dict[str, bytes]:
    return {sample: thumbnail(Image.new("RGB", (20 + 10 * i, 30), "red")) for i, sample in enumerate(wanted)}


def report(folder: Path, value: float = 1.0) -> Path:
    grid = SampleGrid("direction-1/../x", EVIL[0], tuple("abcdefg"), (*EVIL[:6], "a " * 99))
    table = pd.DataFrame({"caption": EVIL, "n": range(len(EVIL))})
    result = Result("m", "p", "d", "t", "koda_x", value)
    return write_report(
        folder, EVIL[0], [Section("S", "text", table, (grid,))], {"subsets/a.csv": table}, [result], images
    )


def test_a_report_is_complete_and_inert(tmp_path: Path) -> None:
    path = report(tmp_path / "r", value=math.nan)
    text = path.read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    assert re.search(r"(?<!\\)\]\(javascript", text) is None
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "figures",
        "files.json",
        "report.html",
        "report.md",
        "results.csv",
        "results.json",
        "subsets",
    ]
    picture = path.parent / "figures" / "direction-1_.._x.png"
    assert "figures/direction-1_.._x.png" in text
    with Image.open(picture) as sheet:
        assert sheet.width == 6 * 162 + 12
    rows = json.loads((path.parent / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["value"] is None
    with (path.parent / "subsets" / "a.csv").open(newline="") as stream:
        captions = [row["caption"] for row in csv.DictReader(stream)]
    assert captions[3] == "'=1+1"
    assert captions[0] == EVIL[0]


def picture(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(stream, format="PNG")
    return stream.getvalue()


def test_pictures_are_written_as_they_are(tmp_path: Path) -> None:
    pictures = Picture("map/$x", EVIL[0] + EVIL[2] + EVIL[5], picture("red")), Picture("b", "a\nb", picture("blue"))
    section = Section("S", "text", None, (SampleGrid("g", "grid", ("a",), ("",)),), pictures)
    path = write_report(tmp_path / "r", "t", [section, Section("T")], {}, [], images)
    lines = [line for line in path.read_text().splitlines() if line.startswith("![")]
    assert lines[1:] == ["![a b](figures/b.png)", "![grid](figures/g.png)"]
    assert lines[0].endswith("](figures/map_x.png)")
    assert "<script" not in lines[0]
    assert (path.parent / "figures" / "map_x.png").read_bytes() == pictures[0].png
    assert {"figures/b.png", "figures/g.png"} < set(json.loads((path.parent / "files.json").read_text())["files"])
    write_report(tmp_path / "r", "t", [Section("S")], {}, [], images)
    assert not (tmp_path / "r" / "figures").exists()


def test_two_figures_of_one_name_are_refused(tmp_path: Path) -> None:
    pictures = Picture("a b", "", picture("red")), Picture("a_b", "", picture("blue"))
    with pytest.raises(InputError, match=r"two figures .* figures/a_b\.png"):
        write_report(tmp_path / "r", "t", [Section("S", pictures=pictures)], {}, [], images)
    assert not (tmp_path / "r").exists()


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    report(tmp_path / "r")
    report(tmp_path / "r")
    (tmp_path / "r" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds 'thesis\.tex', which no report wrote"):
        report(tmp_path / "r")
    (tmp_path / "r" / "thesis.tex").unlink()
    (tmp_path / "r" / "figures" / "mine.png").write_text("")
    with pytest.raises(InputError, match=r"holds 'figures/mine\.png'"):
        report(tmp_path / "r")
    (tmp_path / "r" / "figures" / "mine.png").unlink()
    (tmp_path / "r" / "notes").mkdir()
    with pytest.raises(InputError, match=r"holds 'notes'"):
        report(tmp_path / "r")
    (tmp_path / "r" / "notes").rmdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "r" / "linked").symlink_to(tmp_path / "figures")
    with pytest.raises(InputError, match=r"holds 'linked'"):
        report(tmp_path / "r")
    (tmp_path / "r" / "linked").unlink()
    (tmp_path / "r" / "figures").rename(tmp_path / "figures" / "moved")
    (tmp_path / "r" / "figures").symlink_to(tmp_path / "figures" / "moved")
    with pytest.raises(InputError, match=r"holds 'figures'"):
        report(tmp_path / "r")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "report.md").write_text("my own")
    with pytest.raises(InputError, match=r"holds 'report\.md'"):
        report(tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    assert report(tmp_path / "link") == tmp_path / "empty" / "report.md"
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        report(tmp_path / "file")


def test_folders_that_no_report_can_replace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a mount point, which no report can replace"):
        report(Path("/proc"))
    with pytest.raises(InputError, match="is too long for a folder"):
        report(tmp_path / ("r" * 250))
    report(tmp_path / "r")
    (tmp_path / "r" / "files.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"files\.json is damaged: remove .*r, or choose another"):
        report(tmp_path / "r")


def test_what_a_killed_write_leaves_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after either of the two renames."""
    report(tmp_path / "r")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    report(tmp_path / "r", 2.0)
    monkeypatch.undo()
    left = [path for path in tmp_path.iterdir() if path.name != "r"]
    assert left
    for path in left:
        os.utime(path, (0, 0))
    report(tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_two_that_write_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process puts its own there while this one has moved the old one away."""
    report(tmp_path / "r")
    rename = Path.rename

    def slow(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "r":
            (tmp_path / "r").mkdir()
            (tmp_path / "r" / "theirs").write_text("")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", slow)
    with pytest.raises(StoreError, match="another process wrote there meanwhile; run again"):
        report(tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r" / "theirs").exists()


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = report(tmp_path / "r").read_text()

    def full(grid: SampleGrid, thumbnails: dict[str, bytes]) -> Image.Image:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "draw_grid", full)
    with pytest.raises(StoreError, match="the disk is full; free some space"):
        report(tmp_path / "r", 2.0)
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r" / "report.md").read_text() == before


def test_names_stay_readable() -> None:
    assert escape("clip_final of wds/my_data") == "clip_final of wds/my_data"
    assert escape("_a_ __b__ c_") == r"\_a\_ \_\_b\_\_ c\_"


@given(st.text())
def test_escaped_text_is_one_inert_line(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped
    assert "<" not in escaped
    assert ">" not in escaped


def test_addresses_in_text_are_no_links() -> None:
    assert escape("see https://a.b/c, www.a.b, me@a.b") == r"see https\://a.b/c, www\.a.b, me\@a.b"
    assert escape("acc: 1.0, a.b, recall@10") == "acc: 1.0, a.b, recall@10"


def test_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1]})
    with pytest.raises(
        InputError, match=r"two tables of the report would be written to tables/a_b\.csv: 'tables/a b\.csv'"
    ):
        write_report(tmp_path / "r", "t", [], {"tables/a?b.csv": table, "tables/a b.csv": table}, [], lambda ids: {})
    assert not list(tmp_path.iterdir())


def test_tables_in_both_forms() -> None:
    table = pd.DataFrame({"name": ["a|b"], "x": [0.123456], "n": [3], "none": [None], "nan": [np.nan]})
    assert markdown_table(table).splitlines()[2] == r"| a\|b   | 0.1235 |   3 | –      |     – |"
    assert terminal_table(table).splitlines()[2].split() == ["a|b", "0.1235", "3", "–", "–"]
    assert [cell(v) for v in (1e-9, 1234567.0, 2.0, True, "x", np.float32(0.5))] == [
        *("1e-09", "1.235e+06", "2", "True", "x", "0.5")
    ]


def test_grids_of_any_size() -> None:
    for n in (1, 6, 7):
        ids = tuple(str(i) for i in range(n))
        sheet = draw_grid(SampleGrid("g", "títle 标题 " * 40, ids, ("x" * 200,) * n), images(list(ids)))
        assert sheet.width >= 480
    lone = draw_grid(SampleGrid("g", "", ("a",), ("",)), {"a": thumbnail(Image.new("RGB", (1, 4000)))})
    assert lone.width == 480


def test_names_of_files() -> None:
    assert [slug(name) for name in ("local-dir:/a/ü b", "../x", "", "标题", "a" * 500)] == [
        *("local-dir_a_ü_b", "x", "unnamed", "标题", "a" * 120)
    ]


def test_formulas_only_in_text_columns(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", pd.DataFrame({"x": [-1.5], "t": ["-1.5"], "u": ["@a"]}))
    assert (tmp_path / "a.csv").read_text() == "x,t,u\n-1.5,'-1.5,'@a\n"


@pytest.mark.parametrize("text", ["=1", " =1", "\t=1", "\r1", "＝1", "+1", "-1", "@a"])
def test_formulas_are_text_and_rows_stay_rows(text: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", pd.DataFrame({"id": [text, "a\rb", 'c\nd"'], "x": [1, 2, 3]}))
    with (tmp_path / "a.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [["id", "x"], [f"'{text}", "1"], ["a\rb", "2"], ['c\nd"', "3"]]
