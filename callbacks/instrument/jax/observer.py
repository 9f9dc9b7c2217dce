"""Base of the observers of train steps on JAX and torch."""

from dataclasses import dataclass
from typing import Any

from gradkeeper.callbacks.instrument.jax.step_trace import StepTrace
from gradkeeper.callbacks.instrument.ownership import Owned


@dataclass
class TracedStep:
    """A train step under trace. The state has four lists, as in `keras.Model.train_step` on JAX.

    Attributes:
        trace: the optimizer calls and the loss.
        before: the state before the step.
        after: the state after the step.
        logs: the logs of the step.
    """

    trace: StepTrace
    before: Any
    after: Any
    logs: Any


class ArrayObserver(Owned):
    """Observer of train steps on JAX and torch.

    The compiled step passes a carry, arrays on the device, from one observed step to the next.

    Attributes:
        carry: the carry of the next step, nested dicts of arrays.
        changes_step: whether the observer may change the state after the step. Such an observer
            acts before the others.
        measures_next: whether the next step is observed.
    """

    changes_step = False
    measures_next = True

    def __init__(self, optimizers: Any = None) -> None:
        super().__init__(optimizers)
        self.carry: Any = {}

    def begin_step(self, carry: Any) -> None:
        """Receive the carry before the step runs, traced."""

    def on_step(self, step: TracedStep, carry: Any) -> tuple[Any, Any]:
        """Return the carry and the outputs of the step, traced."""
        raise NotImplementedError

    def end_step(self, outputs: Any, data: Any, state: Any) -> None:
        """Receive the outputs of a step, arrays on the device.

        Args:
            outputs: the outputs; None if the step was not observed.
            data: the batch.
            state: the state before the step if the step runs eagerly; otherwise, the state after
                it.
        """
        raise NotImplementedError
