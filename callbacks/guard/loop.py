"""Guarded step of a custom training loop."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from gradkeeper.callbacks._keras_private import variables_of
from gradkeeper.callbacks.instrument.observer import GradientTransform
from gradkeeper.callbacks.instrument.step_patches import StepPatches


class StepModel(keras.Model):
    """Model whose train step is a function of a custom loop, for guard and replay.

    Args:
        step: the function that computes gradients and calls the optimizers; None if each
            optimizer call is a step.
        optimizers: the optimizers that the function calls.
        variables: the variables that the function trains; those of the optimizers by default.
    """

    def __init__(
        self,
        step: Callable[..., Any] | None,
        optimizers: Sequence[keras.optimizers.Optimizer],
        variables: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(name=getattr(step, "__name__", None) or "loop")
        self.optimizers = list(optimizers)
        if variables is None:
            variables = [each for one in optimizers for each in variables_of(one, None)]
        # Wrapped in functions: Keras would track the variables as weights of this model.
        trained = list({id(each): each for each in variables}.values())
        self._step, self._trained = (lambda: step), (lambda: trained)
        self.built = True

    @property
    def trainable_variables(self) -> list[Any]:
        """Return the variables that the step trains."""
        return self._trained()

    def train_step(self, data: tuple[Any, ...]) -> Any:
        """Call the step with the arguments in `data`, and return its result."""
        step = self._step()
        assert step is not None
        return step(*data)


class GuardedStep:
    """Step of a custom loop under a guard. Call it with the arguments of the step.

    Args:
        model: the step as a model.
        transform: the guard's gradient transform.
        look: called after each step to read the skipped steps.

    Attributes:
        model: the step as a model. Pass it to `replay`.
    """

    def __init__(
        self, model: StepModel, transform: GradientTransform, look: Callable[[], None]
    ) -> None:
        self.model = model
        self._patches = StepPatches([transform], model.optimizers, model)
        self._look = look

    def __call__(self, *args: Any) -> Any:
        """Run the step.

        Raises:
            NonFiniteGradientError: if the step was skipped and the policy ends the training.
        """
        with self._patches.applied():
            result = self.model.train_step(args)
        self._look()
        return result
