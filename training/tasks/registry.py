"""Registry of the tasks. Importing it does not import TensorFlow; loading a task does."""

import fnmatch
import importlib
import inspect
from os import PathLike
from typing import TYPE_CHECKING, Any

from gradkeeper._arguments import choice, no_unknown

if TYPE_CHECKING:
    from gradkeeper.training.tasks.task import Task

# Name, and module and class inside `gradkeeper.training.tasks`.
TASKS = {
    "adding": "synthetic.long_time_lags:Adding",
    "addition": "synthetic.digit_strings:Addition",
    "arrays": "user_data.arrays:Arrays",
    "co2": "sequences.forecasting:CarbonDioxide",
    "copying": "synthetic.long_time_lags:Copying",
    "csv": "user_data.csv_file:CsvFile",
    "delimited_text": "text.delimited_text:DelimitedText",
    "japanese_vowels": "sequences.japanese_vowels:JapaneseVowels",
    "jsb_chorales": "sequences.jsb_chorales:JsbChorales",
    "noise_padded": "sequences.mnist:NoisePadded",
    "parity": "synthetic.parity:Parity",
    "permuted_mnist": "sequences.mnist:PermutedMnist",
    "reverse": "synthetic.digit_strings:Reverse",
    "selective_copying": "synthetic.selective_copying:SelectiveCopying",
    "sequential_mnist": "sequences.mnist:SequentialMnist",
    "sunspots": "sequences.forecasting:Sunspots",
    "temporal_order": "synthetic.long_time_lags:TemporalOrder",
    "text_file": "text.characters:TextFile",
    "tfrecord": "user_data.tfrecord:TFRecord",
    "tiny_shakespeare": "text.characters:TinyShakespeare",
}


def list_tasks(pattern: str = "*") -> list[str]:
    """Return the names of the tasks that match a pattern such as "tiny_*", sorted."""
    return sorted(fnmatch.filter(TASKS, pattern))


def load_task(
    name: str, *, data_dir: str | PathLike[str] | None = None, seed: int = 0, **options: Any
) -> "Task":
    """Load a task by name.

    Args:
        name: One of `list_tasks()`.
        data_dir: Data folder of tensorflow-datasets; data are prepared there once and then
            reused. None: its default, `~/tensorflow_datasets`.
        seed: Seed of the order and content of the training batches, at least 0. The evaluation
            split is the same for every seed.
        **options: Options of the task, such as `length`; see its class.

    Raises:
        ValueError: Unknown task, an option out of its range, or invalid data.
        TypeError: Options that the task does not have, or a missing required option.
        FileNotFoundError: A file of the user does not exist.
        ConnectionError: The data are not prepared and the source is unreachable.
    """
    choice("task", name, TASKS)
    module, _, attribute = TASKS[name].partition(":")
    task = getattr(importlib.import_module(f"gradkeeper.training.tasks.{module}"), attribute)
    allowed = _options_of(task)
    unknown = set(options) - set(allowed)
    no_unknown(f"The task {name!r}", unknown, allowed)
    needed = {key for key, each in allowed.items() if each.default is each.empty}
    missing = ", ".join(sorted(needed - set(options)))
    if missing:
        raise TypeError(
            f"The task {name!r} requires options. Missing: {missing}. "
            f"Received: {', '.join(sorted(options)) or 'none'}"
        )
    return task(data_dir=data_dir, seed=seed, **options)


def _options_of(task: type) -> dict[str, inspect.Parameter]:
    """Return the keyword-only arguments of a task, including those passed to its base classes."""
    found: dict[str, inspect.Parameter] = {}
    for each in task.__mro__:
        if "__init__" in vars(each):
            for parameter in inspect.signature(vars(each)["__init__"]).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    found.setdefault(parameter.name, parameter)
    return {name: found[name] for name in set(found) - {"options", "data_dir", "seed"}}
