"""Entry points from folders made here: what loads, what collides, what breaks, and that one does not stop the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from koda_audit.errors import InputError, PluginError
from koda_audit.registry import Registry

GROUP = "koda_audit_test_things"
GOOD = "class Thing:\n    def __init__(self, name): self.name = name\n    def run(self): return 1\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes a distribution importable: its name, its module's source, its entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(distribution: str, source: str, entries: list[str]) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(entries) + "\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return make


def things() -> Registry:
    return Registry(GROUP, "thing", ("name", "run"))


def test_names_import_nothing_and_load_imports_once(package):
    package("reg-good", GOOD + "one = Thing('one')\ntwo = Thing('two')\n", ["two = reg_good:two", "one = reg_good:one"])
    registry = things()
    assert registry.names() == ["one", "two"]
    assert "reg_good" not in sys.modules
    assert registry.load("one") is registry.load("one")
    assert registry.load("one").run() == 1
    assert registry.packages("one") == ["reg-good"]
    assert registry.problems() == {}


def test_unknown_name_lists_near_matches(package):
    package("reg-near", GOOD + "one = Thing('count')\n", ["count = reg_near:one"])
    with pytest.raises(InputError, match="unknown thing 'cuont': did you mean 'count'"):
        things().load("cuont")


def test_nothing_registered_says_so():
    with pytest.raises(InputError, match="none is registered"):
        things().load("one")


def test_two_packages_with_one_name_are_both_named(package):
    package("reg-first", GOOD + "one = Thing('one')\n", ["one = reg_first:one"])
    package(
        "reg-second",
        GOOD + "one = Thing('one')\ntwo = Thing('two')\n",
        ["one = reg_second:one", "two = reg_second:two"],
    )
    registry = things()
    with pytest.raises(PluginError, match="reg-first") as caught:
        registry.load("one")
    assert "reg-second" in str(caught.value)
    assert registry.packages("one") == ["reg-first", "reg-second"]
    assert [name for name, _ in registry.usable()] == ["two"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import no_such_module_here\n", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("raise RuntimeError('boom')\n", "RuntimeError: boom"),
        ("other = 1\n", "AttributeError"),
        ("one = object()\n", "has no name, run"),
        (GOOD + "one = Thing('other')\n", "calls itself 'other'"),
    ],
)
def test_broken_plugin_is_reported_and_the_rest_goes_on(package, source, expected):
    package("reg-broken", source, ["one = reg_broken:one"])
    package("reg-fine", GOOD + "two = Thing('two')\n", ["two = reg_fine:two"])
    registry = things()
    assert [name for name, _ in registry.usable()] == ["two"]
    problems = registry.problems()
    assert list(problems) == ["one"]
    assert expected in problems["one"]
    assert "reg-broken" in problems["one"]


def test_the_same_package_seen_twice_is_no_collision(package, tmp_path, monkeypatch):
    package("reg-twice", GOOD + "one = Thing('one')\n", ["one = reg_twice:one"])
    again = tmp_path / "again" / "reg_twice-1.0.dist-info"
    again.mkdir(parents=True)
    for file in ("METADATA", "entry_points.txt"):
        (again / file).write_text((tmp_path / "reg_twice-1.0.dist-info" / file).read_text())
    monkeypatch.syspath_prepend(str(again.parent))
    assert things().load("one").name == "one"


def test_listing_the_tasks_does_not_import_torch():
    code = "import sys; from koda_audit.registry import tasks; tasks().names(); assert 'torch' not in sys.modules"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, check=True, timeout=60)
