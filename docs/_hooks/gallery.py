"""Hook that generates the gallery of the zoo: a page per family of entries, and an overview.

`docs/_pictures/gallery.py` draws the pictures and writes `gradient-flow.csv`, in `docs/gallery/`.
"""

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gradkeeper import zoo
from gradkeeper.zoo import entries
from gradkeeper.zoo.recipe import Recipe

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

OF_THE_OPTIMIZER = ("learning_rate", "clipnorm", "global_clipnorm", "clipvalue")
FOLDER = Path(__file__).resolve().parents[1] / "gallery"
PROMISES = FOLDER.parent / "results" / "promises.csv"


def families() -> dict[str, tuple[zoo.ModelInfo, ...]]:
    """Return the entries by family."""
    return {name: family.ENTRIES for name, family in entries.FAMILIES.items()}


def on_config(config: "MkDocsConfig") -> None:
    """Add the pages to the navigation."""
    pages = [{family.replace("_", " "): f"gallery/{family}.md"} for family in families()]
    for item in config.nav:
        if item == {"Gallery": "gallery/index.md"}:
            item["Gallery"] = ["gallery/index.md", *pages]


def on_files(files: "Files", config: "MkDocsConfig") -> None:
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    for name, content in pages().items():
        files.append(File.generated(config, f"gallery/{name}.md", content=content))


def pages() -> dict[str, str]:
    """Return the Markdown of the pages by name."""
    found = {family: family_page(family, infos) for family, infos in families().items()}
    return {"index": overview(), **found}


def overview() -> str:
    """Return the overview of all entries with their pictures."""
    lines = [INTRODUCTION, ""]
    for family, infos in families().items():
        lines += [f"## {_title(family)}", "", '<div class="gallery" markdown>', ""]
        for info in infos:
            picture = f"![gradient flow]({info.name}.svg)"
            lines += [f"[{picture}<br>`{info.name}`<br>{prose(info.title)}]({_place(info)})", ""]
        lines += ["</div>", ""]
    return "\n".join(lines)


def family_page(family: str, infos: tuple[zoo.ModelInfo, ...]) -> str:
    """Return the page of a family, with the descriptions of its entries."""
    flows = gradient_flows()
    return "\n\n".join(
        [f"# {_title(family)}", *(entry(info, flows.get(info.name, [])) for info in infos)]
    )


def entry(info: zoo.ModelInfo, flows: list[dict[str, str]]) -> str:
    """Return the section of an entry: equations, paper, gradient, recipe, code and picture."""
    reaches = "; ".join(map(_reach, flows))
    recipes = "\n\n".join(map(_recipe, info.recipes))
    symbols = ", ".join(f"`{symbol}` is `{option}`" for symbol, option in info.symbols.items())
    return f"""## {info.name} {{ #{info.name} }}

{prose(info.title)}. {prose(info.paper)}.

![Gradient flow of {info.name}]({info.name}.svg){{ .flow }}

```text
{info.equations.strip()}
```

{f"**Symbols that are options.** {symbols}." if symbols else ""}

**Gradient.** {prose(info.gradient_property)}
At initialization, over 100 steps: {reaches}.

**Initialization.** {prose(info.initialization)}

{_promise(info)}

{recipes}

**Layer.** {_layer(info)}.

```python
{code(info)}
```

```sh
gradkeeper train {info.name} --task {info.recipe.task}
```"""


def _recipe(recipe: Recipe) -> str:
    """Return a recipe's settings, its source, and the settings that are not from there."""
    settings = ", ".join(f"`{name}={value!r}`" for name, value in recipe.settings.items())
    text = f"**Recipe for `{recipe.task}`.** {settings}."
    if not recipe.source:
        return f"{text} Chosen for this project."
    own = ", ".join(f"`{name}`" for name in recipe.own)
    return f"{text} Source: {prose(recipe.source)}{f', except {own}' if own else ''}."


def _promise(info: zoo.ModelInfo) -> str:
    """Return what the paper promises and whether it was kept, if `promises.csv` has the entry."""
    if not PROMISES.is_file():
        return ""
    with PROMISES.open(encoding="utf-8", newline="") as file:
        rows = {row["quantity"]: row for row in csv.DictReader(file) if row["model"] == info.name}
    if not rows:
        return ""
    claim, *_ = rows["median"]["setting"].partition(";")
    numbers = {name: f"{float(row['value']):.3g}" for name, row in rows.items()}
    seeds = rows["median"]["seeds"].count(",") + 1
    return (
        f"**Promise.** {prose(claim)}. Kept by {numbers['seeds that keep it']} of {seeds} seeds: "
        f"{numbers['lowest']} to {numbers['highest']}, contrast {numbers['contrast']} "
        "([all promises](../results.md#promises-of-the-papers))."
    )


def code(info: zoo.ModelInfo) -> str:
    """Return code that creates the entry and compiles it with its recipe."""
    if "sequence_to_sequence" in info.tasks:
        sizes = "input_shape=(None,), output_units=11"
        loss = "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
    else:
        sizes, loss = "input_shape=(None, 2), output_units=1", '"mse"'
    training = info.recipe.training
    options = ", ".join(
        f"{name}={training[name]!r}" for name in OF_THE_OPTIMIZER if name in training
    )
    keras = "import keras\n\n" if loss.startswith("keras") else ""
    return f"""{keras}from gradkeeper import zoo
from gradkeeper.training import make_optimizer

model = zoo.create_model(
    "{info.name}",
    recipe="{info.recipe.task}",
    {sizes},
)
optimizer = make_optimizer("{training["optimizer"]}", {options})
model.compile(optimizer, loss={loss})"""


def gradient_flows() -> dict[str, list[dict[str, str]]]:
    """Read the numbers behind the pictures, by entry, one row per state."""
    found: dict[str, list[dict[str, str]]] = {}
    with (FOLDER / "gradient-flow.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["model"], []).append(row)
    return found


def prose(text: str) -> str:
    """Escape plain text for Markdown, except code in backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _reach(flow: dict[str, str]) -> str:
    state, growth = prose(flow["state"]), float(flow["growth"])
    if growth == 0 or flow["growth"] == "nan":
        return f"{state} has no gradient"
    return f"{state} {flow['reach']}, times {growth:.3g} per step back"


def _title(family: str) -> str:
    return (entries.FAMILIES[family].__doc__ or family).partition("\n")[0].rstrip(".")


def _place(info: zoo.ModelInfo) -> str:
    family = next(name for name, infos in families().items() if info in infos)
    return f"{family}.md#{info.name}"


def _layer(info: zoo.ModelInfo) -> str:
    module, _, name = info.layer.partition(":")
    if module.startswith("gradkeeper"):
        return f"[`{module}.{name}`][gradkeeper.zoo.layers.{name}]"
    return f"`{module}.{name}`"


INTRODUCTION = """# Gallery of the zoo

The gallery shows every entry of `gradkeeper.zoo.list_models()` and its gradient through time before
training: ‖∂L/∂h_t‖ at each of 100 time steps, divided by the value at the last step, or by the
largest value if the last one is 0. L is the squared error after the last step on the inputs of the
adding problem. The networks have 64 units and the initialization of the entry. The line is the
median of 16 examples, the band the range from the 5th to the 95th percentile. All pictures have the
same axes. `python docs/_pictures/gallery.py` draws the pictures, and `zoo.model_info(name)` has the
texts.

A gradient that falls from right to left vanishes; a gradient that rises explodes. Training changes
these gradients: see [remedies before and after training](../gradients-through-time.md#remedies)."""
