"""Hook that presents the sources to mkdocstrings as one package.

`package-dir` of setuptools maps `zoo/`, `callbacks/` and `training/` to `gradkeeper.zoo` etc. by an
import hook. mkdocstrings reads files and cannot follow an import hook, but can follow links.
"""

import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("callbacks", "training", "zoo")

_folder = tempfile.TemporaryDirectory()


def link_package(folder: Path) -> None:
    """Create `folder/gradkeeper` with links to the files of the checkout."""
    package = folder / "gradkeeper"
    package.mkdir()
    for file in (ROOT / "src" / "gradkeeper").glob("*.py"):
        (package / file.name).symlink_to(file)
    for part in PARTS:
        (package / part).symlink_to(ROOT / part, target_is_directory=True)


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> None:
    """Set the search path of mkdocstrings to the links."""
    folder = Path(_folder.name)
    if not (folder / "gradkeeper").exists():
        link_package(folder)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
