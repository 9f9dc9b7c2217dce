"""Evaluation of a traced train step, operation by operation, with its gradients.

JAX's own gradients are not used: after them, a primitive such as a division cannot be assigned to
the operation whose gradient contains it. The recorder evaluates the forward pass and then, from
the last operation to the first, the derivative of each one, which JAX provides.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from gradkeeper.callbacks.diagnosis.jax.derivatives import VALUE_AND_GRAD
from gradkeeper.callbacks.diagnosis.jax.equations import (
    CUSTOM,
    called,
    closed,
    evaluate,
    is_transposed,
    kind_of,
    layers_of,
    marked,
    stack_of,
)
from gradkeeper.callbacks.diagnosis.jax.moves import moved
from gradkeeper.callbacks.diagnosis.jax.tape import Context, Node, Pullback
from gradkeeper.callbacks.diagnosis.jax.values import Value, arrays_in
from gradkeeper.callbacks.diagnosis.operations import (
    Operation,
    OperationTrace,
    any_nan,
    arrays_of,
    range_of,
)
from gradkeeper.callbacks.diagnosis.source import Source, optimizer_part, source_of


class Recorder(OperationTrace):
    """Operations of a traced train step.

    Args:
        paths: paths of the layers, by the number in the name of their scope.
        on_mark: called with event, number and arrays of each mark in the trace.

    Attributes:
        losses: the differentiated values. Of a train step of Keras, the losses without loss scale.
    """

    def __init__(
        self, paths: Sequence[str], on_mark: Callable[[str, int, list[Value]], None]
    ) -> None:
        super().__init__()
        self.losses: list[Value] = []
        self._paths, self._on_mark = paths, on_mark
        self._constants: dict[int, Value] = {}
        self._calls: dict[int, tuple[Any, ...]] = {}
        self._pullbacks: dict[Any, Pullback] = {}

    def change(self, variable: int, contents: Value) -> None:
        """Record the contents of a variable after the step."""
        self._contents[variable] = contents.key

    def constant(self, array: Any) -> Value:
        """Return a constant of the trace. The same array always has the same key."""
        if id(array) not in self._constants:
            self._constants[id(array)] = Value.of(array)
        return self._constants[id(array)]

    def run(
        self, jaxpr: ClosedJaxpr, inputs: Sequence[Value], context: Context | None = None
    ) -> list[Value]:
        """Evaluate a jaxpr and return its results."""
        context = context or Context()
        known = dict(zip(jaxpr.jaxpr.constvars, map(self.constant, jaxpr.consts), strict=True))
        known |= zip(jaxpr.jaxpr.invars, inputs, strict=True)

        def read(variable: Any) -> Value:
            if isinstance(variable, Literal):
                return Value.of(jnp.asarray(variable.val, variable.aval.dtype))
            return known[variable]

        for equation in jaxpr.jaxpr.eqns:
            results = self._results(equation, list(map(read, equation.invars)), context)
            known |= zip(equation.outvars, results, strict=True)
        return list(map(read, jaxpr.jaxpr.outvars))

    def _results(self, equation: Any, inputs: list[Value], context: Context) -> list[Value]:
        name = equation.primitive.name
        if name == "optimization_barrier":
            if (event := marked(equation)) is not None:
                self._on_mark(*event, inputs)
            return inputs
        if equation.primitive is VALUE_AND_GRAD:
            return self._value_and_gradients(equation, inputs)
        inside = replace(
            context,
            layers=self._layers(equation, context),
            calls=(equation, *context.calls),
        )
        if name == "cond":
            branch = equation.params["branches"][int(inputs[0].array)]
            return self.run(closed(branch), inputs[1:], inside)
        # In a loop under `jax.vmap`, each example has its own condition.
        if name == "while" and not equation.params["cond_jaxpr"].out_avals[0].shape:
            return self._loop(equation, inputs, inside)
        if (jaxpr := called(equation)) is not None and name in CUSTOM:
            results = self.run(jaxpr, inputs, replace(inside, tape=None))
            results = self._renamed(results, inputs, inside)
        elif jaxpr is not None:
            return self.run(jaxpr, inputs, inside)
        else:
            results = self._unit(equation, inputs, inside)
        if context.tape is not None:
            context.tape.append(Node(equation, inputs, results))
        return results

    def _loop(self, equation: Any, inputs: list[Value], context: Context) -> list[Value]:
        condition, body = (closed(equation.params[f"{x}_jaxpr"]) for x in ("cond", "body"))
        first = equation.params["cond_nconsts"]
        second = first + equation.params["body_nconsts"]
        tested, fixed, carry = inputs[:first], inputs[first:second], inputs[second:]
        while bool(self.run(condition, [*tested, *carry], context)[0].array):
            carry = self.run(body, [*fixed, *carry], context)
        return carry

    def _renamed(self, results: list[Value], inputs: list[Value], context: Context) -> list[Value]:
        """Return the results, with a new key for each that is an input or another result."""
        taken = {each.key for each in inputs}
        found = []
        for each in results:
            result = each
            if each.key in taken:
                result = Value.of(each.array)
                self._record([each], [result], context, kind="Identity")
            taken.add(result.key)
            found.append(result)
        return found

    def _unit(self, equation: Any, inputs: list[Value], context: Context) -> list[Value]:
        node = context.node
        if node is not None and node.computes(equation, inputs):
            return node.outputs
        arrays = arrays_in(inputs)
        result = moved(equation, arrays)
        found = evaluate(equation, arrays) if result is None else [jnp.asarray(result)]
        results = list(map(Value.of, found))
        self._record(inputs, results, context)
        return results

    def _layers(self, equation: Any, context: Context) -> tuple[str, ...]:
        own = tuple(self._paths[each] for each in layers_of(equation))
        return own or context.layers

    def _record(
        self,
        inputs: list[Value],
        outputs: list[Value],
        context: Context,
        *,
        kind: str | None = None,
    ) -> None:
        equation = context.calls[0]
        numbers = arrays_of(outputs)
        node = context.node
        forward = None if node is None else self.maker_of(node.outputs[0].key)
        is_custom = node is not None and node.equation.primitive.name in CUSTOM
        operation = Operation(
            number=len(self.operations),
            kind=kind or kind_of(equation),
            inputs=[each.key for each in inputs],
            outputs=[each.key for each in outputs],
            layers=() if node is not None else context.layers,
            source=None,
            is_backward=node is not None or is_transposed(equation),
            gradient_of=None if is_custom else forward,
            own_gradient_of=forward if is_custom else None,
            has_nan=any_nan(numbers),
            has_inf=any(bool(np.isinf(each).any()) for each in numbers),
            is_half=any(each.dtype == np.float16 for each in outputs),
            primitive=equation.primitive.name,
        )
        self._calls[operation.number] = context.calls
        if not operation.is_finite:
            if not any_nan(arrays_of(inputs)):
                operation.tensors, operation.attributes = inputs, {"equation": equation}
                operation.part = optimizer_part(stack_of(equation))
            if operation.gradient_of is None:
                operation.source = self._source(operation)
            operation.forward.source = self._source(operation.forward)
        self.add(operation, inputs, outputs)

    def _source(self, operation: Operation) -> Source | None:
        """Return the source line of an operation, or else of the innermost call around it."""
        stacks = map(stack_of, self._calls[operation.number])
        return next(filter(None, map(source_of, stacks)), None)

    def _value_and_gradients(self, equation: Any, inputs: list[Value]) -> list[Value]:
        params = equation.params
        tape: list[Node] = []
        # A value may be passed twice, and be differentiated only once.
        separate = list(inputs)
        for position in params["wrt"]:
            if [each.key for each in inputs].count(inputs[position].key) > 1:
                separate[position] = Value.of(inputs[position].array)
                given = [inputs[position]], [separate[position]]
                self._record(*given, Context(calls=(equation,)), kind="Identity")
        count = len(params["jaxpr"].constvars)
        jaxpr = ClosedJaxpr(params["jaxpr"], arrays_in(separate[:count]))
        for value in separate[:count]:
            self._constants[id(value.array)] = value
        results = self.run(jaxpr, separate[count:], Context(tape, calls=(equation,)))
        self.targets.append(results[0])
        self.losses.append(results[params["loss"]])
        found = self._backward(tape, results[0], [separate[each] for each in params["wrt"]])
        return [*results, *found]

    def _backward(self, tape: list[Node], value: Value, wrt: list[Value]) -> list[Value]:
        """Return the gradients of a value with respect to others."""
        active = {each.key for each in wrt}
        for node in tape:
            node.active = tuple(
                n for n, x in enumerate(node.inputs) if x.key in active and x.is_inexact
            )
            if node.active:
                active.update(each.key for each in node.outputs if each.is_inexact)
        gradients = {value.key: Value.of(jnp.ones_like(value.array))}
        for node in reversed(tape):
            have = tuple(n for n, x in enumerate(node.outputs) if x.key in gradients)
            if not have or not node.active:
                continue
            given = [gradients[node.outputs[n].key] for n in have]
            maker = self.maker_of(node.outputs[0].key)
            if maker is not None:
                self._gradients.setdefault(maker.number, range_of(given))
            for position, gradient in self._passed_on(node, have, given):
                key = node.inputs[position].key
                if key in gradients:
                    gradient = self._sum(gradients[key], gradient, node)
                gradients[key] = gradient
        zeros = (Value.of(jnp.zeros_like(each.array)) for each in wrt)
        return [gradients.get(x.key, zero) for x, zero in zip(wrt, zeros, strict=True)]

    def _passed_on(
        self, node: Node, have: tuple[int, ...], given: list[Value]
    ) -> list[tuple[int, Value]]:
        """Return the gradients of the inputs of a node, by position."""
        inputs = [*given, *node.inputs]
        pullback = self._pullback(node, have, inputs)
        found = self.run(pullback.jaxpr, inputs, Context(node=node))
        every = zip(node.active, found, pullback.reaches, strict=True)
        return [(position, gradient) for position, gradient, reaches in every if reaches]

    def _pullback(self, node: Node, have: tuple[int, ...], inputs: list[Value]) -> Pullback:
        arrays = arrays_in(inputs)
        shapes = tuple((each.shape, each.dtype) for each in arrays)
        params = tuple(sorted(node.equation.params.items(), key=lambda each: each[0]))
        key: Any = (node.equation.primitive, params, shapes, node.active, have)
        try:
            known = self._pullbacks.get(key)
        except TypeError:  # a parameter without hash
            key, known = len(self._pullbacks), None
        if known is None:
            known = self._pullbacks[key] = Pullback.of(node, have, arrays)
        return known

    def _sum(self, one: Value, other: Value, node: Node) -> Value:
        jaxpr = jax.make_jaxpr(jnp.add)(one.array, other.array)
        return self.run(jaxpr, [one, other], Context(node=node))[0]
