"""Packaging: installed files, their names, and the import time."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import gradkeeper

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = (ROOT / "pyproject.toml").is_file()
HEAVY = ("tensorflow", "keras", "matplotlib", "pandas", "tensorflow_datasets")

in_checkout = pytest.mark.skipif(not CHECKOUT, reason="needs the project's own files")


def run(python: str, code: str, cwd: Path) -> str:
    """Return the standard output of `code`, run outside of the checkout."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", code], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import gradkeeper",
        "import gradkeeper.callbacks, gradkeeper.training",
        "from gradkeeper.training.cli import main",
    ],
)
def test_importing_is_light(code, tmp_path):
    probe = f"{code}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(sys.executable, probe, tmp_path).strip() == "[]"


def test_help_does_not_load_tensorflow(tmp_path):
    code = (
        "import sys; from gradkeeper.training.cli import main\n"
        "sys.argv = ['gradkeeper', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"print(code, [m for m in {HEAVY} if m in sys.modules])"
    )
    assert run(sys.executable, code, tmp_path).splitlines()[-1] == "0 []"


@pytest.mark.parametrize("package", ["callbacks", "training", "zoo"])
def test_every_public_name_resolves(package):
    module = getattr(gradkeeper, package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


@in_checkout
def test_every_folder_with_code_is_packaged():
    tomllib = pytest.importorskip("tomllib", reason="the standard library's since Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"gradkeeper"} | {
        ".".join(("gradkeeper", *init.parent.relative_to(ROOT).parts))
        for top in ("callbacks", "training", "zoo")
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert set(settings["packages"]) == found


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[str, Path]:
    """Create an environment with the wheel installed, and an empty folder outside of the checkout.

    A path file makes the dependencies of the running environment available. Path files of that
    environment are not read, so an editable gradkeeper is not visible.
    """
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", "__pycache__", ".venv")
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True
    )
    venv.create(folder / "env", with_pip=False)
    python = str(folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
    (wheel,) = folder.glob("gradkeeper-*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    site = run(python, "import sysconfig; print(sysconfig.get_paths()['purelib'])", folder)
    paths = sysconfig.get_paths()
    lines = dict.fromkeys([paths["purelib"], paths["platlib"]])
    (Path(site.strip()) / "dependencies.pth").write_text("\n".join(lines) + "\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return python, elsewhere


@in_checkout
@pytest.mark.slow
def test_the_wheel_brings_gradkeeper_and_nothing_else_at_top_level(installed):
    python, elsewhere = installed
    code = (
        "import importlib.util, json, gradkeeper\n"
        "from gradkeeper import callbacks, training, zoo\n"
        "found = {n: importlib.util.find_spec(n) is not None\n"
        "         for n in ('callbacks', 'training', 'zoo', 'tests', 'benchmarks', 'results')}\n"
        "print(json.dumps([gradkeeper.__file__, gradkeeper.__version__, found]))"
    )
    file, version, found = json.loads(run(python, code, elsewhere))
    assert not Path(file).is_relative_to(ROOT)
    assert version == gradkeeper.__version__
    assert not any(found.values())


@in_checkout
@pytest.mark.slow
def test_the_wheel_has_no_tables_of_results_and_bench_says_so(installed):
    python, elsewhere = installed
    code = "import pathlib, gradkeeper; print(pathlib.Path(gradkeeper.__file__).parent)"
    package = Path(run(python, code, elsewhere).strip())
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    for path in (ROOT / "benchmarks" / "results").glob("*.py"):
        assert path.read_text(encoding="utf-8") not in texts, path
    code = "import sys; from gradkeeper.training.cli import main; sys.argv[1:] = ['bench']; main()"
    done = subprocess.run(
        [python, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Clone the repository" in done.stderr
    assert "Traceback" not in done.stderr


@in_checkout
@pytest.mark.slow
def test_a_users_own_callbacks_module_does_not_clash(installed):
    python, elsewhere = installed
    (elsewhere / "callbacks.py").write_text("WHOSE = 'the user'\n")
    (elsewhere / "script.py").write_text(
        "import callbacks, gradkeeper.callbacks\n"
        "from gradkeeper.callbacks import GradientMonitor\n"
        "print(callbacks.WHOSE, GradientMonitor.__module__)\n"
    )
    done = subprocess.run(
        [python, "script.py"], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["the", "user", "gradkeeper.callbacks.gradient_monitor"]


@in_checkout
@pytest.mark.slow
def test_the_installed_wheel_attaches_to_a_model(installed):
    python, elsewhere = installed
    code = (
        "import keras, numpy as np\n"
        "from gradkeeper import zoo\n"
        "from gradkeeper.callbacks import GradientMonitor\n"
        "model = zoo.create_model('ln_lstm', input_shape=(5, 2), output_units=1, units=4)\n"
        "model.compile('sgd', 'mse', run_eagerly=True)\n"
        "monitor = GradientMonitor()\n"
        "model.fit(np.ones((8, 5, 2)), np.ones((8, 1)), callbacks=[monitor], verbose=0)\n"
        "monitor.report('report.html')\n"
        "print(len(monitor.history))\n"
    )
    assert run(python, code, elsewhere).strip().endswith("1")
    assert (elsewhere / "report.html").stat().st_size > 10_000
