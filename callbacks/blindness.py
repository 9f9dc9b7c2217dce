"""Warning for train steps in which no gradient is observed."""

from collections.abc import Sequence

import keras

from gradkeeper.callbacks.tap.optimizers import bypasses_apply


def why_nothing_was_seen(
    who: str, what_is_missing: str, optimizers: Sequence[keras.optimizers.Optimizer], remedy: str
) -> str:
    """Return the warning for a run in which no call of an optimizer was observed.

    Args:
        who: the name of the callback.
        what_is_missing: the consequence, such as "records nothing".
        optimizers: the observed optimizers.
        remedy: the action for an optimizer that is not an attribute of the model.
    """
    names = ", ".join(type(each).__name__ for each in optimizers) or "none was found"
    bypassing = [type(each).__name__ for each in optimizers if bypasses_apply(each)]
    reason = (
        f"{', '.join(bypassing)} overrides apply_gradients() and does not call apply()."
        if bypassing
        else "Either the train step updates the variables without an optimizer; or the optimizer "
        f"is not an attribute of the model ({remedy}); or a custom train function or tf.function "
        f"was traced before the {who} was attached."
    )
    return (
        f"{who} sees no gradients and {what_is_missing}: the train step did not call apply() "
        f"of any observed optimizer ({names}). {reason}"
    )
