"""`gradkeeper list`: names of models and tasks, or the details of one model."""

import ast
from importlib.util import find_spec
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from gradkeeper import zoo
from gradkeeper.training.tasks.registry import TASKS, list_tasks


def print_catalogue(console: Console, pattern: str) -> None:
    """Print the models and the tasks that match `pattern`; all details of an exact model name.

    Raises:
        ValueError: if nothing matches.
    """
    if pattern in zoo.list_models():
        console.print(str(zoo.model_info(pattern)), highlight=False, markup=False, soft_wrap=True)
        return
    models, tasks = zoo.list_models(pattern), list_tasks(pattern)
    if not models and not tasks:
        raise ValueError(
            f"No model or task matches the pattern. Models: {', '.join(zoo.list_models())}. "
            f"Tasks: {', '.join(list_tasks())}. Received: pattern={pattern!r}"
        )
    if models:
        table = _table("Models", "model", "description", "year")
        for info in map(zoo.model_info, models):
            table.add_row(info.name, info.title, str(info.year))
        console.print(table)
    if tasks:
        table = _table("Tasks", "task", "description")
        for name in tasks:
            table.add_row(name, _title(name))
        console.print(table)


def _table(title: str, name: str, *others: str) -> Table:
    table = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(name, style="cyan", no_wrap=True)
    for heading in others:
        table.add_column(heading)
    return table


def _title(task: str) -> str:
    """Return the first line of the task module's docstring, without importing the module."""
    module = TASKS[task].partition(":")[0]
    spec = find_spec(f"gradkeeper.training.tasks.{module}")
    if spec is None or spec.origin is None:
        return ""
    documentation = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return (documentation or "").partition("\n")[0].rstrip(".")
