"""What to tell when a train step shows no gradients."""

from collections.abc import Sequence

import keras

from gradkeeper.callbacks.tap.optimizers import bypasses_apply


def why_nothing_was_seen(optimizers: Sequence[keras.optimizers.Optimizer]) -> str:
    """The message for a training whose optimizers were never seen at work.

    Args:
        optimizers: those that were looked at.
    """
    names = ", ".join(type(each).__name__ for each in optimizers) or "none was found"
    bypassing = [type(each).__name__ for each in optimizers if bypasses_apply(each)]
    reason = (
        f"{', '.join(bypassing)} overrides apply_gradients() and does not call apply()."
        if bypassing
        else "The train step updates its variables by hand, or with an optimizer that the model "
        "does not hold in an attribute (name it: GradientMonitor(optimizers=[...])), or it was "
        "compiled by a train function of your own before the monitor was there."
    )
    return (
        "GradientMonitor sees no gradients and records nothing: the train step called apply() "
        f"of no optimizer it looked at ({names}). {reason}"
    )
