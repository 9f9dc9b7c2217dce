"""Live view in the terminal."""

import io

import numpy as np
import pytest
from growing_run import GrowingRun
from histories import window
from rich.console import Console

from gradkeeper.callbacks import Finding
from gradkeeper.callbacks.reporting.live import terminal
from gradkeeper.callbacks.reporting.live.view import LiveView
from gradkeeper.callbacks.sinks import ParquetSink


def console_of(width, *, is_terminal=False):
    return Console(file=io.StringIO(), width=width, height=24, force_terminal=is_terminal)


def lines_of(view, width=80, height=24):
    console = console_of(width)
    view.refresh()
    console.print(terminal.render(view, console, height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("values", "width", "blocks"),
    [
        ([1, 10, 100, 1000], 9, "▁▃▆█"),
        ([1.0, 1.0], 9, "▅▅"),
        ([-7, 0, 7], 9, "▁▅█"),
        ([0, 1, np.nan, 10, np.inf], 9, "·▁ █!"),
        ([1, np.inf, 2, 3, 9, np.nan], 3, "!▁█"),
        ([np.nan] * 3, 9, "   "),
        ([], 9, " "),
    ],
)
def test_sparkline(values, width, blocks):
    assert terminal.sparkline(np.array(values), width).plain == blocks


def test_a_sparkline_of_means():
    values = np.array([1.0, 3.0, np.nan, 4.0, 16.0, 16.0])
    assert terminal.sparkline(values, 3, np.mean).plain == "▁ █"


def test_waiting_for_the_first_file(tmp_path):
    (line,) = lines_of(LiveView(tmp_path / "log"), width=200)
    assert line == f"Waiting for gradients-*.parquet in {tmp_path / 'log'} ..."


def test_the_view_shows_loss_norm_layers_and_findings(tmp_path):
    norms = np.ones((60, 3)) * [1.0, 1.0, 4.0]
    norms[59] = [1.0, 1.0, np.nan]
    losses = np.linspace(2, 1, 60)
    ParquetSink(tmp_path).write(window(norms, scalars={"loss": losses}))
    text = lines_of(LiveView(tmp_path), width=120)
    assert len(text) <= 24
    assert text[1].startswith("step 59  loss 1  gradient norm nan  last write ")
    assert text[1].endswith(" s ago  recorded steps 60")
    assert text[2].startswith("loss           █")
    assert text[2].endswith("▁")
    assert text[3].startswith("gradient norm  ▅")
    assert text[3].endswith("!")
    assert text[6].split()[:4] == ["dense", "NaN", "or", "Inf"]
    assert text[7].split()[:2] == ["rnn/cell", "1.414"]
    findings = text.index("Findings: 1")
    assert text[findings + 1].startswith("error nonfinite, step 59, dense: The gradient is NaN")


def test_a_run_without_losses_has_no_curve_of_the_loss(tmp_path):
    GrowingRun(tmp_path).write(0, 3, losses=[np.nan] * 3)
    assert [line[:13] for line in lines_of(LiveView(tmp_path))[2:4]] == ["gradient norm", ""]


@pytest.mark.parametrize(("width", "height"), [(40, 16), (80, 24), (200, 100)])
def test_the_view_fits_the_terminal(tmp_path, width, height):
    variables = [
        f"encoder/block_{block}/attention/dense_with_a_long_name/kernel" for block in range(35)
    ]
    GrowingRun(tmp_path, variables=variables).write(0, 200)
    view = LiveView(tmp_path)
    view.findings = [
        Finding(step, "encoder", "exploding", "warning", "Large. " * 20, "Clip. " * 30)
        for step in range(20)
    ]
    text = lines_of(view, width, height)
    assert len(text) <= height
    assert max(map(len, text)) <= width
    assert any("more layers" in line for line in text) is (height < 100)
    assert any(line.startswith("warning exploding, step 19") for line in text)
    assert text[-1].strip() == "..."


def test_ctrl_c_ends_the_view_and_leaves_the_last_state(tmp_path, monkeypatch):
    run, pauses = GrowingRun(tmp_path), []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt
        run.write(len(pauses), len(pauses) + 1)

    monkeypatch.setattr(terminal.time, "sleep", sleep)
    console = console_of(80, is_terminal=True)
    terminal.watch(LiveView(tmp_path), console)
    assert max(pauses) <= 2
    shown, _, left = console.file.getvalue().rpartition("\x1b[?1049l")
    assert "Waiting for" in shown
    assert "step" in left
    assert "recorded steps" in left
