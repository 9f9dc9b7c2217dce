"""README and documentation site: runnable code, existing commands, complete tables and plots."""

import csv
import functools
import importlib.util
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf
import typer
from typer.testing import CliRunner

import gradkeeper
from gradkeeper import training, zoo
from gradkeeper.callbacks.rules import RULES
from gradkeeper.training.cli import app
from gradkeeper.training.cli.compare import models_of

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
    if path.name != "ten-tasks.md"  # test_ten_tasks.py runs its blocks and its commands
}
# `python` blocks are run. Commands in `sh` blocks are checked. `bash` blocks are scripts for a
# cluster, of which the gradkeeper commands are checked. Blocks in other languages are not run.
LANGUAGES = {"python", "sh", "bash", "text", "yaml", "toml", "json", "html", "diff"}
SMALL = [
    "--length",
    "6",
    "--units",
    "4",
    "--batch-size",
    "4",
    "--epochs",
    "1",
    "--steps-per-epoch",
    "2",
    "--num-layers",
    "1",
]


@dataclass(frozen=True)
class Block:
    """Fenced block: its language, its text and the line of the page at which it begins."""

    language: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    text = PAGES[page].read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```([^\n]*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(each[2], textwrap.dedent(each[3]), text[: each.start(3)].count("\n"))
        for each in found
    ]


def commands_of(page: str) -> list[list[str]]:
    """Return the words of all commands in `sh`, and of gradkeeper commands in `bash`."""
    commands = []
    for block in blocks_of(page):
        text = block.text.replace("\\\n", " ")
        if block.language == "sh":
            commands += [part for line in text.splitlines() for part in line.split("&&")]
        elif block.language == "bash":
            commands += re.findall(r"\bgradkeeper [a-z]+ [^&|;<>$\n]*$", text, re.MULTILINE)
    words = [shlex.split(command, comments=True) for command in commands]
    return [command for command in words if command]


def project() -> dict:
    """Return the names that a page assumes to exist: a model, data and a train step."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 2)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 6, 2)).astype("float32")
    y = random.normal(size=(64, 1)).astype("float32")
    optimizer = model.optimizer

    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(model(x) - y))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    x_batch, y_batch = x[:8], y[:8]
    return {name: value for name, value in locals().items() if name not in ("random", "layers")}


def failing_project() -> dict:
    """Return the names of `project`, with an example that is NaN."""
    supposed = project()
    supposed["x"][40] = np.nan
    return supposed


PROJECTS = {
    "README.md": project,
    "docs/attach.md": project,
    "docs/backends.md": project,
    "docs/files.md": project,
    "docs/gradients-through-time.md": project,
    "docs/how-a-step-is-replayed.md": failing_project,
    "docs/how-the-guard-works.md": failing_project,
    "docs/how-the-monitor-works.md": project,
    "docs/live-view.md": project,
    "docs/measurements.md": project,
    "docs/nan-post-mortem.md": failing_project,
    "docs/scale-out.md": project,
    "docs/trackers.md": project,
}


@pytest.fixture
def small_comparisons(monkeypatch, tmp_path):
    """Reduce the comparisons of a page to a few seconds of training."""
    small = {"epochs": 1, "steps_per_epoch": 2, "units": 4, "batch_size": 4, "data_dir": tmp_path}
    few = {label: training.REMEDIES[label] for label in ("leaky ReLU clipped",)}
    monkeypatch.setattr(training, "REMEDIES", few, raising=False)
    compare = functools.partial(training.compare, **small)
    monkeypatch.setattr(training, "compare", compare, raising=False)


def hook(name: str, folder: str = "_hooks") -> ModuleType:
    """Load a hook of the site as MkDocs does, or a script that draws the site's pictures."""
    spec = importlib.util.spec_from_file_location(name, DOCS / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


@pytest.mark.slow
@pytest.mark.usefixtures("small_comparisons", "undrawn")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "python" for b in blocks_of(page))]
)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = PROJECTS.get(page, dict)()
    for block in blocks_of(page):
        if block.language == "python":
            # The page's name and line numbers appear in a traceback.
            code = compile("\n" * block.line + block.text, PAGES[page], "exec")
            exec(code, space)  # noqa: S102


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_commands_exist(page):
    for command in commands_of(page):
        program, *arguments = command
        if program == "gradkeeper":
            check_gradkeeper(arguments)
        elif program in ("python", "bash") and not arguments[0].startswith("-"):
            check_script(*arguments)
        else:
            assert command[:3] in (
                ["python", "-m", "pip"],
                ["python", "-m", "pytest"],
                ["mkdocs", "build"],
                ["pre-commit", "install"],
            )


def check_gradkeeper(arguments: list[str]) -> None:
    """Check that the command is valid and that its models and tasks exist."""
    commands = typer.main.get_command(app).commands
    name, *rest = arguments
    parameters = commands[name].make_context(name, list(rest)).params
    if parameters.get("task"):
        assert parameters["task"] in training.list_tasks()
    if name == "train" and parameters["model"]:
        assert zoo.model_info(parameters["model"])
    if name == "compare":
        assert models_of(parameters["models"])


def check_script(path: str, *arguments: str) -> None:
    """Check that a script of the repository exists and has these options."""
    code = (ROOT / path).read_text(encoding="utf-8")
    for option in arguments:
        if option.startswith("--"):
            name = option[2:]
            assert f'"{option}"' in code or f"{name.replace('-', '_')}: " in code, option


# Parts of commands whose data are not available.
UNAVAILABLE = {"tiny_shakespeare", "--resume", "--csv", "--text", "arrays", "tfrecord"}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "command",
    {
        shlex.join(command[1:]): command[1:]
        for page in PAGES
        for command in commands_of(page)
        if command[:2] in (["gradkeeper", "list"], ["gradkeeper", "train"])
        and not UNAVAILABLE & set(command)
        # two replicas are slow to trace: the README's command stands for the others
        and (page == "README.md" or "--strategy" not in command)
    }.values(),
    ids=" ".join,
)
def test_commands_run_in_small(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    small = [*SMALL, "--data-dir", "data"] if command[0] == "train" else []
    done = CliRunner().invoke(app, [*command, *small])
    assert done.exit_code == 0, done.output


def test_the_readme_is_short_and_names_every_model():
    text = PAGES["README.md"].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    _, _, models = text.partition("## Models")
    table = "".join(line for line in models.splitlines() if line.startswith("|"))
    assert set(zoo.list_models()) <= set(re.findall(r"`(\w+)`", table))


def test_the_diff_of_contributing_is_in_the_repository():
    (diff,) = (block for block in blocks_of("CONTRIBUTING.md") if block.language == "diff")
    for change in re.split(r"^\+\+\+ ", diff.text, flags=re.MULTILINE)[1:]:
        path, _, lines = change.partition("\n")
        assert re.sub(r"^\+", "", lines, flags=re.MULTILINE) in (ROOT / path).read_text("utf-8"), (
            path
        )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page].read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_every_rule_has_its_remedy():
    sections = re.findall(r"^### (\w+)$", PAGES["docs/attach.md"].read_text("utf-8"), re.MULTILINE)
    assert sections == list(RULES)


def test_the_table_of_rules_is_made_of_the_rules():
    rules = hook("rules")
    page = rules.on_page_markdown(PAGES["docs/attach.md"].read_text("utf-8"))
    rows = re.findall(r"^\| \[`(\w+)`\]\(#\1\) \| [^|]+\. \| ([^|]+) \|$", page, re.MULTILINE)
    assert [name for name, _ in rows] == list(RULES)
    assert dict(rows)["vanishing"] == "`ratio=1e-06`, `patience=50`"


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(path.read_text("utf-8") for path in (DOCS / "api").glob("*.md"))
    pages = hook("cells").on_page_markdown(pages)
    packages = (gradkeeper.callbacks, gradkeeper.callbacks.rules, training, zoo)
    for package in (*packages, zoo.layers, zoo.cells):
        for name in set(package.__all__) - {"RULES"}:
            # Pages use the name in the package, or the longer name where the name is also a module.
            path = rf"^::: {package.__name__}\.([\w.]+\.)?{name}$"
            is_module = isinstance(getattr(package, name), ModuleType)
            assert is_module or re.search(path, pages, re.MULTILINE), name


def test_the_gallery_names_the_options_behind_symbols():
    pages = hook("gallery").pages()
    assert "**Symbols that are options.** `dt` is `step_size`." in pages["dynamical"]
    assert "Symbols that are options" not in pages["gates"].partition("## janet")[0]


def test_every_model_is_in_the_gallery():
    pages = hook("gallery").pages()
    for name in zoo.list_models():
        assert f"({name}.svg)" in pages["index"]
        assert sum(f"## {name} {{ #{name} }}" in page for page in pages.values()) == 1
        assert 1_000 < (DOCS / "gallery" / f"{name}.svg").stat().st_size < 15_000
    with (DOCS / "gallery" / "gradient-flow.csv").open(encoding="utf-8") as file:
        assert {row["model"] for row in csv.DictReader(file)} == set(zoo.list_models())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simple_rnn", "lstm"])
def test_the_gallery_shows_what_is_measured(name):
    flow = hook("gallery", "_pictures").flow_of(name)
    rows = hook("gallery").gradient_flows()[name]
    growths = {state.state: state.growth for state in flow}
    assert growths == pytest.approx({row["state"]: float(row["growth"]) for row in rows}, rel=1e-3)


@pytest.mark.parametrize("family", hook("gallery").families())
def test_code_of_the_gallery_runs(family):
    """Run the code of the first model of each family, and create the optimizer of every model."""
    gallery = hook("gallery")
    for number, info in enumerate(gallery.families()[family]):
        code, space = gallery.code(info), {}
        if number:
            code = re.sub(r"^model = .*?^\)$", "", code, flags=re.MULTILINE | re.DOTALL)
            code = code[: code.index("model.compile")]
        exec(code, space)  # noqa: S102
        assert ("model" in space) == (number == 0)
        assert "optimizer" in space


@pytest.mark.slow
def test_every_example_has_a_page():
    examples = hook("examples")
    for path in (ROOT / "examples").glob("*.py"):
        assert f"({path.stem}.md)" in examples.overview()
        code = re.search(r"```python\n(.*)```\n$", examples.example_page(path), re.DOTALL)[1]
        assert path.read_text("utf-8").endswith(code)
