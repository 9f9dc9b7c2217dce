"""Your own NumPy arrays, from an .npz file."""

import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper._arguments import number
from gradkeeper.training.tasks.in_memory import InMemoryTask, random_split
from gradkeeper.training.tasks.losses import TokenCrossentropy, step_weights
from gradkeeper.training.tasks.user_data.target import TargetTask

_SPLIT = ("x_train", "y_train", "x_test", "y_test")
_WHOLE = ("x", "y")


class Arrays(TargetTask, InMemoryTask):
    """Predict or classify your own NumPy arrays, from an .npz file.

    The file, written by `np.savez`, has the keys `x` and `y`, of which a fraction is drawn for
    evaluation (the same examples for every seed); or `x_train`, `y_train`, `x_test`, `y_test`, of
    which the last two are for evaluation. All sequences must have the same number of steps; pad
    shorter ones, see `mask_value`.

    Inputs: x, [examples, steps, features], or [examples, steps] with one feature, as float32; or
        integers [examples, steps], tokens, as int32, for an embedding.
    Targets: y. Integers are classes: [examples] for a classification, [examples, steps] for a
        labelling. Other numbers, [examples] or [examples, units], are for a regression.
    Weights: float32 [batch, steps], for a labelling with `mask_value`; see `step_weights`.

    Baseline: for a regression, the mean squared error on the evaluation targets of predicting
    the mean of the training targets; otherwise the entropy −Σ p ln p of the training classes.

    Args:
        file: The .npz file.
        head: "regression", "classification" or "labelling"; None: derived from the targets.
        mask_value: A step whose features all have this value is padding.
        evaluation_fraction: Fraction of the examples for evaluation if the file has no split.
        **common: `data_dir` and `seed`, see `Task`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an .npz file, or its arrays do not match each other or the
            head.
    """

    name = "arrays"

    def __init__(
        self,
        *,
        file: str | PathLike[str],
        head: str | None = None,
        mask_value: float | None = None,
        evaluation_fraction: float = 0.2,
        **common: Any,
    ) -> None:
        share = number("evaluation_fraction", evaluation_fraction, "(0, 1)")
        (x, y), (x_test, y_test) = _splits(_read(file), share, file)
        self._tokens = x.dtype.kind in "iu" and x.ndim == 2
        if self._tokens and mask_value is not None:
            raise ValueError(
                "`mask_value` is for numeric inputs. Pad tokens with 0, and set the model option "
                f"`mask_zero=True`. Received: mask_value={mask_value}, x of {x.dtype}"
            )
        x, x_test = self._inputs(x, file), self._inputs(x_test, file)
        self._set_targets(head, y, y_test, steps=x.shape[1])
        self.mask_value = mask_value
        super().__init__(
            (x, self._train_targets, *self._weights(x)),
            (x_test, self._evaluation_targets, *self._weights(x_test)),
            options={
                "file": str(file),
                "head": head,
                "mask_value": mask_value,
                "evaluation_fraction": share,
            },
            **common,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[steps, features], or [steps] for tokens."""
        return self._train[0].shape[1:]

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options for tokens or padding."""
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
        """See `Task.loss`; for a padded labelling, nats per step without padding."""
        return TokenCrossentropy() if len(self._train) > 2 else super().loss

    def _inputs(self, x: np.ndarray, file: str | PathLike[str]) -> np.ndarray:
        if x.ndim == 2 and not self._tokens:
            x = x[:, :, None]
        if x.ndim != (2 if self._tokens else 3) or not np.isfinite(x).all() or x.size == 0:
            raise ValueError(
                "Inputs must be finite numbers [examples, steps, features] or [examples, steps], "
                f"or tokens [examples, steps]. Received: {x.dtype} {list(x.shape)} in "
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
        raise FileNotFoundError(f"The .npz file does not exist. Received: file={str(file)!r}")
    needed = "The file must be an .npz file with arrays of numbers, as written by `np.savez`"
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
            f"The file must contain {', '.join(_WHOLE)}, or {', '.join(_SPLIT)}. "
            f"Received: {', '.join(sorted(arrays)) or 'nothing'} in file={str(file)!r}"
        )
    found = [arrays[name] for name in names]
    if any(len(x) != len(y) or len(x) < 1 for x, y in zip(found[::2], found[1::2], strict=True)):
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in names)
        raise ValueError(f"Inputs and targets must have equal lengths. Received: {shapes}")
    if names == _SPLIT:
        return (found[0], found[1]), (found[2], found[3])
    x, y = found
    if len(x) < 2:
        raise ValueError(f"At least two examples are needed. Received: {len(x)}")
    train, evaluation = random_split(len(x), share)
    return (x[train], y[train]), (x[evaluation], y[evaluation])
