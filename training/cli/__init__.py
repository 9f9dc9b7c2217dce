"""The `gradkeeper` command."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.training.cli.commands import app as app
    from gradkeeper.training.cli.commands import main as main

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"commands": ["app", "main"]}
)
