"""Formatting of a run's numbers."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from gradkeeper.training.experiment.config import CLIPS
from gradkeeper.training.experiment.result import Result

LOSS, BASELINE, TIME, HALF_LIFE = "validation loss", "baseline", "time per step", "half-life"
_HEADINGS = (LOSS, BASELINE, "max norm", "clipped", "weights", TIME)


def headings(results: Iterable[Result]) -> list[str]:
    """Return the column headings of a table of runs, after the column with the names.

    The half-life is included if any run has records of its gradient through time.
    """
    recorded = any(result.reach is not None for result in results)
    return [*_HEADINGS, *([HALF_LIFE] if recorded else []), "findings"]


def cells(result: Result) -> dict[str, str]:
    """Return a run's table cells by heading."""
    return {
        LOSS: number(result.final_loss),
        BASELINE: "–" if result.baseline is None else number(result.baseline),
        "max norm": largest_norm(result),
        "clipped": f"{100 * result.clip_fraction:.0f} %",
        "weights": f"{result.parameters:,}",
        TIME: time_per_step(result),
        HALF_LIFE: half_life(result),
        "findings": findings(result),
    }


def number(value: float) -> str:
    """Format a number with three significant digits, or as NaN."""
    return "NaN" if math.isnan(value) else f"{value:.3g}"


def largest_norm(result: Result) -> str:
    """Format the largest finite norm; append "→ NaN" if a gradient was not finite."""
    largest = "" if math.isnan(result.largest_norm) else f"{result.largest_norm:.3g}"
    return largest if result.nonfinite_step is None else f"{largest} → NaN".strip()


def time_per_step(result: Result) -> str:
    """Format the time per train step in milliseconds."""
    seconds = result.time_per_step
    return "–" if math.isnan(seconds) else f"{1000 * seconds:.1f} ms"


def half_life(result: Result) -> str:
    """Format the half-life in time steps; ∞ if the gradient does not fall back in time."""
    if result.reach is None:
        return "–"
    steps = result.reach.half_life
    return "∞" if math.isinf(steps) else number(steps)


def findings(result: Result) -> str:
    """List the rules with a finding, each once with its first step."""
    first: dict[str, int] = {}
    for finding in result.findings:
        first.setdefault(finding.rule, finding.step)
    return ", ".join(f"{rule} at {step:,}" for rule, step in first.items()) or "none"


def clipping(config: Mapping[str, Any]) -> str:
    """Return the clip argument, such as "global_clipnorm=1"; "none" without one."""
    given = [name for name in CLIPS if config.get(name) is not None]
    return ", ".join(f"{name}={config[name]:g}" for name in given) or "none"


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's training settings by heading."""
    layers = f"{config['num_layers']} × " if config["num_layers"] > 1 else ""
    rate = f"{config['learning_rate']:g}"
    return {
        "model": config["model"] + listed(config["model_options"]),
        "units": f"{layers}{config['units']}",
        "optimizer": config["optimizer"] + listed(config["optimizer_options"]),
        "learning rate": rate + (f", {config['schedule']}" if config["schedule"] else ""),
        "clipping": clipping(config),
        "batch size": f"{config['batch_size']:,}",
        "epochs": f"{config['epochs']:,}",
        "seed": str(config["seed"]),
        "data": config["task"] + listed(config["task_options"]),
    }


def listed(options: Mapping[str, object]) -> str:
    """Format options to follow a name, such as ", length=100"."""
    return "".join(f", {name}={value}" for name, value in options.items())
