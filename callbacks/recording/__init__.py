"""Recording of train steps: the step log, its reader and the history."""
