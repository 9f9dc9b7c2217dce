"""The instrumented twin of a model's train function, put in its place one call at a time.

Nothing of ours stays on the model or its optimizer between two train steps: a callback
arms the tap in `on_train_batch_begin`, and the call that follows takes everything back,
whatever it raises. So an exception or a KeyboardInterrupt in `fit` needs no clean-up,
which Keras would not call for. The twins are kept on the plain train function, whose life
they share: a second `fit` does not trace again, and recompiling drops them.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import keras

from gradkeeper.callbacks.tap.hooks import Depth, Probe, hooked
from gradkeeper.callbacks.tap.recorder import Owner, Recorder

_ATTRIBUTE = "_gradkeeper_tap"


class Tap:
    """All that our callbacks share on one train function of a model."""

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        self._model = model
        self._plain = plain
        self._depth = Depth()
        self._twins: dict[tuple[Probe, ...], Callable] = {}
        self._recorders: dict[tuple[int, int], Recorder] = {}

    @classmethod
    def of(cls, model: keras.Model) -> "Tap":
        """The tap of the model's current train function; made at the first call."""
        function = model.train_function
        if isinstance(function, _ArmedFunction):
            return function.tap
        tap = getattr(function, _ATTRIBUTE, None)
        if tap is None:
            tap = cls(model, function)
            # A function set by hand may be an object that takes no attributes. Then the tap
            # lasts for a call, which costs nothing: such a function has no twin.
            with suppress(AttributeError):
                setattr(function, _ATTRIBUTE, tap)
        return tap

    @staticmethod
    def disarm(model: keras.Model) -> None:
        """Takes back what a training that died between arming and its next step has left."""
        function = model.train_function
        if isinstance(function, _ArmedFunction):
            model.train_function = function.tap._plain

    def arm(self, owner: Owner, capacity: int) -> Recorder:
        """Has the next call of the model's train function recorded for `owner`.

        Args:
            owner: who reads the rows.
            capacity: train steps that the recorder can hold between two reads.

        Returns:
            The recorder; callbacks with the same capacity use it one after the other (so
            that a fresh monitor traces nothing anew), and one each within a step.
        """
        armed = self._model.train_function
        if not isinstance(armed, _ArmedFunction):
            armed = self._model.train_function = _ArmedFunction(self)
        key = (capacity, sum(probe.capacity == capacity for probe in armed.probes))
        if key not in self._recorders:
            self._recorders[key] = Recorder(self._model, capacity)
        recorder = self._recorders[key]
        recorder.claim(owner)
        armed.probes.append(recorder)
        return recorder

    def run(self, iterator: Any, probes: tuple[Probe, ...]) -> Any:
        """Runs the train function with the probes inside, the model left as it was found."""
        self._model.train_function = self._plain
        with hooked(self._model, probes, self._depth):
            if probes not in self._twins:
                self._twins[probes] = self._make_twin()
            return self._twins[probes](iterator)

    def _make_twin(self) -> Callable:
        if not _is_made_by_keras(self._model, self._plain):
            return self._plain
        try:
            self._model.train_function = None
            self._model.make_train_function()
            return self._model.train_function
        finally:
            self._model.train_function = self._plain


class _ArmedFunction:
    """Stands in for `model.train_function` until it is called, once."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.probes: list[Recorder] = []

    def __call__(self, iterator: Any) -> Any:
        return self.tap.run(iterator, tuple(self.probes))


def _is_made_by_keras(model: keras.Model, function: Callable) -> bool:
    """False for a train function that the user has set by hand: it is run as it is."""
    overridden = type(model).make_train_function is not keras.Model.make_train_function
    return overridden or getattr(function, "__module__", "").startswith("keras.")
