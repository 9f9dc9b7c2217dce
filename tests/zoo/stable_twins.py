"""Stabilised, dynamical and orthogonal cells as NumPy loops."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def zeros(w):
    return np.zeros(w["recurrent_kernel"].shape[0])


def co_rnn(w, inputs, dt=0.05, gamma=1.0, epsilon=1.0, implicit=False):
    h, c = zeros(w), zeros(w)
    for x in inputs:
        drive = x @ w["kernel"] + h @ w["recurrent_kernel"] + c @ w["velocity_kernel"] + w["bias"]
        new = c + dt * (np.tanh(drive) - gamma * h)
        c = new / (1 + dt * epsilon) if implicit else new - dt * epsilon * c
        h = h + dt * c
        yield h


def lem(w, inputs, dt=1.0, implicit=True):
    h, c = zeros(w), zeros(w)
    for x in inputs:
        sums = x @ w["kernel"] + w["bias"]
        from_state = np.append(h @ w["recurrent_kernel"], np.zeros_like(h))
        one, two, candidate, output = np.split(sums + from_state, 4)
        old = c
        c = c + dt * sigmoid(two) * (np.tanh(candidate) - c)
        seen = (c if implicit else old) @ w["cell_kernel"]
        h = h + dt * sigmoid(one) * (np.tanh(output + seen) - h)
        yield h


def lipschitz_rnn(w, inputs, epsilon=0.03, beta=0.75, gamma=0.001, midpoint=False):
    h = zeros(w)

    def mixed(m):
        return (1 - beta) * (m + m.T) + beta * (m - m.T) - gamma * np.eye(len(m))

    a, r = (mixed(m.T) for m in np.split(w["recurrent_kernel"], 2, axis=1))
    for x in inputs:
        drive = x @ w["kernel"] + w["bias"]
        at = h
        if midpoint:
            at = h + epsilon / 2 * (a @ h + np.tanh(r @ h + drive))
        h = h + epsilon * (a @ at + np.tanh(r @ at + drive))
        yield h


def rhn(w, inputs):
    h = zeros(w)
    kernels = np.split(w["recurrent_kernel"], 2, axis=1)
    for x in inputs:
        added = [x @ w["kernel"] + w["bias"], w["depth_bias"]]
        for kernel, more in zip(kernels, added, strict=True):
            n, t = np.split(h @ kernel + more, 2)
            h = sigmoid(t) * np.tanh(n) + (1 - sigmoid(t)) * h
        yield h


def orthogonal_rnn(w, inputs, scale=1.0):
    h, upper = zeros(w), scale * np.triu(w["recurrent_kernel"], 1)
    values, vectors = np.linalg.eig(upper - upper.T)
    q = (vectors @ np.diag(np.exp(values)) @ np.linalg.inv(vectors)).real
    for x in inputs:
        z = x @ w["kernel"] + q @ h
        h = np.sign(z) * np.maximum(np.abs(z) + w["bias"], 0)
        yield h


def zoneout_lstm(w, inputs):
    """Compute the zoneout LSTM at inference."""
    h, c = zeros(w), zeros(w)
    for x in inputs:
        sums = x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]
        i, f, g, o = np.split(sums, 4)
        new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = 0.05 * h + 0.95 * sigmoid(o) * np.tanh(new)
        c = 0.5 * c + 0.5 * new
        yield h


def zoneout_gru(w, inputs):
    """Compute the zoneout GRU at inference."""
    h = zeros(w)
    for x in inputs:
        given_z, given_r, given_n = np.split(x @ w["kernel"] + w["bias"], 3)
        from_z, from_r, from_n = np.split(h @ w["recurrent_kernel"] + w["recurrent_bias"], 3)
        z, r = sigmoid(given_z + from_z), sigmoid(given_r + from_r)
        new = z * h + (1 - z) * np.tanh(given_n + r * from_n)
        h = 0.1 * h + 0.9 * new
        yield h


TWINS = {
    "CoRNN": co_rnn,
    "LEM": lem,
    "LipschitzRNN": lipschitz_rnn,
    "OrthogonalRNN": orthogonal_rnn,
    "RHN": rhn,
    "ZoneoutGRU": zoneout_gru,
    "ZoneoutLSTM": zoneout_lstm,
}
