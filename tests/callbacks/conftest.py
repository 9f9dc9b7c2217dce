"""Fixtures of the callback tests."""

import pytest

from gradkeeper.callbacks.capsule import model


@pytest.fixture(autouse=True)
def _capsules_are_trusted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a replay create the model of a capsule on Keras versions that require consent.

    `test_untrusted.py` tests the consent.
    """
    if request.node.path.stem != "test_untrusted":
        monkeypatch.setattr(model, "safe_mode_holds", lambda: True)
