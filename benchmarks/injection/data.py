"""Small synthetic data sets: a pool of examples, shuffled in every epoch."""

import numpy as np

from injection.run import BATCH

Data = tuple[np.ndarray, np.ndarray]
_POOL = 20 * BATCH


def regression(random: np.random.Generator, steps: int, noise: float = 0.1) -> Data:
    """Generate a smooth function of eight features."""
    x = random.normal(size=(_POOL, 8)).astype("float32")
    y = np.sin(x @ random.normal(size=(8, 1))) + noise * random.normal(size=(_POOL, 1))
    return epochs(random, steps, x, y.astype("float32"))


def linear(random: np.random.Generator, steps: int) -> Data:
    """Generate a linear function of eight features without noise, so that it can be fit exactly."""
    x = random.normal(size=(_POOL, 8)).astype("float32")
    return epochs(random, steps, x, (x @ random.normal(size=(8, 1))).astype("float32"))


def heavy_tailed(random: np.random.Generator, steps: int) -> Data:
    """Generate a smooth function with noise of Student's t with three degrees of freedom."""
    x = random.normal(size=(_POOL, 8)).astype("float32")
    y = np.tanh(x @ random.normal(size=(8, 1))) + 0.3 * random.standard_t(3, size=(_POOL, 1))
    return epochs(random, steps, x, y.astype("float32"))


def classes(random: np.random.Generator, steps: int, spread: float = 1.0) -> Data:
    """Generate four overlapping clusters in eight dimensions."""
    labels = random.integers(0, 4, _POOL)
    centres = random.normal(size=(4, 8))
    x = centres[labels] + spread * random.normal(size=(_POOL, 8))
    return epochs(random, steps, x.astype("float32"), labels)


def rare_class(random: np.random.Generator, steps: int) -> Data:
    """Generate two clusters; one example in twenty belongs to the second."""
    labels = (random.random((_POOL, 1)) < 0.05).astype("float32")
    x = random.normal(size=(_POOL, 8)) + 1.5 * labels
    return epochs(random, steps, x.astype("float32"), labels)


def images(random: np.random.Generator, steps: int) -> Data:
    """Generate noisy images of 8 by 8 pixels; the label is the bright quadrant."""
    labels = random.integers(0, 4, _POOL)
    x = 0.5 * random.normal(size=(_POOL, 8, 8, 1))
    for quadrant in range(4):
        top, left = 4 * (quadrant // 2), 4 * (quadrant % 2)
        x[labels == quadrant, top : top + 4, left : left + 4] += 1.0
    return epochs(random, steps, x.astype("float32"), labels)


def adding(random: np.random.Generator, steps: int, length: int = 20) -> Data:
    """Generate the sum of the two marked numbers of a sequence (Hochreiter, Schmidhuber 1997)."""
    x = np.stack([random.random((_POOL, length)), np.zeros((_POOL, length))], axis=-1)
    first, second = random.integers(0, length // 2, (2, _POOL))
    second, rows = second + length // 2, np.arange(_POOL)
    x[rows, first, 1] = x[rows, second, 1] = 1.0
    y = x[rows, first, 0] + x[rows, second, 0]
    return epochs(random, steps, x.astype("float32"), y[:, None].astype("float32"))


def waves(random: np.random.Generator, steps: int, length: int = 20) -> Data:
    """Generate noisy sines of four frequencies; the label is the frequency."""
    labels = random.integers(0, 4, _POOL)
    phase = random.uniform(0, 6.28, (_POOL, 1))
    x = np.sin(phase + 0.3 * (1 + labels[:, None]) * np.arange(length))
    x = x[..., None] + 0.2 * random.normal(size=(_POOL, length, 1))
    return epochs(random, steps, x.astype("float32"), labels)


def text(random: np.random.Generator, steps: int, length: int = 15, symbols: int = 12) -> Data:
    """Generate sequences of a Markov chain over a few symbols; targets are one symbol later."""
    chain = random.dirichlet(np.full(symbols, 0.3), size=symbols).cumsum(axis=1)
    tokens = [random.integers(0, symbols, _POOL)]
    for _ in range(length):
        draw = random.random((_POOL, 1))
        tokens.append(np.minimum((draw > chain[tokens[-1]]).sum(axis=1), symbols - 1))
    sequences = np.stack(tokens, axis=1)
    return epochs(random, steps, sequences[:, :-1], sequences[:, 1:])


def batch(step: int) -> slice:
    """Return the rows of a train step."""
    return slice(step * BATCH, (step + 1) * BATCH)


def epochs(random: np.random.Generator, steps: int, x: np.ndarray, y: np.ndarray) -> Data:
    """Repeat the examples in a new order in each epoch, and return the first steps."""
    count = -(-steps * BATCH // _POOL)
    order = np.concatenate([random.permutation(_POOL) for _ in range(count)])[: steps * BATCH]
    return x[order], y[order]
