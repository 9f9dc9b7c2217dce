"""NumPy network of two layers with five optimizers, recorded as windows of steps."""

from collections.abc import Callable

import numpy as np

from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window

VARIABLES = ("body/kernel", "body/bias", "head/kernel", "head/bias")
Update = Callable[[np.ndarray, dict[str, np.ndarray], int], np.ndarray]


def _sgd(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    return gradient


def _momentum(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    state["m"] = 0.9 * state.get("m", 0.0) + gradient
    return state["m"]


def _adam(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * gradient**2
    mean, square = state["m"] / (1 - 0.9**step), state["v"] / (1 - 0.999**step)
    return mean / (np.sqrt(square) + 1e-7)


def _rmsprop(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    state["v"] = 0.9 * state.get("v", 0.0) + 0.1 * gradient**2
    return gradient / np.sqrt(state["v"] + 1e-7)


def _lion(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    before = state.get("m", np.zeros_like(gradient))
    state["m"] = 0.99 * before + 0.01 * gradient
    return np.sign(0.9 * before + 0.1 * gradient)


OPTIMIZERS: dict[str, Update] = {
    "SGD": _sgd,
    "SGD, momentum": _momentum,
    "Adam": _adam,
    "RMSprop": _rmsprop,
    "Lion": _lion,
}


def trained(
    optimizer: str,
    learning_rate: float,
    *,
    inputs: float = 1.0,
    targets: float = 1.0,
    sums: bool = False,
    steps: int = 300,
    batch: int = 32,
    clip: float | None = None,
    seed: int = 0,
) -> Window:
    """Return the record of a regression with a squared error.

    Args:
        optimizer: a name in `OPTIMIZERS`.
        learning_rate: its learning rate.
        inputs: standard deviation of the inputs.
        targets: standard deviation of the targets.
        sums: whether the loss is the sum over the batch instead of the mean.
        steps: how many train steps.
        batch: examples in a batch.
        clip: limit of the global norm; None without.
        seed: of weights and data.
    """
    random = np.random.default_rng(seed)
    x = inputs * random.normal(size=(20 * batch, 5))
    y = targets * (x @ random.normal(size=(5, 1)) / inputs + 0.1 * random.normal(size=(len(x), 1)))
    weights = [random.normal(size=(5, 8)) * 0.6, np.zeros(8), random.normal(size=(8, 1)) * 0.5]
    weights.append(np.zeros(1))
    states: list[dict[str, np.ndarray]] = [{} for _ in weights]
    norms, losses, totals = [], [], []
    for step in range(steps):
        rows = slice(step % 20 * batch, (step % 20 + 1) * batch)
        with np.errstate(over="ignore", invalid="ignore"):
            loss, gradients = _gradients(weights, x[rows], y[rows], sums)
            norms.append([np.linalg.norm(each) for each in gradients])
            losses.append(loss)
            total = float(np.linalg.norm(norms[-1]))
            totals.append(total)
            shrink = 1.0 if clip is None or total <= clip else clip / total
            for weight, gradient, state in zip(weights, gradients, states, strict=True):
                update = OPTIMIZERS[optimizer](shrink * gradient, state, step + 1)
                weight -= learning_rate * update
    scalars = {
        "loss": np.array(losses),
        "clip_limit": np.full(steps, np.nan if clip is None else clip),
        "learning_rate": np.full(steps, learning_rate),
    }
    shrink = np.ones(steps) if clip is None else np.minimum(1.0, clip / np.array(totals))
    return _window(np.array(norms), shrink, scalars, optimizer)


def _gradients(
    weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, sums: bool
) -> tuple[float, list[np.ndarray]]:
    kernel, bias, head, offset = weights
    before = x @ kernel + bias
    hidden = np.where(before > 0, before, 0.1 * before)
    error = hidden @ head + offset - y
    share = 1.0 if sums else 1.0 / len(x)
    slope = 2 * share * error
    back = (slope @ head.T) * np.where(before > 0, 1.0, 0.1)
    gradients = [x.T @ back, back.sum(axis=0), hidden.T @ slope, slope.sum(axis=0)]
    return float(share * np.sum(error**2)), gradients


def _window(
    norms: np.ndarray, shrink: np.ndarray, scalars: dict[str, np.ndarray], optimizer: str
) -> Window:
    there = np.ones(norms.shape, bool)
    shapes = dict(zip(VARIABLES, [(5, 8), (8,), (8, 1), (1,)], strict=True))
    name = optimizer.partition(",")[0]
    return Window(
        np.arange(len(norms)),
        VARIABLES,
        there,
        there.copy(),
        {
            "norm": norms,
            "applied_norm": norms * shrink[:, None],
            "nonfinite": (~np.isfinite(norms)).astype(np.float32),
        },
        scalars,
        facts=RunFacts(optimizers=(name,), is_adaptive=name != "SGD", shapes=shapes, has_loss=True),
    )
