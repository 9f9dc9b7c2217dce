"""The tensorflow-datasets builders behind the tasks, and how they are prepared."""
