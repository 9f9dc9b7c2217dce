"""Commands: fast help, lists, and errors in one line."""

import subprocess
import sys

import pytest

from gradkeeper import __version__, zoo
from gradkeeper.training import list_tasks


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["watch", "--help"], ["--version"]]
)
def test_help_and_version_do_not_import_tensorflow(arguments):
    check = (
        "import sys; from gradkeeper.training.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'keras', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_version(run):
    assert run("--version").output.strip() == f"gradkeeper {__version__}"


def test_list(run):
    output = run("list").output
    assert all(name in output for name in [*zoo.list_models(), *list_tasks()])
    assert "The adding problem: add" in output


def test_list_by_pattern(run):
    output = run("list", "*lstm*").output
    assert "ln_lstm" in output
    assert "gru" not in output
    assert "adding" not in output


def test_list_of_one_model(run):
    output = run("list", "lem").output
    assert output.strip() == str(zoo.model_info("lem"))
    assert "dt is step_size" in output


ADDING = ("--task", "adding")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "grew", "--task", "adding"], "Did you mean 'gru'"),
        (["train", "gru", "--task", "added"], "Did you mean 'noise_padded' or 'adding'"),
        (["train", "gru"], "`--task` is missing"),
        (["train"], "model is missing"),
        (["train", "--resume"], "needs the run's `--run-dir`"),
        (["train", "gru", "--task", "adding", "--optimizer", "adm"], "Did you mean 'adam'"),
        (["train", "gru", "--task", "adding", "--length", "0"], "length=0"),
        (["train", "gru", "--task", "adding", "--option", "size=3"], "takes the arguments length"),
        (["train", "gru", "--task", "adding", "--option", "length"], "takes key=value"),
        (["train", "gru", "--task", "adding", "--clipnorm", "-1"], "clipnorm=-1"),
        (
            ["train", "gru", "--task", "adding", "--clipnorm", "1", "--clipvalue", "1"],
            "one kind of clipping",
        ),
        (["compare", "gru", "gru", "--task", "adding"], "each model only once"),
        (["compare", "gru:units=3", "gru:units=3", *ADDING], "each model only once"),
        (["compare", "gru:layer_norm", *ADDING], "each key once. Received: 'layer_norm'"),
        (["compare", "gru:norm=true", *ADDING], "Received: norm"),
        (["compare", "gru:task=copying", *ADDING], "Received: model_options={'task': 'copying'}"),
        (["compare", "remedies", "--clipnorm", "1", *ADDING], "of 'leaky ReLU clipped'"),
        (["compare", "gru"], "`--task` is missing"),
        (["train", "gru", *ADDING, "--recipe", "non"], "Did you mean 'none'?"),
        (["train", "gru", *ADDING, "--length", "8", "--option", "length=9"], "given twice"),
        (["train", "gru", *ADDING, "--allow-changed-data"], "an option of `--resume`"),
        (["train", "gru", *ADDING, "--optimizer-option", "epsilon=abc"], "epsilon='abc'"),
        (["train", "gru", *ADDING, "--optimizer-option", "amsgrad=no"], "amsgrad='no'"),
        (["list", "*transformer*"], "pattern='*transformer*'"),
        (["report", "nowhere"], "Not a run directory"),
        (["watch", "logs", "--port", "80"], "`--port` requires `--serve`"),
        (["watch", __file__], "must be a directory"),
    ],
)
def test_invalid_input_is_one_message_and_exit_code_2(
    run, arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(run, tmp_path):
    result = run("--debug", "report", tmp_path)
    assert isinstance(result.exception, FileNotFoundError)
