"""Every notebook runs from the first cell to the last, here with settings for a short run."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "examples" / "notebooks"

# Values that replace those of the parameter cell.
SMALL = {
    "attach_to_keras_project": {"epochs": 2, "examples": 200},
    "clipping_compared": {"steps": 20},
    "find_the_nan": {},
}


def cells(name: str) -> list[dict]:
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_listed():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_is_kept_without_output(name):
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict = {"__name__": "__main__"}
    overruled = 0
    for number, cell in enumerate(cells(name)):
        # One file per cell: a replay reads the source line that it reports.
        file = tmp_path / f"cell_{number}.py"
        lines = [line for line in cell["source"] if not line.startswith("%")]
        file.write_text("".join(lines), encoding="utf-8")
        code = compile(file.read_text(encoding="utf-8"), file, "exec")
        exec(code, space)  # noqa: S102
        if "parameters" in cell["metadata"].get("tags", []):
            assert set(SMALL[name]) <= set(space)
            space |= SMALL[name]
            overruled += 1
    assert overruled == 1
