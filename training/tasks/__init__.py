"""Tasks: data, head, loss and baseline of a training."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.training.tasks.in_memory import InMemoryTask as InMemoryTask
    from gradkeeper.training.tasks.registry import list_tasks as list_tasks
    from gradkeeper.training.tasks.registry import load_task as load_task
    from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask as SyntheticTask
    from gradkeeper.training.tasks.task import Task as Task
    from gradkeeper.training.tasks.text.characters import CharacterTask as CharacterTask
    from gradkeeper.training.tasks.text.vocabulary import Vocabulary as Vocabulary

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "in_memory": ["InMemoryTask"],
        "registry": ["list_tasks", "load_task"],
        "synthetic.synthetic_task": ["SyntheticTask"],
        "task": ["Task"],
        "text.characters": ["CharacterTask"],
        "text.vocabulary": ["Vocabulary"],
    },
)
