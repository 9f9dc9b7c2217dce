"""What to tell when a train step shows no gradients."""

from collections.abc import Sequence

import keras

from gradkeeper.callbacks.tap.optimizers import bypasses_apply


def why_nothing_was_seen(
    who: str, what_is_missing: str, optimizers: Sequence[keras.optimizers.Optimizer], remedy: str
) -> str:
    """The message for a training whose optimizers were never seen at work.

    Args:
        who: the callback's name.
        what_is_missing: what it would do if it saw any, as in "records nothing".
        optimizers: those that were looked at.
        remedy: what to do about an optimizer that is not found.
    """
    names = ", ".join(type(each).__name__ for each in optimizers) or "none was found"
    bypassing = [type(each).__name__ for each in optimizers if bypasses_apply(each)]
    reason = (
        f"{', '.join(bypassing)} overrides apply_gradients() and does not call apply()."
        if bypassing
        else "The train step updates its variables by hand, or with an optimizer that the model "
        f"does not hold in an attribute ({remedy}), or it was compiled, by a train function or a "
        f"tf.function of your own, before the {who} was there."
    )
    return (
        f"{who} sees no gradients and {what_is_missing}: the train step called apply() "
        f"of no optimizer it looked at ({names}). {reason}"
    )
