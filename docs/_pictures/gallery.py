"""Script that draws the gradient flow of the zoo's entries before training, `docs/gallery/*.svg`.

    python docs/_pictures/gallery.py [NAME ...]

Without names, the script draws all entries and writes `gradient-flow.csv`. On the same machine, the
pictures are identical to the byte in every run.
"""

import csv
import io
import re
import sys
from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gradkeeper import zoo
from gradkeeper.callbacks import GradientFlow, gradient_flow
from gradkeeper.callbacks.flow import StateFlow

FOLDER = Path(__file__).resolve().parents[1] / "gallery"
STEPS, UNITS, EXAMPLES = 100, 64, 16
LIMITS = 1e-12, 1e6
COLOURS = "#00796b", "#d84315", "#5e35b1", "#546e7a"


def flow_of(name: str) -> GradientFlow:
    """Measure the gradient flow of an entry on the inputs of the adding problem."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    if "sequence_to_sequence" in zoo.model_info(name).tasks:
        return _flow_of_decoder(name, random)
    model = zoo.create_model(name, input_shape=(STEPS, 2), output_units=1, units=UNITS, seed=0)
    model.compile("sgd", "mse")
    x = random.uniform(size=(EXAMPLES, STEPS, 2)).astype("float32")
    x[..., 1] = x[..., 1] < 2 / STEPS
    return gradient_flow(model, x, np.ones((EXAMPLES, 1), "float32"))


def _flow_of_decoder(name: str, random: np.random.Generator) -> GradientFlow:
    """Measure the gradient flow of an encoder-decoder, for the loss over all of its outputs."""
    model = zoo.create_model(name, input_shape=(STEPS,), output_units=11, units=UNITS, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    source, target, wanted = random.integers(0, 11, (3, EXAMPLES, STEPS))
    return gradient_flow(model, {"source": source, "target": target}, wanted)


def draw(flow: GradientFlow) -> Figure:
    """Draw the median and range of each state's gradient, relative to the last step."""
    figure = Figure(figsize=(3.6, 2.3), layout="constrained")
    axes = figure.subplots()
    shown = [state for state in flow if np.nanmax(state.norms) > 0]
    if len({state.layer for state in shown}) > 1:
        shown = [state for state in shown if state.state == "h"]
    for state, colour in zip(shown, COLOURS, strict=False):
        low, middle, high = state.percentiles((5, 50, 95))
        unit = middle[-1] if middle[-1] > 0 else np.nanmax(middle)
        some = np.arange(1, len(middle), 2)  # includes the last step
        low, middle, high = low[some] / unit, middle[some] / unit, high[some] / unit
        if len(shown) < 4:
            axes.fill_between(some + 1, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(some + 1, middle, color=colour, label=label(flow, state))
    axes.set_yscale("log")
    axes.set(xlim=(1, STEPS + 1), ylim=LIMITS, yticks=[1e-12, 1e-6, 1, 1e6], xlabel="time step")
    axes.minorticks_off()
    axes.axhline(1, color="#999999", linewidth=0.7, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)
    if len(shown) > 1:
        axes.legend(fontsize="small", frameon=False, loc="upper left", ncols=2)
    return figure


def label(flow: GradientFlow, state: StateFlow) -> str:
    """Return the state's name, with its layer if there are several."""
    return state.name if len({each.layer for each in flow}) > 1 else state.state


def save(figure: Figure, path: Path) -> None:
    """Save as SVG, with coordinates rounded to 0.1 points and without line breaks in curves."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"(\d\.\d)\d+", r"\1", file.getvalue())
    path.write_text(re.sub(r" ?\nL ", " ", text), encoding="utf-8")


def main(names: list[str]) -> None:
    """Draw the given entries. If none are given, draw all and write the table."""
    fonts = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana"]}
    mpl.rcParams.update({"svg.hashsalt": "gradkeeper", **fonts})
    FOLDER.mkdir(exist_ok=True)
    rows = []
    for name in names or zoo.list_models():
        flow = flow_of(name)
        save(draw(flow), FOLDER / f"{name}.svg")
        for state in flow:
            rows.append([name, label(flow, state), f"{state.growth:.4g}", state.reach])
            print(*rows[-1])
    if not names:
        with (FOLDER / "gradient-flow.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerows([["model", "state", "growth", "reach"], *rows])


if __name__ == "__main__":
    main(sys.argv[1:])
