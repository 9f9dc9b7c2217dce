"""The parts of `NonFiniteGuard`: triggers, events and guarded steps of custom loops."""

import lazy_loader

# `loop` requires TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "event": ["GuardEvent", "NonFiniteGradientError"],
        "loop": ["GuardedStep", "StepModel"],
        "trigger": ["NormAbove", "NormZScore"],
    },
)
