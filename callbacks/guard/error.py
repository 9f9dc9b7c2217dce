"""The error of a training that a guard has ended."""

from gradkeeper.callbacks.guard.event import GuardEvent


class NonFiniteGradientError(RuntimeError):
    """A train step was refused, and the guard's policy is to raise.

    Attributes:
        event: what was seen.
        step: the train step, counted from the run's first.
        layers: the layers whose gradients were not finite.
    """

    def __init__(self, event: GuardEvent) -> None:
        super().__init__(str(event))
        self.event = event
        self.step = event.step
        self.layers = event.layers
