"""Error that a guard raises to end a training run."""

from gradkeeper.callbacks.guard.event import GuardEvent


class NonFiniteGradientError(RuntimeError):
    """Raised after a skipped train step if the guard's policy says so.

    Attributes:
        event: the event of the step.
        step: the train step, counted from the run's first.
        layers: the layers with non-finite gradients.
        capsule: the capsule directory of the step; None if there is none.
    """

    def __init__(self, event: GuardEvent) -> None:
        super().__init__(f"{event} {event.how_to_replay}".rstrip())
        self.event = event
        self.step = event.step
        self.layers = event.layers
        self.capsule = event.capsule
