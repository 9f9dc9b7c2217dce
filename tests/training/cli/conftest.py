"""Settings of all tests of commands."""

import pytest
from typer.testing import CliRunner

from gradkeeper.training.cli import app


@pytest.fixture(autouse=True)
def _quiet_tensorflow(monkeypatch):
    """Set the log level, so that the command does not redirect pytest's error stream."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="session")
def run():
    """Return `run(*arguments)`, which runs `gradkeeper` in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])
