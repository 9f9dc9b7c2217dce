"""The table of tasks. Reading it imports no TensorFlow; loading a task does."""

import fnmatch
import importlib
import inspect
from os import PathLike
from typing import TYPE_CHECKING, Any

from gradkeeper.training._checks import unknown_name, unknown_options

if TYPE_CHECKING:
    from gradkeeper.training.tasks.task import Task

# name: module and class inside `gradkeeper.training.tasks`
TASKS = {
    "adding": "adding:Adding",
    "copying": "copying:Copying",
    "temporal_order": "temporal_order:TemporalOrder",
    "tiny_shakespeare": "tiny_shakespeare:TinyShakespeare",
}


def list_tasks(pattern: str = "*") -> list[str]:
    """The names of the tasks that match a pattern such as "tiny_*", sorted."""
    return sorted(fnmatch.filter(TASKS, pattern))


def load_task(
    name: str, *, data_dir: str | PathLike[str] | None = None, seed: int = 0, **options: Any
) -> "Task":
    """A task by its name.

    Args:
        name: One of `list_tasks()`.
        data_dir: Folder of tensorflow-datasets in which data is prepared once and then
            reused. None: its default, `~/tensorflow_datasets`.
        seed: Order and content of the training batches, at least 0. The evaluation split is
            the same for every seed.
        **options: The task's own options, such as `length`; see its class.

    Raises:
        ValueError: Unknown task, or an option out of its range.
        TypeError: Options that the task does not take.
        ConnectionError: The data is not prepared and its source cannot be reached.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    module, _, attribute = TASKS[name].partition(":")
    task = getattr(importlib.import_module(f"gradkeeper.training.tasks.{module}"), attribute)
    allowed = set(inspect.signature(task).parameters) - {"data_dir", "seed"}
    unknown = set(options) - allowed
    if unknown:
        raise unknown_options(f"The task {name!r}", unknown, allowed)
    return task(data_dir=data_dir, seed=seed, **options)
