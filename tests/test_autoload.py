"""The hook, in real interpreters, with a stand-in for clip_benchmark that has its functions and imports in no time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOST = """
import argparse
import sys
from clip_benchmark.models import MODEL_TYPES

def get_parser_args():
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    runner = subparsers.add_parser("eval")
    runner.add_argument("--task", type=str, default="auto", choices=["linear_probe", "auto"])
    runner.add_argument("--model_type", default="open_clip", choices=MODEL_TYPES)
    runner.add_argument("--model", nargs="+", default=["m"])
    runner.set_defaults(which="eval")
    args = parser.parse_args()
    return parser, args

def main():
    parser, base = get_parser_args()
    if hasattr(base, "which"):
        main_eval(base)

def main_eval(base):
    run(base)

def run(args):
    print("host ran", args.task, __name__)

if __name__ == "__main__":
    sys.exit(main())
"""
MODELS = "TYPE2FUNC = {'open_clip': None}\nMODEL_TYPES = list(TYPE2FUNC)\n"
PLUGIN = """
from koda_audit.settings import Settings
from koda_audit.tasks.protocol import Task

class ToySettings(Settings):
    size: int = 3
class Toy(Task):
    name, help, prefix, Settings = "toy", "a toy", "toy", ToySettings
toy = Toy()

class GreedySettings(Settings):
    size: int = 3
    type: str = ""
class Greedy(Task):
    name, help, prefix, Settings = "greedy", "", "model", GreedySettings
greedy = Greedy()

class DemandingSettings(Settings):
    size: int
class Demanding(Task):
    name, help, prefix, Settings = "demanding", "", "demanding", DemandingSettings
demanding = Demanding()

class Shadow(Task):
    name, help, prefix = "linear_probe", "", "shadow"
shadow = Shadow()
"""
ENTRIES = "toy = toys:toy\ngreedy = toys:greedy\ndemanding = toys:demanding\nlinear_probe = toys:shadow\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Stands for site-packages: the stand-in host, a plugin, and a sitecustomize in the place of koda_audit.pth."""
    (tmp_path / "clip_benchmark").mkdir()
    (tmp_path / "clip_benchmark" / "__init__.py").write_text("")
    (tmp_path / "clip_benchmark" / "cli.py").write_text(HOST)
    (tmp_path / "clip_benchmark" / "models.py").write_text(MODELS)
    (tmp_path / "sitecustomize.py").write_text((ROOT / "koda_audit.pth").read_text())
    (tmp_path / "toys.py").write_text(PLUGIN)
    info = tmp_path / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[clip_benchmark.tasks]\n" + ENTRIES)
    return tmp_path


def python(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(ROOT)])
    full = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **env}
    command = [sys.executable, "-W", "error", *words]
    return subprocess.run(command, env=full, cwd=folder, capture_output=True, text=True, timeout=120)


MAIN = "from clip_benchmark.cli import main; main()"
STARTS = [("-m", "clip_benchmark.cli"), ("-c", MAIN)]


@pytest.mark.parametrize("start", STARTS)
def test_however_the_host_is_started_it_knows_the_task(folder, start):
    done = python(folder, *start, "eval", "--help")
    assert done.returncode == 0, done.stderr
    assert "--toy_size" in done.stdout
    assert "toy (toys)" in done.stdout
    assert "--koda_reference" in done.stdout


@pytest.mark.parametrize("start", STARTS)
def test_the_switch(folder, start):
    done = python(folder, *start, "eval", "--help", KODA_AUDIT_AUTOLOAD="0")
    assert done.returncode == 0
    assert "toy" not in done.stdout
    assert "koda" not in done.stdout


def test_the_hosts_own_task_runs_as_ever_and_one_of_its_names_stays_its_own(folder):
    done = python(folder, "-m", "clip_benchmark.cli", "eval", "--task", "linear_probe")
    assert done.stdout == "host ran linear_probe clip_benchmark.cli\n"
    assert done.returncode == 0


def test_bad_plugins_are_named_and_the_good_one_works(folder):
    code = (
        "import sys; import clip_benchmark.cli as cli; sys.argv = ['x', 'eval', '--task', 'toy']\n"
        "args = cli.get_parser_args()[1]; "
        "print(args.task, args.toy_size, args.model, 'toy' in args.koda_tasks, hasattr(args, 'model_size'))"
    )
    done = python(folder, "-c", code)
    assert done.stdout == "toy 3 ['m'] True False\n", done.stderr
    assert "'greedy' of toys is left out" in done.stderr
    assert "its setting size is required" in done.stderr
    assert "clip_benchmark has a task of that name" in done.stderr


def test_unknown_and_broken_names_leave_with_2(folder):
    near = python(folder, "-c", MAIN, "eval", "--task", "tyo")
    assert near.returncode == 2
    assert "unknown task 'tyo': did you mean 'toy'" in near.stderr
    broken = python(folder, "-c", MAIN, "eval", "--task", "greedy")
    assert broken.returncode == 2
    assert "argument --task: task 'greedy' of toys is left out" in broken.stderr


def test_code_of_the_user_needs_permission_for_any_task(folder):
    refused = python(folder, "-m", "clip_benchmark.cli", "eval", "--model_type", "koda_python")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(
        "koda_audit: error: model 'of type koda_python' runs code of yours"
    )
    assert "Traceback" not in refused.stderr
    debug = python(folder, "-m", "clip_benchmark.cli", "eval", "--model_type", "koda_python", KODA_AUDIT_DEBUG="1")
    assert "Traceback" in debug.stderr
    allowed = python(folder, "-m", "clip_benchmark.cli", "eval", "--model_type", "koda_python", "--koda_allow_code")
    assert allowed.stdout == "host ran auto clip_benchmark.cli\n"


def test_a_failing_extension_leaves_the_host_at_work(folder):
    (folder / "clip_benchmark" / "models.py").write_text("MODEL_TYPES = ['open_clip']\n")
    done = python(folder, "-m", "clip_benchmark.cli", "eval", "--task", "linear_probe")
    assert done.stdout == "host ran linear_probe clip_benchmark.cli\n"
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1
    assert "TYPE2FUNC" in done.stderr
    assert "koda-audit doctor" in done.stderr


def test_an_unknown_host_is_not_half_extended(folder):
    (folder / "clip_benchmark" / "cli.py").write_text(HOST.replace("main_eval", "evaluate"))
    done = python(folder, "-m", "clip_benchmark.cli", "eval")
    assert done.stdout == "host ran auto clip_benchmark.cli\n"
    assert "has no main_eval" in done.stderr


def test_a_host_that_fails_fails_as_ever(folder):
    (folder / "clip_benchmark" / "cli.py").write_text("raise RuntimeError('its own fault')\n")
    done = python(folder, "-c", "import clip_benchmark.cli")
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: its own fault\n")
    assert "koda_audit:" not in done.stderr


def test_interpreters_that_do_not_want_the_host_load_nothing(folder):
    code = "import sys; print({'koda_audit', 'clip_benchmark', 'importlib.metadata', 'torch'} & set(sys.modules))"
    done = python(folder, "-c", code)
    assert done.stdout == "set()\n"
    assert done.stderr == ""


def test_the_module_looks_untouched_from_outside(folder):
    code = """
import copy, importlib, inspect, pickle
import clip_benchmark.cli as cli
assert pickle.loads(pickle.dumps(cli.run)) is cli.run
assert "def get_parser_args" in inspect.getsource(cli)
assert cli.__spec__.loader.get_filename("clip_benchmark.cli") == cli.__file__
assert not cli.__spec__.loader.is_package("clip_benchmark.cli")
copy.deepcopy(cli.__spec__)
once = cli.run
assert importlib.reload(cli).run is not once and cli.run.koda_audit_host is not once.koda_audit_host
from koda_audit.host.extension import extend
twice = cli.run
extend(cli)
assert cli.run is twice and cli.MODEL_TYPES == ["open_clip", "koda_python", "koda_aligned"]
"""
    done = python(folder, "-c", code)
    assert done.returncode == 0, done.stderr


def test_spawned_workers_find_the_hosts_functions(folder):
    cli = HOST.replace(
        'print("host ran", args.task, __name__)',
        "import multiprocessing\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(work, (args.task,)), pool.apply(_as_list, ('x',)))",
    )
    cli = cli.replace(
        "def main():",
        "def _as_list(x):\n    return [x]\n\ndef work(task):\n    return task, __name__\n\ndef main():",
        1,
    )
    (folder / "clip_benchmark" / "cli.py").write_text(cli)
    done = python(folder, "-m", "clip_benchmark.cli", "eval")
    assert done.stdout == "('auto', 'clip_benchmark.cli') ['x']\n", done.stderr


def test_a_missing_module_is_silent_at_start(folder):
    (folder / "sitecustomize.py").write_text((ROOT / "koda_audit.pth").read_text().replace("_autoload", "_no_such"))
    done = python(folder, "-c", "print(1)")
    assert (done.stdout, done.stderr) == ("1\n", "")
