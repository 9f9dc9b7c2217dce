"""Evaluated equations of a step, and their derivatives."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from gradkeeper.callbacks.diagnosis.jax.equations import depends_on, evaluate, live
from gradkeeper.callbacks.diagnosis.jax.values import Value


@dataclass
class Node:
    """An evaluated equation, for the backward pass.

    Attributes:
        equation: the equation.
        inputs: its inputs.
        outputs: its results.
        active: positions of the inputs that the gradient passes on to.
    """

    equation: Any
    inputs: list[Value]
    outputs: list[Value]
    active: tuple[int, ...] = ()

    def computes(self, equation: Any, inputs: list[Value]) -> bool:
        """Return True if an equation of the derivative computes the results of the node again."""
        return (
            equation.primitive is self.equation.primitive
            and [each.key for each in inputs] == [each.key for each in self.inputs]
            and equation.params == self.equation.params
        )


@dataclass(frozen=True)
class Context:
    """Surroundings of an equation.

    Attributes:
        tape: the list of the evaluated equations, for a later backward pass; None without one.
        layers: paths of the layers around a called jaxpr.
        calls: the equations that call the jaxpr, the innermost first.
        node: the equation that is being differentiated; None in a forward pass.
    """

    tape: list[Node] | None = None
    layers: tuple[str, ...] = ()
    calls: tuple[Any, ...] = ()
    node: Node | None = None


@dataclass(frozen=True)
class Pullback:
    """Derivative of an equation: from gradients of its results to gradients of its inputs.

    Attributes:
        jaxpr: a function of the gradients and of the equation's inputs.
        reaches: for each active input, whether its gradient depends on those of the results.
    """

    jaxpr: ClosedJaxpr
    reaches: list[bool]

    @classmethod
    def of(cls, node: Node, have: tuple[int, ...], arrays: list[Any]) -> "Pullback":
        """Return the derivative of a node.

        Args:
            node: the node.
            have: positions of the results whose gradients are known.
            arrays: these gradients, and the inputs of the node.
        """

        def pull(given: list[Any], primals: list[Any]) -> Any:
            def function(*active: Any) -> list[Any]:
                every = list(primals)
                for position, value in zip(node.active, active, strict=True):
                    every[position] = value
                results = evaluate(node.equation, every)
                return [results[n] for n in have]

            _, back = jax.vjp(function, *(primals[n] for n in node.active))
            return back(given)

        with jax.disable_jit():
            traced = jax.make_jaxpr(pull)(arrays[: len(have)], arrays[len(have) :])
        jaxpr = traced.jaxpr.replace(eqns=live(traced.jaxpr))
        reaches = depends_on(jaxpr, jaxpr.invars[: len(have)])
        return cls(ClosedJaxpr(jaxpr, traced.consts), reaches)
