"""NumPy loops of the time-parallel cells and the cells with exponential gates."""

import numpy as np

UNITS = 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru_twin(w, inputs):
    h = np.zeros(UNITS)
    for x in inputs:
        z, n = np.split(x @ w["kernel"] + w["bias"], 2)
        h = (1 - sigmoid(z)) * h + sigmoid(z) * positive(n)
        yield h


def min_lstm_twin(w, inputs):
    h = np.zeros(UNITS)
    for x in inputs:
        f, i, n = np.split(x @ w["kernel"] + w["bias"], 3)
        f, i = sigmoid(f), sigmoid(i)
        h = (f * h + i * positive(n)) / (f + i)
        yield h


def rg_lru_twin(w, inputs):
    h = np.zeros(UNITS)
    for x in inputs:
        r, i, v = np.split(x @ w["kernel"] + w["bias"], 3)
        a = sigmoid(w["decay"]) ** (8 * sigmoid(r))
        h = a * h + np.sqrt(1 - a**2) * sigmoid(i) * v
        yield h


def lru_twin(w, inputs):
    nu, theta = np.split(w["eigenvalues"], 2)
    eigenvalues = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    real, imaginary, direct = np.split(w["kernel"], 3, axis=1)
    out_real, out_imaginary = np.split(w["output_kernel"], 2)
    s = np.zeros(UNITS, complex)
    for x in inputs:
        s = eigenvalues * s + np.exp(w["gain"]) * (x @ (real + 1j * imaginary))
        output = s @ (out_real - 1j * out_imaginary)
        yield output.real + x @ direct + w["bias"]


def s_lstm_twin(w, inputs):
    """Compute the sLSTM without its stabilizer, which cancels."""
    h, c, n = np.zeros(UNITS), np.zeros(UNITS), np.zeros(UNITS)
    for x in inputs:
        i, f, z, o = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4)
        c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
        n = sigmoid(f) * n + np.exp(i)
        h = sigmoid(o) * c / n
        yield h


TWINS = {
    "LRU": lru_twin,
    "MinGRU": min_gru_twin,
    "MinLSTM": min_lstm_twin,
    "RGLRU": rg_lru_twin,
    "SLSTM": s_lstm_twin,
}
