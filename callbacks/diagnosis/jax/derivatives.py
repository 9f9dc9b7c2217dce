"""A primitive for `jax.value_and_grad`, so that a trace of the step contains no derivatives."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any
from unittest import mock

import jax
import keras
from jax.extend.core import Primitive

from gradkeeper.callbacks.diagnosis.jax.values import is_array

# Parameters: `jaxpr`, the function, whose first result is differentiated; `wrt`, the positions of
# the inputs with respect to which it is; `loss`, the position of the result that is the loss.
# Results: those of the function, and the gradients.
VALUE_AND_GRAD = Primitive("value_and_grad")
VALUE_AND_GRAD.multiple_results = True


@VALUE_AND_GRAD.def_abstract_eval
def _abstract(*inputs: Any, jaxpr: Any, wrt: Sequence[int], loss: int) -> list[Any]:
    return [*(each.aval for each in jaxpr.outvars), *(inputs[n].strip_weak_type() for n in wrt)]


@contextmanager
def traced_whole(model: keras.Model) -> Iterator[None]:
    """Trace calls of `jax.value_and_grad` and `jax.grad` as one equation inside the block.

    JAX differentiates a call inside another one, and calls with options other than `argnums` and
    `has_aux`.

    Args:
        model: the model, whose `compute_loss_and_updates` returns the loss without loss scale.
    """
    original, original_grad, thread = jax.value_and_grad, jax.grad, get_ident()
    depth = 0

    def value_and_grad(function: Callable, *args: Any, **options: Any) -> Callable:
        by_jax = original(function, *args, **options)
        argnums, has_aux, is_plain = _options(*args, **options)

        def computed(*inputs: Any, **named: Any) -> Any:
            nonlocal depth
            if depth or get_ident() != thread or not is_plain:
                return by_jax(*inputs, **named)
            depth += 1
            try:
                is_of_keras = function == model.compute_loss_and_updates
                return _bound(function, argnums, has_aux, is_of_keras, inputs, named)
            finally:
                depth -= 1

        return computed

    def grad(function: Callable, *args: Any, **options: Any) -> Callable:
        by_jax = original_grad(function, *args, **options)
        _, has_aux, is_plain = _options(*args, **options)
        both = value_and_grad(function, *args, **options)

        def computed(*inputs: Any, **named: Any) -> Any:
            if depth or get_ident() != thread or not is_plain:
                return by_jax(*inputs, **named)
            value, gradients = both(*inputs, **named)
            return (gradients, value[1]) if has_aux else gradients

        return computed

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(jax, "value_and_grad", value_and_grad))
        stack.enter_context(mock.patch.object(jax, "grad", grad))
        yield


def _options(
    argnums: int | Sequence[int] = 0, has_aux: bool = False, **others: Any
) -> tuple[int | Sequence[int], bool, bool]:
    return argnums, has_aux, not any(others.values())


def _bound(
    function: Callable,
    argnums: int | Sequence[int],
    has_aux: bool,
    is_of_keras: bool,
    inputs: tuple[Any, ...],
    named: dict[str, Any],
) -> Any:
    """Return the value and the gradients of a function, as results of the primitive."""
    leaves, structure = jax.tree.flatten((inputs, named))
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    chosen = {n % len(inputs) for n in numbers}
    of_input = [
        n in chosen for n, each in enumerate(inputs) for _ in range(len(jax.tree.leaves(each)))
    ]
    of_input += [False] * (len(leaves) - len(of_input))
    dynamic = [n for n, each in enumerate(leaves) if of_input[n] or is_array(each)]
    returned: list[Any] = []

    def flat(arrays: list[Any]) -> list[Any]:
        every = list(leaves)
        for n, array in zip(dynamic, arrays, strict=True):
            every[n] = array
        args, options = jax.tree.unflatten(structure, every)
        results, form = jax.tree.flatten(function(*args, **options))
        returned[:] = [results, form]
        return [each for each in results if is_array(each)]

    closed = jax.make_jaxpr(flat)([leaves[n] for n in dynamic])
    results, form = returned
    wrt = tuple(len(closed.consts) + k for k, n in enumerate(dynamic) if of_input[n])
    found = VALUE_AND_GRAD.bind(
        *closed.consts,
        *(leaves[n] for n in dynamic),
        jaxpr=closed.jaxpr,
        wrt=wrt,
        loss=1 if is_of_keras and is_array(results[1]) else 0,
    )
    arrays = iter(found)
    value = jax.tree.unflatten(form, [next(arrays) if is_array(each) else each for each in results])
    every = dict(zip([n for n in dynamic if of_input[n]], arrays, strict=True))
    args, _ = jax.tree.unflatten(structure, [every.get(n) for n in range(len(leaves))])
    gradients = tuple(args[n] for n in numbers)
    return value, gradients[0] if isinstance(argnums, int) else gradients
