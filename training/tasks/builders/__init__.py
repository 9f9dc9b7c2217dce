"""tensorflow-datasets builders of the tasks, and their preparation."""
