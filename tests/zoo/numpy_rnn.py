"""Simple recurrent network in NumPy and float64: forward pass, BPTT and RTRL.

Column convention: inputs are [features, batch], states [units, batch], and a sequence has its
time steps on the last axis.
"""

from typing import NamedTuple

import numpy as np


class Weights(NamedTuple):
    """Weights of a_t = tanh(Wax x_t + Waa a_{t-1} + ba), or gradients with respect to them.

    Attributes:
        Wax: [units, features].
        Waa: [units, units].
        ba: [units, 1].
    """

    Wax: np.ndarray
    Waa: np.ndarray
    ba: np.ndarray


class Gradients(NamedTuple):
    """Gradients of a loss; `x` is None if they were computed forward in time."""

    weights: Weights
    a_prev: np.ndarray
    x: np.ndarray | None = None


def step(weights: Weights, x: np.ndarray, a_prev: np.ndarray) -> np.ndarray:
    """Return the state after one time step."""
    return np.tanh(weights.Wax @ x + weights.Waa @ a_prev + weights.ba)


def step_backward(
    weights: Weights, x: np.ndarray, a_prev: np.ndarray, a_next: np.ndarray, da_next: np.ndarray
) -> Gradients:
    """Return the gradients of one time step, given the gradient of the state after it."""
    dtanh = (1 - a_next**2) * da_next
    of_weights = Weights(dtanh @ x.T, dtanh @ a_prev.T, dtanh.sum(axis=1, keepdims=True))
    return Gradients(of_weights, weights.Waa.T @ dtanh, weights.Wax.T @ dtanh)


def forward(weights: Weights, x: np.ndarray, a0: np.ndarray) -> np.ndarray:
    """Return the states after all time steps, [units, batch, time]."""
    states = [a0]
    for t in range(x.shape[-1]):
        states.append(step(weights, x[..., t], states[-1]))
    return np.stack(states[1:], axis=-1)


def bptt(weights: Weights, x: np.ndarray, a0: np.ndarray, da: np.ndarray) -> Gradients:
    """Return the gradients by back-propagation through time.

    P. Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of the
    IEEE 78(10), 1990.

    Args:
        da: the loss's direct gradient with respect to each state, [units, batch, time].
    """
    a = forward(weights, x, a0)
    dx, total = np.zeros_like(x), Weights(*map(np.zeros_like, weights))
    da_prev = np.zeros_like(a0)
    for t in reversed(range(x.shape[-1])):
        before = a[..., t - 1] if t else a0
        of_step = step_backward(weights, x[..., t], before, a[..., t], da[..., t] + da_prev)
        total = Weights(*map(np.add, total, of_step.weights))
        da_prev, dx[..., t] = of_step.a_prev, of_step.x
    return Gradients(total, da_prev, dx)


def rtrl(weights: Weights, x: np.ndarray, a0: np.ndarray, da: np.ndarray) -> Gradients:
    """Return the gradients by real-time recurrent learning: forward, without stored states.

    R. Williams and D. Zipser, "A learning algorithm for continually running fully recurrent
    neural networks", Neural Computation 1(2), 1989. The sensitivities P_t = da_t/dw follow

        P_t = diag(1 - a_t²) (Waa P_{t-1} + ∂z_t/∂w),  z_t = Wax x_t + Waa a_{t-1} + ba

    and the loss's gradient is the sum of da_t P_t over time.

    Args:
        da: the loss's direct gradient with respect to each state, [units, batch, time].
    """
    a = a0
    units, batch = a0.shape
    # dz_k/dw is the input of the weight in row k of its matrix: x, a_{t-1} or 1.
    row = np.eye(units)[:, :, np.newaxis, np.newaxis]
    of_weights = np.zeros((units, units, x.shape[0] + units + 1, batch))
    of_a0 = np.broadcast_to(np.eye(units)[:, :, np.newaxis], (units, units, batch))
    total, da0 = np.zeros(of_weights.shape[1:3]), np.zeros_like(a0)
    for t in range(x.shape[-1]):
        given = np.concatenate([x[..., t], a, np.ones((1, batch))])
        a = step(weights, x[..., t], a)
        slope = 1 - a**2
        carried = np.einsum("kl,lrwb->krwb", weights.Waa, of_weights)
        of_weights = slope[:, np.newaxis, np.newaxis] * (carried + row * given)
        of_a0 = slope[:, np.newaxis] * np.einsum("kl,lrb->krb", weights.Waa, of_a0)
        total += np.einsum("kb,krwb->rw", da[..., t], of_weights)
        da0 += np.einsum("kb,krb->rb", da[..., t], of_a0)
    return Gradients(Weights(*np.split(total, [x.shape[0], x.shape[0] + units], axis=1)), da0)
