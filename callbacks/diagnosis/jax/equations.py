"""Equations of a jaxpr: their kind, their source line, and their evaluation."""

import re
from collections.abc import Sequence
from traceback import walk_tb
from types import FrameType
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

# TensorFlow's type of the operation that computes the same as a primitive. Others keep their name.
KINDS = {
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "add": "AddV2",
    "add_any": "AddV2",
    "asin": "Asin",
    "atan2": "Atan2",
    "atanh": "Atanh",
    "broadcast_in_dim": "BroadcastTo",
    "cholesky": "Cholesky",
    "concatenate": "ConcatV2",
    "conv_general_dilated": "Conv2D",
    "convert_element_type": "Cast",
    "copy": "Identity",
    "copy_p": "Identity",
    "cosh": "Cosh",
    "custom_linear_solve": "MatrixSolve",
    "digamma": "Digamma",
    "div": "RealDiv",
    "dot_general": "MatMul",
    "eig": "Eig",
    "eigh": "SelfAdjointEigV2",
    "erf_inv": "Erfinv",
    "exp": "Exp",
    "exp2": "Exp",
    "expm1": "Expm1",
    "gather": "GatherV2",
    "geqrf": "Qr",
    "householder_product": "Qr",
    "igamma": "Igamma",
    "igammac": "Igammac",
    "integer_pow": "Pow",
    "lgamma": "Lgamma",
    "linear_solve": "MatrixSolve",
    "log": "Log",
    "log1p": "Log1p",
    "lu": "Lu",
    "max": "Maximum",
    "mul": "Mul",
    "neg": "Neg",
    "polygamma": "Polygamma",
    "pow": "Pow",
    "qr": "Qr",
    "reduce_max": "Max",
    "reduce_min": "Min",
    "reduce_prod": "Prod",
    "reduce_sum": "Sum",
    "regularized_incomplete_beta": "Betainc",
    "rem": "FloorMod",
    "reshape": "Reshape",
    "rsqrt": "Rsqrt",
    "select_n": "SelectV2",
    "sinh": "Sinh",
    "slice": "StridedSlice",
    "sqrt": "Sqrt",
    "square": "Square",
    "squeeze": "Squeeze",
    "stop_gradient": "Identity",
    "sub": "Sub",
    "svd": "Svd",
    "transpose": "Transpose",
    "triangular_solve": "MatrixTriangularSolve",
    "tridiagonal_solve": "TridiagonalSolve",
    "zeta": "Zeta",
}
_INTEGER_POWERS = {2: "Square", -1: "Reciprocal"}
# Primitives that call a function with a custom derivative.
CUSTOM = ("custom_jvp_call", "custom_vjp_call")
# Primitives that call a jaxpr once.
_CALLING = frozenset({"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", *CUSTOM})
_LAYER = re.compile(r"gradkeeper-layer-(\d+)")
_MARK = re.compile(r"(?:.*/)?gradkeeper-(in|out|update)-(\d+)")


def kind_of(equation: Any) -> str:
    """Return TensorFlow's type of the operation that computes the same as an equation."""
    name = equation.primitive.name
    if name == "integer_pow":
        return _INTEGER_POWERS.get(equation.params["y"], "Pow")
    return KINDS.get(name, name)


def scope_of_layer(number: int) -> Any:
    """Name the equations inside the block as those of a layer."""
    return jax.named_scope(f"gradkeeper-layer-{number}")


def layers_of(equation: Any) -> list[int]:
    """Return the numbers of the layers around an equation, the outermost first."""
    found = list(map(int, _LAYER.findall(str(equation.source_info.name_stack))))
    return [each for n, each in enumerate(found) if n == 0 or each != found[n - 1]]


def mark(event: str, number: int, arrays: Sequence[Any]) -> None:
    """Add an equation without effect, which names the arrays of an event.

    Args:
        event: "in" or "out" for the inputs or outputs of a layer, "update" for the gradients that
            an optimizer receives.
        number: number of the layer or of the update.
        arrays: the arrays.
    """
    with jax.named_scope(f"gradkeeper-{event}-{number}"):
        jax.lax.optimization_barrier(tuple(arrays))


def marked(equation: Any) -> tuple[str, int] | None:
    """Return the event and the number of an equation of `mark`; None for others."""
    if is_transposed(equation):
        return None
    found = _MARK.fullmatch(str(equation.source_info.name_stack))
    return (found[1], int(found[2])) if found else None


def stack_of(equation: Any) -> list[tuple[FrameType, int]]:
    """Return the stack in which an equation was traced, the innermost frame first."""
    traceback = equation.source_info.traceback
    return [] if traceback is None else list(walk_tb(traceback.as_python_traceback()))[::-1]


def is_transposed(equation: Any) -> bool:
    """Return True if JAX's own differentiation produced the equation for a backward pass."""
    return "transpose(" in str(equation.source_info.name_stack)


def called(equation: Any) -> ClosedJaxpr | None:
    """Return the jaxpr that an equation calls once; None for others."""
    if equation.primitive.name not in _CALLING:
        return None
    return closed(equation.params.get("jaxpr") or equation.params["call_jaxpr"])


def closed(jaxpr: Any) -> ClosedJaxpr:
    """Return a jaxpr without free constants as a closed one."""
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def evaluate(equation: Any, arrays: Sequence[Any], **params: Any) -> list[Any]:
    """Return the results of an equation for these inputs.

    Args:
        equation: the equation.
        arrays: the inputs, arrays or tracers.
        **params: parameters that replace those of the equation.
    """
    primitive = equation.primitive
    bound = primitive.get_bind_params({**equation.params, **params})
    # JAX 0.10 has the functions among the parameters, earlier versions before them.
    functions, own = bound if isinstance(bound, tuple) else ((), bound)
    found = primitive.bind(*functions, *arrays, **own)
    return list(found) if primitive.multiple_results else [found]


def live(jaxpr: Any) -> list[Any]:
    """Return the equations that the results of a jaxpr depend on."""
    needed = set(map(id, jaxpr.outvars))
    found = []
    for equation in reversed(jaxpr.eqns):
        if any(id(each) in needed for each in equation.outvars):
            needed.update(map(id, equation.invars))
            found.append(equation)
    return found[::-1]


def depends_on(jaxpr: Any, some: Sequence[Any]) -> list[bool]:
    """Return for each result of a jaxpr whether it depends on one of these variables."""
    reached = set(map(id, some))
    for equation in jaxpr.eqns:
        if any(id(each) in reached for each in equation.invars):
            reached.update(map(id, equation.outvars))
    return [id(each) in reached for each in jaxpr.outvars]
