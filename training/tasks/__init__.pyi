from .in_memory import InMemoryTask as InMemoryTask
from .registry import list_tasks as list_tasks
from .registry import load_task as load_task
from .synthetic.synthetic_task import SyntheticTask as SyntheticTask
from .task import Task as Task
from .text.characters import CharacterTask as CharacterTask
from .text.vocabulary import Vocabulary as Vocabulary
