"""Type aliases of the zoo."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

# A tensor of the Keras backend, a Keras tensor or variable, or a NumPy array. The backends' tensors
# have no common base class.
Tensor: TypeAlias = Any
Shape: TypeAlias = Sequence[int | None]
# The tensors [batch, units] that a cell passes from step to step, the previous output first.
State: TypeAlias = Sequence[Tensor]
# The output of a step, and the state after it.
StepOutput: TypeAlias = tuple[Tensor, list[Tensor]]

# A layer class, or a function that returns a layer.
LayerFactory: TypeAlias = Callable[..., keras.layers.Layer]

# Options that Keras takes as a name, as a config or as an object.
Config: TypeAlias = dict[str, Any]
Activation: TypeAlias = str | Config | Callable[[Tensor], Tensor] | None
Initializer: TypeAlias = str | Config | Callable[..., Tensor] | None
Regularizer: TypeAlias = str | Config | Callable[[Tensor], Tensor] | None
Constraint: TypeAlias = str | Config | Callable[[Tensor], Tensor] | None
