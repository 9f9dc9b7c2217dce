"""Kinds of the operations of torch."""

from collections.abc import Sequence
from typing import Any

# TensorFlow's type of the operation that computes the same as one of torch. Others keep their name.
KINDS = {
    "_log_softmax": "LogSoftmax",
    "_softmax": "Softmax",
    "_to_copy": "Cast",
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "add": "AddV2",
    "alias": "Identity",
    "amax": "Max",
    "amin": "Min",
    "angle": "Angle",
    "argmax": "ArgMax",
    "asin": "Asin",
    "atan2": "Atan2",
    "atanh": "Atanh",
    "bmm": "BatchMatMulV2",
    "cat": "ConcatV2",
    "clamp_max": "Minimum",
    "clamp_min": "Maximum",
    "clone": "Identity",
    "convolution": "Conv2D",
    "copy": "Identity",
    "cosh": "Cosh",
    "detach": "Identity",
    "digamma": "Digamma",
    "div": "RealDiv",
    "erfinv": "Erfinv",
    "exp": "Exp",
    "exp2": "Exp",
    "expand": "BroadcastTo",
    "expm1": "Expm1",
    "floor_divide": "FloorDiv",
    "full": "Fill",
    "full_like": "Fill",
    "gather": "GatherV2",
    "i0": "BesselI0",
    "index": "GatherV2",
    "index_select": "GatherV2",
    "lgamma": "Lgamma",
    "linalg_cholesky_ex": "Cholesky",
    "linalg_eig": "Eig",
    "_linalg_det": "MatrixDeterminant",
    "_linalg_eigh": "SelfAdjointEigV2",
    "_linalg_slogdet": "LogMatrixDeterminant",
    "_linalg_solve_ex": "MatrixSolve",
    "_linalg_svd": "Svd",
    "linalg_inv_ex": "MatrixInverse",
    "linalg_lu": "Lu",
    "linalg_lu_factor_ex": "Lu",
    "linalg_qr": "Qr",
    "linalg_solve_triangular": "MatrixTriangularSolve",
    "linalg_vector_norm": "EuclideanNorm",
    "log": "Log",
    "log10": "Log",
    "log1p": "Log1p",
    "log2": "Log",
    "masked_fill": "SelectV2",
    "max": "Max",
    "maximum": "Maximum",
    "mean": "Mean",
    "min": "Min",
    "minimum": "Minimum",
    "mm": "MatMul",
    "mul": "Mul",
    "neg": "Neg",
    "permute": "Transpose",
    "polygamma": "Polygamma",
    "pow": "Pow",
    "prod": "Prod",
    "reciprocal": "Reciprocal",
    "remainder": "FloorMod",
    "fmod": "FloorMod",
    "rsqrt": "Rsqrt",
    "scalar_tensor": "Fill",
    "select": "StridedSlice",
    "sinh": "Sinh",
    "slice": "StridedSlice",
    "special_ndtri": "Ndtri",
    "special_xlog1py": "Xlog1py",
    "special_zeta": "Zeta",
    "split": "Split",
    "sqrt": "Sqrt",
    "square": "Square",
    "squeeze": "Squeeze",
    "stack": "Pack",
    "sub": "Sub",
    "sum": "Sum",
    "t": "Transpose",
    "transpose": "Transpose",
    "triangular_solve": "MatrixTriangularSolve",
    "unsqueeze": "ExpandDims",
    "view": "Reshape",
    "_unsafe_view": "Reshape",
    "where": "SelectV2",
    "xlogy": "Xlogy",
}
# Operations on numbers as well as tensors: a number is an input, not a parameter.
WITH_NUMBERS = frozenset(
    {"AddV2", "Sub", "Mul", "RealDiv", "Pow", "Maximum", "Minimum", "FloorMod", "FloorDiv"}
    | {"Xlogy", "Xlog1py", "Atan2"}
)


_POWERS: dict[float, str] = {2: "Square", -1: "Reciprocal"}


def kind_of(name: str, args: Sequence[Any]) -> str:
    """Return TensorFlow's type of the operation that computes the same as one of torch.

    Args:
        name: name of the operation, without the marks for lists and writing.
        args: its arguments.
    """
    if name == "pow" and isinstance(args[1], (int, float)):
        return _POWERS.get(args[1], "Pow")
    return KINDS.get(name, name)
