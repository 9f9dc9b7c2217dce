"""The form of a batch in JSON, beside the arrays that it consists of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

# {"array": 0}, {"tuple": [...]}, {"dict": {...}}, {"value": 1.5}, ...
Form: TypeAlias = dict[str, Any]


class UnknownFormError(TypeError):
    """A batch holds something that a capsule cannot."""


def taken_apart(data: Any) -> tuple[Form, list[tf.Tensor]]:
    """A batch as its form and its tensors.

    Args:
        data: tensors (ragged and sparse ones too), numbers, texts and None, in tuples, lists
            and dicts.

    Raises:
        UnknownFormError: on anything else.
    """
    tensors: list[tf.Tensor] = []

    def number(tensor: Any) -> int:
        tensor = tf.convert_to_tensor(tensor)
        if tensor.dtype in (tf.resource, tf.variant):
            raise UnknownFormError(f"A capsule cannot hold this dtype. Received: {tensor.dtype}")
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
                raise UnknownFormError(f"The keys of a dict must be texts. Received: {set(part)}")
            return {"dict": {key: form(each) for key, each in part.items()}}
        if isinstance(part, (tuple, list)):
            kind = "tuple" if isinstance(part, tuple) else "list"
            return {kind: [form(each) for each in part]}
        if part is None or isinstance(part, (bool, int, float, str)):
            return {"value": part}
        raise UnknownFormError(f"A capsule cannot hold this part of a batch. Received: {part!r}")

    return form(data), tensors


def put_together(form: Form, arrays: Sequence[Any]) -> Any:
    """The batch of this form.

    Args:
        form: what `taken_apart` gave.
        arrays: the tensors' values.

    Raises:
        ValueError: if that is no form, or there are too few arrays.
    """
    if not isinstance(form, dict) or len(form) != 1:
        raise ValueError(f"This is not the form of a batch. Received: {form!r}")
    ((kind, content),) = form.items()
    if kind not in _KINDS:
        raise ValueError(f"A form is one of {', '.join(_KINDS)}. Received: {kind!r}")
    try:
        return _KINDS[kind](content, arrays)
    except (TypeError, IndexError, AttributeError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(f"This is not the form of a batch. Received: {form!r}") from error


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
