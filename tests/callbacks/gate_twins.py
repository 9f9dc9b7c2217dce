"""Steps of the gated cells in NumPy, written from their equations.

Each step takes the weights by name, x_t [features] and the states, and returns the gates by name,
the weights of the states' old values by state, and the states after the step.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def ln(x, gain):
    return gain * (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def sums(w, x, h):
    return x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]


def lstm(w, x, states):
    h, c = states
    return _lstm(sums(w, x, h), c)


def _lstm(all_sums, c, see=(0, 0, 0)):
    i, f, n, o = np.split(all_sums, 4)
    i, f = sigmoid(i + see[0] * c), sigmoid(f + see[1] * c)
    c = f * c + i * np.tanh(n)
    o = sigmoid(o + see[2] * c)
    return {"i": i, "f": f, "o": o}, {"c": f}, [o * np.tanh(c), c]


def gru(w, x, states, reset_after=True):
    (h,) = states
    given, from_h = x @ w["kernel"], h @ w["recurrent_kernel"]
    if reset_after:
        given, from_h = given + w["bias"][0], from_h + w["bias"][1]
    else:
        given = given + w["bias"]
    given_z, given_r, given_n = np.split(given, 3)
    from_z, from_r, from_n = np.split(from_h, 3)
    z, r = sigmoid(given_z + from_z), sigmoid(given_r + from_r)
    if not reset_after:
        from_n = (r * h) @ np.split(w["recurrent_kernel"], 3, axis=1)[2]
    n = np.tanh(given_n + (r * from_n if reset_after else from_n))
    return {"z": z, "r": r}, {"h": z}, [z * h + (1 - z) * n]


def gru_before(w, x, states):
    return gru(w, x, states, reset_after=False)


def atr(w, x, states):
    (h,) = states
    p, q = x @ w["kernel"] + w["bias"], h @ w["recurrent_kernel"] + w["recurrent_bias"]
    i, f = sigmoid(p + q), sigmoid(p - q)
    return {"i": i, "f": f}, {"h": f}, [i * p + f * h]


def cfn(w, x, states):
    (h,) = states
    f, i, n = np.split(x @ w["kernel"], 3)
    f, i = np.split(sigmoid(np.append(f, i) + h @ w["recurrent_kernel"] + w["bias"]), 2)
    return {"f": f, "i": i}, {"h": f}, [f * np.tanh(h) + i * np.tanh(n)]


def coupled_lstm(w, x, states):
    h, c = states
    see_f, see_o = np.split(w["peephole_kernel"], 2)
    f, n, o = np.split(sums(w, x, h), 3)
    f = sigmoid(f + see_f * c)
    c = f * c + (1 - f) * np.tanh(n)
    o = sigmoid(o + see_o * c)
    return {"f": f, "o": o}, {"c": f}, [o * np.tanh(c), c]


def fast_grnn(w, x, states):
    (h,) = states
    both = x @ w["kernel"] + h @ w["recurrent_kernel"]
    bias_z, bias_n = np.split(w["bias"], 2)
    z, n = sigmoid(both + bias_z), np.tanh(both + bias_n)
    h = (sigmoid(w["zeta"]) * (1 - z) + sigmoid(w["nu"])) * n + z * h
    return {"z": z}, {"h": z}, [h]


def gated_antisymmetric_rnn(w, x, states):
    (h,) = states
    kernel = w["recurrent_kernel"] - w["recurrent_kernel"].T - 0.01 * np.eye(len(h))
    z, n = np.split(x @ w["kernel"] + w["bias"], 2)
    z = sigmoid(z + h @ kernel)
    return {"z": z}, {"h": np.ones_like(z)}, [h + 0.01 * z * np.tanh(n + h @ kernel)]


def janet(w, x, states):
    (h,) = states
    s, n = np.split(sums(w, x, h), 2)
    f, i = sigmoid(s), 1 - sigmoid(s - 1)
    return {"f": f, "i": i}, {"h": f}, [f * h + i * np.tanh(n)]


def lem(w, x, states, dt=0.5):
    h, c = states
    given = np.split(x @ w["kernel"] + w["bias"], 4)
    one, two, n = np.split(h @ w["recurrent_kernel"], 3)
    d1, d2 = dt * sigmoid(given[0] + one), dt * sigmoid(given[1] + two)
    c = (1 - d2) * c + d2 * np.tanh(given[2] + n)
    h = (1 - d1) * h + d1 * np.tanh(given[3] + c @ w["cell_kernel"])
    return {"d1": d1, "d2": d2}, {"h": 1 - d1, "c": 1 - d2}, [h, c]


def layer_norm_gru(w, x, states):
    (h,) = states
    split = 2 * len(h)
    x_gates, x_n = np.split(x @ w["kernel"], [split])
    h_gates, h_n = np.split(h @ w["recurrent_kernel"], [split])
    x_gain, h_gain, bias = w["input_gain"], w["recurrent_gain"], w["bias"]
    gates = ln(h_gates, h_gain[:split]) + ln(x_gates, x_gain[:split]) + bias[:split]
    z, r = np.split(sigmoid(gates), 2)
    n = r * (ln(h_n, h_gain[split:]) + w["recurrent_bias"])
    n = np.tanh(ln(x_n, x_gain[split:]) + bias[split:] + n)
    return {"z": z, "r": r}, {"h": 1 - z}, [(1 - z) * h + z * n]


def layer_norm_lstm(w, x, states):
    h, c = states
    normalized = ln(h @ w["recurrent_kernel"], w["recurrent_gain"])
    gates, carry, (_, c) = _lstm(normalized + ln(x @ w["kernel"], w["input_gain"]) + w["bias"], c)
    return gates, carry, [gates["o"] * np.tanh(ln(c, w["state_gain"]) + w["state_bias"]), c]


def li_gru(w, x, states):
    (h,) = states
    z, n = np.split(sums(w, x, h), 2)
    z = sigmoid(z)
    return {"z": z}, {"h": z}, [z * h + (1 - z) * np.maximum(n, 0)]


def mgu(w, x, states):
    (h,) = states
    given_f, given_n = np.split(x @ w["kernel"] + w["bias"], 2)
    kernel_f, kernel_n = np.split(w["recurrent_kernel"], 2, axis=1)
    f = sigmoid(given_f + h @ kernel_f)
    return {"f": f}, {"h": 1 - f}, [(1 - f) * h + f * np.tanh(given_n + (f * h) @ kernel_n)]


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru(w, x, states):
    (h,) = states
    z, n = np.split(x @ w["kernel"] + w["bias"], 2)
    z = sigmoid(z)
    return {"z": z}, {"h": 1 - z}, [(1 - z) * h + z * positive(n)]


def min_lstm(w, x, states):
    (h,) = states
    f, i, n = np.split(x @ w["kernel"] + w["bias"], 3)
    f, i = sigmoid(f), sigmoid(i)
    f, i = f / (f + i), i / (f + i)
    return {"f / (f + i)": f, "i / (f + i)": i}, {"h": f}, [f * h + i * positive(n)]


def minimal_rnn(w, x, states):
    (h,) = states
    z = np.tanh(x @ w["kernel"] + w["bias"])
    u = sigmoid(h @ w["recurrent_kernel"] + z @ w["gate_kernel"] + w["gate_bias"])
    return {"u": u}, {"h": u}, [u * h + (1 - u) * z]


def multiplicative_lstm(w, x, states):
    h, c = states
    m, *given = np.split(x @ w["kernel"], 5)
    m = m * (h @ w["recurrent_kernel"])
    return _lstm(np.concatenate(given) + m @ w["multiplicative_kernel"] + w["bias"], c)


def original_lstm(w, x, states):
    h, c = states
    i, n, o = np.split(sums(w, x, h), 3)
    i, o = sigmoid(i), sigmoid(o)
    c = c + i * np.tanh(n)
    return {"i": i, "o": o}, {"c": np.ones_like(c)}, [o * np.tanh(c), c]


def peephole_lstm(w, x, states):
    h, c = states
    return _lstm(sums(w, x, h), c, np.split(w["peephole_kernel"], 3))


def ran(w, x, states):
    h, c = states
    n, *given = np.split(x @ w["kernel"], 3)
    i, f = np.split(sigmoid(np.concatenate(given) + h @ w["recurrent_kernel"] + w["bias"]), 2)
    c = i * n + f * c
    return {"i": i, "f": f}, {"c": f}, [np.tanh(c), c]


def rg_lru(w, x, states):
    (h,) = states
    r, i, v = np.split(x @ w["kernel"] + w["bias"], 3)
    r, i = sigmoid(r), sigmoid(i)
    a = sigmoid(w["decay"]) ** (8 * r)
    return {"r": r, "i": i, "a": a}, {"h": a}, [a * h + np.sqrt(1 - a**2) * i * v]


def rhn(w, x, states):
    (h,) = states
    added, gates, carry = [x @ w["kernel"] + w["bias"], w["depth_bias"]], {}, 1.0
    for layer, kernel in enumerate(np.split(w["recurrent_kernel"], 2, axis=1)):
        n, t = np.split(h @ kernel + added[layer], 2)
        t = gates[f"t_{layer + 1}"] = sigmoid(t)
        h = t * np.tanh(n) + (1 - t) * h
        carry = carry * (1 - t)
    return gates, {"h": carry}, [h]


def s_lstm(w, x, states):
    """Compute a step without the stabilizer m, which cancels in c / n."""
    h, c, n, _ = states
    i, f, z, o = np.split(sums(w, x, h), 4)
    kept, o = sigmoid(f) * n, sigmoid(o)
    c, n = sigmoid(f) * c + np.exp(i) * np.tanh(z), kept + np.exp(i)
    return {"a / n": np.exp(i) / n, "o": o}, {"c / n": kept / n}, [o * c / n, c, n, n]


def star(w, x, states, beta=0.7):
    (h,) = states
    z, s = np.split(x @ w["kernel"] + w["bias"], 2)
    s = s + h @ w["recurrent_kernel"]
    k, i = sigmoid(s), sigmoid(s + beta)
    return {"k": k, "i": i}, {"h": 1 - k}, [np.tanh((1 - k) * h + i * np.tanh(z))]


def ugrnn(w, x, states):
    (h,) = states
    n, z = np.split(sums(w, x, h), 2)
    z = sigmoid(z)
    return {"z": z}, {"h": z}, [z * h + (1 - z) * np.tanh(n)]


def zoneout_gru(w, x, states, rate=0.1):
    (h,) = states
    both = {**w, "bias": np.stack([w["bias"], w["recurrent_bias"]])}
    gates, _, (new,) = gru(both, x, states)
    return gates, {"h": rate + (1 - rate) * gates["z"]}, [rate * h + (1 - rate) * new]


def zoneout_lstm(w, x, states, rate=0.05, cell_rate=0.5):
    h, c = states
    gates, _, (new_h, new_c) = lstm(w, x, states)
    after = [rate * h + (1 - rate) * new_h, cell_rate * c + (1 - cell_rate) * new_c]
    return gates, {"c": cell_rate + (1 - cell_rate) * gates["f"]}, after


# For each zoo layer with gates: the step, and options of the layer.
TWINS = {
    "ATR": (atr, {}),
    "CFN": (cfn, {}),
    "CoupledLSTM": (coupled_lstm, {}),
    "FastGRNN": (fast_grnn, {}),
    "GatedAntisymmetricRNN": (gated_antisymmetric_rnn, {}),
    "JANET": (janet, {}),
    "LEM": (lem, {"step_size": 0.5}),
    "LayerNormGRU": (layer_norm_gru, {}),
    "LayerNormLSTM": (layer_norm_lstm, {}),
    "LiGRU": (li_gru, {}),
    "MGU": (mgu, {}),
    "MinGRU": (min_gru, {}),
    "MinLSTM": (min_lstm, {}),
    "MinimalRNN": (minimal_rnn, {}),
    "MultiplicativeLSTM": (multiplicative_lstm, {}),
    "OriginalLSTM": (original_lstm, {}),
    "PeepholeLSTM": (peephole_lstm, {}),
    "RAN": (ran, {}),
    "RGLRU": (rg_lru, {}),
    "RHN": (rhn, {}),
    "SLSTM": (s_lstm, {}),
    "STAR": (star, {"beta": 0.7}),
    "UGRNN": (ugrnn, {}),
    "ZoneoutGRU": (zoneout_gru, {}),
    "ZoneoutLSTM": (zoneout_lstm, {}),
}
