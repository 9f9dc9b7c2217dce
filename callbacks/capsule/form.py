"""Conversion of a batch to a JSON structure and a list of tensors, and back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

# {"array": 0}, {"tuple": [...]}, {"dict": {...}}, {"value": 1.5}, ...
Form: TypeAlias = dict[str, Any]


class UnknownFormError(TypeError):
    """Raised if a batch has a part that a capsule cannot store."""


def taken_apart(data: Any) -> tuple[Form, list[tf.Tensor]]:
    """Flatten a batch to a JSON structure and a list of tensors.

    Args:
        data: nested tuples, lists and dicts of tensors (dense, ragged or sparse), numbers,
            strings and None.

    Returns:
        The structure, and the tensors in the order in which it refers to them.

    Raises:
        UnknownFormError: if the batch has a part of another type.
    """
    tensors: list[tf.Tensor] = []

    def number(tensor: Any) -> int:
        tensor = tf.convert_to_tensor(tensor)
        if tensor.dtype in (tf.resource, tf.variant):
            raise UnknownFormError(
                f"A capsule cannot store this dtype. Received: dtype={tensor.dtype}"
            )
        tensors.append(tensor)
        return len(tensors) - 1

    def form(part: Any) -> Form:
        if isinstance(part, tf.RaggedTensor):
            splits = [number(each) for each in part.nested_row_splits]
            return {"ragged": [number(part.flat_values), *splits]}
        if isinstance(part, tf.SparseTensor):
            return {"sparse": [number(x) for x in (part.indices, part.values, part.dense_shape)]}
        if tf.is_tensor(part) or hasattr(part, "__array__"):
            return {"array": number(part)}
        if isinstance(part, Mapping):
            if not all(isinstance(key, str) for key in part):
                raise UnknownFormError(f"The keys of a dict must be strings. Received: {set(part)}")
            return {"dict": {key: form(each) for key, each in part.items()}}
        if isinstance(part, (tuple, list)):
            kind = "tuple" if isinstance(part, tuple) else "list"
            return {kind: [form(each) for each in part]}
        if part is None or isinstance(part, (bool, int, float, str)):
            return {"value": part}
        raise UnknownFormError(f"A capsule cannot store this part of a batch. Received: {part!r}")

    return form(data), tensors


def put_together(form: Form, arrays: Sequence[Any]) -> Any:
    """Pack arrays into a batch of the given structure.

    Args:
        form: a structure that `taken_apart` returned.
        arrays: the values of the tensors.

    Raises:
        ValueError: if `form` is not a structure, or there are too few arrays.
    """
    if not isinstance(form, dict) or len(form) != 1:
        raise ValueError(f"This is not the structure of a batch. Received: {form!r}")
    ((kind, content),) = form.items()
    if kind not in _KINDS:
        raise ValueError(f"A structure must be one of {', '.join(_KINDS)}. Received: {kind!r}")
    try:
        return _KINDS[kind](content, arrays)
    except (TypeError, IndexError, AttributeError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(f"This is not the structure of a batch. Received: {form!r}") from error


def _all(forms: Sequence[Form], arrays: Sequence[Any]) -> list[Any]:
    return [put_together(each, arrays) for each in forms]


_KINDS: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
    "array": lambda at, arrays: tf.convert_to_tensor(arrays[at]),
    "value": lambda value, _: value,
    "list": _all,
    "tuple": lambda forms, arrays: tuple(_all(forms, arrays)),
    "dict": lambda forms, arrays: {k: put_together(v, arrays) for k, v in forms.items()},
    "ragged": lambda at, arrays: tf.RaggedTensor.from_nested_row_splits(
        arrays[at[0]], [arrays[each] for each in at[1:]]
    ),
    "sparse": lambda at, arrays: tf.SparseTensor(*(arrays[each] for each in at)),
}
