"""Your own NumPy arrays, from an .npz file."""

import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper.training._checks import fraction
from gradkeeper.training.tasks.in_memory import InMemoryTask
from gradkeeper.training.tasks.losses import TokenCrossentropy
from gradkeeper.training.tasks.own.goal import GoalTask, make_goal
from gradkeeper.training.tasks.padding import step_weights

_SPLIT = ("x_train", "y_train", "x_test", "y_test")
_WHOLE = ("x", "y")


class Arrays(GoalTask, InMemoryTask):
    """Sequences and targets of the user.

    The file, of `np.savez`, has the keys `x` and `y`, of which a part is drawn for evaluation, the
    same for every seed; or `x_train`, `y_train`, `x_test`, `y_test`, the last two for
    evaluation. All sequences have the same number of steps; shorter ones are padded by the
    user, see `mask_value`.

    Inputs: x, [examples, steps, features], or [examples, steps] of one feature, as float32; or
        whole numbers [examples, steps], tokens, as int32, which are embedded.
    Targets: y. Whole numbers are classes: [examples] is a classification, [examples, steps] a
        labelling. Other numbers, [examples] or [examples, units], are a regression.
    Weights: float32 [batch, steps], for a labelling with `mask_value`; see `step_weights`.

    Baseline: of a regression, the mean squared error on the evaluation targets of predicting
    the mean of the training targets; otherwise the entropy −Σ p ln p of the training classes.

    Args:
        file: The .npz file.
        head: "regression", "classification" or "labelling"; None: as the targets say.
        mask_value: Steps all features of which have this value are padding.
        evaluation_fraction: Of the examples, where the file does not say.
        data_dir: Not used.
        seed: Seed of the training batches.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no .npz file, or its arrays do not fit each other or the head.
    """

    name = "arrays"

    def __init__(
        self,
        *,
        file: str | PathLike[str],
        head: str | None = None,
        mask_value: float | None = None,
        evaluation_fraction: float = 0.2,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        share = fraction("evaluation_fraction", evaluation_fraction)
        (x, y), (x_test, y_test) = _splits(_read(file), share, file)
        self._tokens = x.dtype.kind in "iu" and x.ndim == 2
        if self._tokens and mask_value is not None:
            raise ValueError(
                "`mask_value` is for numbers; tokens are padded by 0, with the model option "
                f"`mask_zero=True`. Received: mask_value={mask_value}, x of {x.dtype}"
            )
        x, x_test = self._inputs(x, file), self._inputs(x_test, file)
        self._goal = make_goal(head, y, y_test, steps=x.shape[1])
        self.mask_value = mask_value
        super().__init__(
            (x, self._goal.train, *self._weights(x)),
            (x_test, self._goal.evaluation, *self._weights(x_test)),
            options={
                "file": str(file),
                "head": head,
                "mask_value": mask_value,
                "evaluation_fraction": share,
            },
            data_dir=data_dir,
            seed=seed,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[steps, features], or [steps] of tokens."""
        return self._train[0].shape[1:]

    @property
    def model_options(self) -> dict[str, Any]:
        """What tokens or padding ask for."""
        options: dict[str, Any] = {}
        if self.mask_value is not None:
            options["mask_value"] = self.mask_value
        if self._tokens:
            options["vocabulary_size"] = 1 + max(
                int(x.max()) for x in (self._train[0], self._evaluation[0])
            )
        return options

    @property
    def loss(self) -> str | keras.losses.Loss:
        """See `Task.loss`; of a padded labelling nats per step, padding apart."""
        return TokenCrossentropy() if len(self._train) > 2 else super().loss

    def _inputs(self, x: np.ndarray, file: str | PathLike[str]) -> np.ndarray:
        if x.ndim == 2 and not self._tokens:
            x = x[:, :, None]
        if x.ndim != (2 if self._tokens else 3) or not np.isfinite(x).all() or x.size == 0:
            raise ValueError(
                "Inputs are finite numbers [examples, steps, features] or [examples, steps], or "
                f"tokens [examples, steps]. Received: {x.dtype} {list(x.shape)} in "
                f"file={str(file)!r}"
            )
        return x.astype(np.int32 if self._tokens else np.float32)

    def _weights(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.mask_value is None or self.head != "labelling":
            return ()
        return (step_weights((x != self.mask_value).any(axis=-1)),)


def _read(file: str | PathLike[str]) -> dict[str, np.ndarray]:
    path = Path(str(file)).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no such .npz file. Received: file={str(file)!r}")
    needed = "An .npz file with arrays of numbers is needed, as `np.savez` writes it"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{needed}. Received: file={str(file)!r}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except ValueError as error:
        raise ValueError(f"{needed} ({error}). Received: file={str(file)!r}") from error


def _splits(
    arrays: dict[str, np.ndarray], share: float, file: str | PathLike[str]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    names = _SPLIT if set(_SPLIT) <= set(arrays) else _WHOLE
    if not set(names) <= set(arrays):
        raise ValueError(
            f"The file must hold {', '.join(_WHOLE)}, or {', '.join(_SPLIT)}. "
            f"Received: {', '.join(sorted(arrays)) or 'nothing'} in file={str(file)!r}"
        )
    found = [arrays[name] for name in names]
    if any(len(x) != len(y) or len(x) < 1 for x, y in zip(found[::2], found[1::2], strict=True)):
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in names)
        raise ValueError(f"Inputs and targets must be as many. Received: {shapes}")
    if names == _SPLIT:
        return (found[0], found[1]), (found[2], found[3])
    x, y = found
    if len(x) < 2:
        raise ValueError(f"At least two examples are needed. Received: {len(x)}")
    order = np.random.RandomState(0).permutation(len(x))
    count = max(1, min(len(x) - 1, round(len(x) * share)))
    train, evaluation = order[count:], order[:count]
    return (x[train], y[train]), (x[evaluation], y[evaluation])
