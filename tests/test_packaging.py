"""What a user's pip does: sdist, wheel, install, uninstall, and the editable install, in environments of their own.

Each environment sees the packages of the running one (torch is not installed twice) through a .pth file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import koda_audit

ROOT = Path(__file__).parents[1]
HELP = ("eval", "--help")
MAIN = "from clip_benchmark.cli import main; main()"
SKIP = shutil.ignore_patterns(".*", "build", "dist", "reports", "*.egg-info", "__pycache__")


class Environment:
    """A virtual environment that shares the running one's packages, but not its .pth files."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.bin = folder / "bin"
        self.packages = next(folder.glob("lib/python*/site-packages"))
        shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (self.packages / "shared.pth").write_text("\n".join(shared) + "\n")

    def run(self, program: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KODA_"))}
        full = {**clean, "COLUMNS": "200", **env}
        command = [str(self.bin / program), *words]
        return subprocess.run(command, env=full, cwd=self.bin, capture_output=True, text=True, timeout=300)

    def pip(self, *words: str) -> None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(self.bin / "python"),
            "--disable-pip-version-check",
            *words,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.bin, timeout=300)
        assert done.returncode == 0, done.stderr

    def install(self, *words: str) -> None:
        self.pip("install", "--no-deps", "--no-build-isolation", "--no-index", *words)

    def plugin(self, distribution: str, entry: str) -> None:
        info = self.packages / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[clip_benchmark.tasks]\n{entry}\n")

    def files(self) -> set[str]:
        """All that lies in the environment."""
        home = self.bin.parent
        return {str(path.relative_to(home)) for path in home.rglob("*")}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the checkout: building leaves folders behind."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "koda_audit", ignore=SKIP))


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """The wheel that comes out of the sdist."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Environment:
    """Our wheel and a third party's package."""
    environment = Environment(tmp_path_factory.mktemp("wheel"))
    sample = Path(shutil.copytree(ROOT / "tests" / "plugin_sample", tmp_path_factory.mktemp("plugin") / "sample"))
    environment.install(str(wheel), str(sample))
    script = environment.bin / "clip_benchmark"  # as clip_benchmark's own entry point writes it
    script.write_text(
        f"#!{environment.bin / 'python'}\nimport sys\nfrom clip_benchmark.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return environment


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "koda_audit",
        "koda_audit.pth",
        "koda_audit_autoload.py",
        f"koda_audit-{koda_audit.__version__}.dist-info",
    }
    assert "koda_audit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assets = ROOT / "koda_audit" / "demo" / "assets"
    expected = {str(file.relative_to(ROOT)) for file in assets.rglob("*") if file.is_file()}
    assert expected <= set(names)


@pytest.mark.parametrize(
    "start",
    [("clip_benchmark",), ("python", "-m", "clip_benchmark.cli"), ("python", "-c", MAIN)],
    ids=["script", "m", "c"],
)
def test_the_command_has_our_tasks_however_it_is_started(installed, start):
    done = installed.run(*start, *HELP)
    assert done.returncode == 0, done.stderr
    for expected in (
        "koda_discrepancy (koda-audit)",
        "sample_count (sample-count)",
        "--sample_count_min",
        "--koda_reference",
    ):
        assert expected in done.stdout, done.stderr


def test_the_switch_hides_them(installed):
    done = installed.run("clip_benchmark", *HELP, KODA_AUDIT_AUTOLOAD="0")
    assert done.returncode == 0
    assert "koda" not in done.stdout


def test_koda_audit_eval_needs_no_hook(installed):
    done = installed.run("koda-audit", *HELP, KODA_AUDIT_AUTOLOAD="0")
    assert done.returncode == 0, done.stderr
    assert "usage: koda-audit eval" in done.stdout
    assert "koda_discrepancy" in done.stdout


def test_an_interpreter_start_loads_the_hook_alone(installed):
    code = (
        "import sys; print([n for n in sys.modules if n.startswith('koda')], [n for n in sys.modules if 'torch' in n])"
    )
    assert installed.run("python", "-c", code).stdout == "['koda_audit_autoload'] []\n"


def test_doctor_is_content_and_then_names_what_is_broken(installed):
    well = installed.run("koda-audit", "doctor")
    assert well.returncode == 0, well.stdout + well.stderr
    for expected in ("koda_audit.pth", "koda_discrepancy (koda-audit)", "sample_count (sample-count)", "all is well"):
        assert expected in well.stdout
    installed.plugin("second-count", "sample_count = second:task")
    installed.plugin("broken-one", "broken = no_such_module:task")
    ill = installed.run("koda-audit", "doctor")
    assert ill.returncode == 2
    assert "registered by sample-count (sample_count:task) and second-count (second:task)" in ill.stdout
    assert "task 'broken' of broken-one" in ill.stdout
    assert "koda_discrepancy (koda-audit)" in ill.stdout


def test_wheel_and_editable_install_leave_nothing_behind(wheel, source, tmp_path):
    environment = Environment(tmp_path)
    before = environment.files()
    for words in ([str(wheel)], ["-e", str(source)], ["-e", str(source), "--config-settings", "editable_mode=strict"]):
        environment.install(*words)
        hook = environment.run("python", "-c", "import sys; print(type(sys.meta_path[0]).__module__)")
        assert hook.stdout == "koda_audit_autoload\n", words
        assert environment.run("koda-audit", "--version").returncode == 0
        assert environment.files() > before
        environment.pip("uninstall", "--yes", "koda-audit")
        assert environment.files() == before
