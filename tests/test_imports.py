"""Import directions and name conventions of the packages; see CONTRIBUTING.md."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("callbacks", "zoo", "training")

# Folders and modules of callbacks/ that use TensorFlow. All others work with NumPy arrays.
USES_TENSORFLOW = {
    *("instrument", "statistics", "measurements", "diagnosis"),
    *("guard.transform", "guard.checks", "guard.skip_log", "guard.capture", "guard.loop"),
    *("clipping.transform", "flow.derivatives"),
    *("recording.recorder", "recording.replica_log", "recording.activation_log"),
    *("recording.step_log", "recording.step_counter"),
}
KERAS_PRIVATE = {
    "callbacks/_keras_private.py",
    "zoo/_keras_private.py",
    "training/distribution/keras_private.py",
}
TENSORFLOW_PRIVATE = {
    "callbacks/diagnosis/_tensorflow_private.py",
    "training/distribution/keras_private.py",
}

in_checkout = pytest.mark.skipif(
    not (ROOT / "callbacks").is_dir(), reason="needs the project's own files"
)


def files(package: str) -> dict[str, Path]:
    """Return the modules of a package by name, such as `rules.spike`."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, *, late: bool = False) -> Iterator[str]:
    """Yield the modules that a file imports; `late` includes imports inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


@in_checkout
def test_callbacks_and_zoo_import_neither_each_other_nor_training():
    for package, others in {
        "callbacks": ("zoo", "training"),
        "zoo": ("callbacks", "training"),
    }.items():
        for path in files(package).values():
            for module in imports_of(path, late=True):
                assert not module.startswith(tuple(f"gradkeeper.{each}" for each in others)), path


@in_checkout
@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_import_cycle(package):
    prefix, modules = f"gradkeeper.{package}.", files(package)
    graph = {}
    for name, path in modules.items():
        inside = {each.removeprefix(prefix) for each in imports_of(path) if each.startswith(prefix)}
        # `from folder import module` imports the module; the folder is imported before it anyway.
        folders = {each.rpartition(".")[0] for each in inside & set(modules)}
        graph[name] = (inside & set(modules)) - folders - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@in_checkout
@pytest.mark.parametrize("package", ["callbacks", "zoo"])
def test_a_private_module_is_imported_in_its_folder_only(package):
    prefix = f"gradkeeper.{package}."
    for name, path in files(package).items():
        for module in imports_of(path, late=True):
            folder, _, last = module.removeprefix(prefix).rpartition(".")
            if module.startswith(prefix) and last.startswith("_"):
                assert f"{name}.".startswith(f"{folder}." if folder else ""), (path, module)


@in_checkout
def test_tensorflow_is_used_where_contributing_says():
    for name, path in files("callbacks").items():
        allowed = name in USES_TENSORFLOW or name.partition(".")[0] in USES_TENSORFLOW
        if not allowed:
            assert not any(each.startswith("tensorflow") for each in imports_of(path)), path
    for path in files("zoo").values():
        assert not any(each.startswith("tensorflow") for each in imports_of(path, late=True)), path


@in_checkout
@pytest.mark.parametrize(
    ("private", "allowed"),
    [("keras.src", KERAS_PRIVATE), ("tensorflow.python", TENSORFLOW_PRIVATE)],
)
def test_private_names_are_in_files_that_explain_them(private, allowed):
    for package in PACKAGES:
        for path in files(package).values():
            if path.relative_to(ROOT).as_posix() not in allowed:
                assert not any(each.startswith(private) for each in imports_of(path, late=True)), (
                    path
                )


@in_checkout
def test_contributing_names_the_places():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for place in (*KERAS_PRIVATE, *TENSORFLOW_PRIVATE):
        assert f"`{place}`" in text, place
    used = {
        re.sub(r"^recording/.*", "recording", each.replace(".", "/")) for each in USES_TENSORFLOW
    }
    named = re.search(r"Of `callbacks/`, (.*?) use\s+TensorFlow", text, re.DOTALL)
    assert named is not None
    assert used == set(re.findall(r"`([\w/]+?)(?:/|\.py)`", named[1]))
