"""Messages about exceptions in rules and sinks."""

from gradkeeper.callbacks.tap.keras_private import print_msg


def tell_fault(source: str, error: Exception, consequence: str) -> None:
    """Print the source of an exception, the exception and its consequence.

    The message is printed even with `verbose=0`, because records may be missing.
    """
    # The message starts on a new line, because the current line may show a progress bar.
    print_msg(f"\nGradientMonitor: {source} raised {type(error).__name__}: {error}. {consequence}")
