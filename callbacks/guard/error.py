"""The error of a training that a guard has ended."""

from gradkeeper.callbacks.guard.event import GuardEvent


class NonFiniteGradientError(RuntimeError):
    """A train step was refused, and the guard's policy is to raise.

    Attributes:
        event: what was seen.
        step: the train step, counted from the run's first.
        layers: the layers whose gradients were not finite.
        capsule: the folder from which the step can be replayed; None if there is none.
    """

    def __init__(self, event: GuardEvent) -> None:
        super().__init__(f"{event} {event.how_to_replay}".rstrip())
        self.event = event
        self.step = event.step
        self.layers = event.layers
        self.capsule = event.capsule
