"""Shows mkdocstrings the sources as the one package that they are installed as.

`zoo/`, `callbacks/` and `training/` become `gradkeeper.zoo` and so on by setuptools'
`package-dir`, through an import hook that a reader of files cannot follow. A folder of links can
be followed.
"""

import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("callbacks", "training", "zoo")

_folder = tempfile.TemporaryDirectory()


def link_package(folder: Path) -> None:
    """Makes `folder/gradkeeper` with links to the checkout's files."""
    package = folder / "gradkeeper"
    package.mkdir()
    for file in (ROOT / "src" / "gradkeeper").glob("*.py"):
        (package / file.name).symlink_to(file)
    for part in PARTS:
        (package / part).symlink_to(ROOT / part, target_is_directory=True)


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> None:
    """Points mkdocstrings to the links."""
    folder = Path(_folder.name)
    if not (folder / "gradkeeper").exists():
        link_package(folder)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
