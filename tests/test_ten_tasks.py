"""The ten tasks of the guide, executed step by step in an empty folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradkeeper.training.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ten-tasks.md"
# Tasks that use the names of the first one; the page says so.
USE_THE_FIRST = (2, 4, 10)


def tasks():
    """Return the language and text of the blocks of each task, by heading."""
    _, *parts = re.split(r"^## \d+\. ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return {part.partition("\n")[0]: blocks.findall(part) for part in parts}


def in_a_fresh_process(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_command(line):
    program, *arguments = shlex.split(line)
    if program == "python":
        return in_a_fresh_process(*arguments)
    assert program == "gradkeeper"
    if arguments[0] == "replay":  # imports the model from the working directory
        return in_a_fresh_process(
            "-c", "from gradkeeper.training.cli import main; main()", *arguments
        )
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_ten_tasks_succeed_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")
    spaces, printed = {}, {}
    for number, (heading, blocks) in enumerate(tasks().items(), 1):
        space = spaces[number] = dict(spaces[1]) if number in USE_THE_FIRST else {}
        capsys.readouterr()
        outputs = []
        for language, text in blocks:
            if language == "sh":
                outputs += map(run_command, text.splitlines())
            elif text.startswith("# ") and text.split()[1].endswith(".py"):
                Path(text.split()[1]).write_text(text)
            else:
                exec(compile(text, str(PAGE), "exec"), space)  # noqa: S102
        printed[heading] = capsys.readouterr().out + "".join(outputs)
    assert len(printed) == 10
    watch, layers, diverges, limit, replay, loop, load, series, text, compare = printed.values()
    assert "no findings" in watch
    assert "['memory/lstm_cell', 'out']" in layers
    assert "['out/kernel', 'out/bias']" in layers
    assert "standardize the inputs" in diverges
    assert "Recommended: global_clipnorm=" in limit
    assert "capsules/step-00000002 --model YOUR_MODULE:FUNCTION" in replay
    assert "division by 0" in replay
    assert "(20, 2) ['critic', 'generator']" in loop
    assert load.strip().isdigit()
    assert Path("predictions.csv").read_text().startswith("row,load+1")
    assert "120 rows; target load" in series
    assert "Once upon" in text
    assert "min_gru" in compare
    assert all(Path(name).stat().st_size > 5_000 for name in ("report.html", "memory.png"))
