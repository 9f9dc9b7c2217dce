"""Telling of a fault in what observes a training."""

from gradkeeper.callbacks.tap.keras_private import print_msg


def tell_fault(source: str, error: Exception, consequence: str) -> None:
    """Prints through Keras's own channel who raised what, and what follows from it.

    Also where findings are not printed: else nothing would say that something is missing.
    """
    # On a line of its own: a progress bar may stand on the current one.
    print_msg(f"\nGradientMonitor: {source} raised {type(error).__name__}: {error}. {consequence}")
