"""Text tasks: prediction of the next character."""
