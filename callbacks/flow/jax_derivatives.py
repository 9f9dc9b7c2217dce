"""Derivatives of unrolled models and of cells on the JAX backend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.extend.core import ClosedJaxpr, DropVar, Literal, jaxpr_as_fun, jaxprs_in_params

from gradkeeper.callbacks.flow.unrolled import Calls, Layers, Place, cell_step, unrolled

_HIDDEN = (
    "On the JAX backend, a recurrent layer cannot be called inside jax.jit, jax.checkpoint or "
    "jax.vmap, where its states are not accessible. Call it outside. Received: "
    "KERAS_BACKEND=jax with {}"
)


@contextmanager
def unrolled_pass(model: keras.Model, layers: Layers) -> Iterator[Calls]:
    """Unroll the layers' loops inside the block, in which the model's variables do not change."""
    with _stateless(), unrolled(layers, _visible_step) as seen:
        yield seen


def state_gradients(
    model: keras.Model, layers: Layers, compute_loss: Callable[[], jax.Array]
) -> tuple[jax.Array, Calls, dict[str, list[dict[int, list[jax.Array]]]]]:
    """Compute the gradient of a loss with respect to every state; see `derivatives`.

    The gradient of a state is the gradient of zeros that are added to the state.
    """
    with unrolled_pass(model, layers) as seen:
        loss = compute_loss()
    states = {path: [steps.states for steps in calls] for path, calls in seen.items()}

    def shifted_loss(shifts: dict[str, list[dict[int, list[jax.Array]]]]) -> jax.Array:
        compiled: dict[tuple[str, int], Callable] = {}

        def step(
            place: Place, cell: Any, inputs: Any, states: Any, training: bool
        ) -> tuple[Any, list[Any]]:
            path, call, time = place
            if (path, call) not in compiled:
                compiled[path, call] = jax.jit(partial(_shifted_step, cell, training))
            return compiled[path, call](inputs, states, shifts[path][call][time])

        with _stateless(), unrolled(layers, step):
            return compute_loss()

    return loss, seen, jax.grad(shifted_loss)(jax.tree.map(jnp.zeros_like, states))


def jvp(function: Callable) -> Callable:
    """Return the compiled Jacobian-vector product of a function; see `derivatives`."""

    def product(inputs: Any, states: list[Any], vectors: list[Any]) -> list[Any]:
        with _stateless():
            return jax.jvp(partial(function, inputs), (states,), (vectors,))[1]

    return jax.jit(product)


def vjp(function: Callable) -> Callable:
    """Return the compiled vector-Jacobian product of a function; see `derivatives`."""

    def product(inputs: Any, states: list[Any], vectors: list[Any]) -> list[Any]:
        with _stateless():
            return jax.vjp(partial(function, inputs), states)[1](vectors)[0]

    return jax.jit(product)


def _stateless() -> keras.StatelessScope:
    """Return a scope in which no variable changes; losses of layers are collected."""
    return keras.StatelessScope(collect_losses=True)


def _visible_step(place: Place, cell: Any, *arguments: Any) -> tuple[Any, list[Any]]:
    """Run a step without jax.jit, which hides gates; raise RuntimeError if states have no value."""
    with jax.disable_jit():
        result = cell_step(cell, *arguments)
    if any(isinstance(each, jax.core.Tracer) for each in jax.tree.leaves(result)):
        raise RuntimeError(_HIDDEN.format(place[0]))
    return result


def _shifted_step(
    cell: Any, training: bool, inputs: Any, states: Any, shifts: Sequence[jax.Array]
) -> tuple[Any, list[Any]]:
    """Run a step, and add the shifts to its states where they are computed.

    Within the step, the output and other states may be functions of a state: c of an LSTM, for
    example, has a path through h.
    """
    with jax.disable_jit():
        closed, result = jax.make_jaxpr(
            lambda inputs, states: cell_step(cell, inputs, states, training), return_shape=True
        )(inputs, states)
    jaxpr = closed.jaxpr
    first = len(jaxpr.outvars) - len(shifts)
    missing = dict(enumerate(shifts, first))  # by index of the output
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, jax.tree.leaves((inputs, states)), strict=True)
    for equation in jaxpr.eqns:
        used = [each for each in equation.invars if not isinstance(each, Literal)]
        made = [each for each in equation.outvars if not isinstance(each, DropVar)]
        alone = jaxpr.replace(constvars=[], invars=used, outvars=made, eqns=[equation])
        results = jaxpr_as_fun(ClosedJaxpr(alone, ()))(*(values[each] for each in used))
        values |= zip(made, results, strict=True)
        for index in [each for each in missing if jaxpr.outvars[each] in made]:
            if len(made) > 1 and any(jaxprs_in_params(equation.params)):
                raise RuntimeError(_HIDDEN.format(f"the cell {cell.name}"))
            shift = missing.pop(index)
            if equation.primitive.name != "stop_gradient":  # else the gradient is zero
                values[jaxpr.outvars[index]] += shift
    flat = [each.val if isinstance(each, Literal) else values[each] for each in jaxpr.outvars]
    for index, shift in missing.items():  # a state that the step does not change
        flat[index] += shift
    return jax.tree.unflatten(jax.tree.structure(result), flat)
