"""Replays of planted faults, and their expected verdicts on JAX and torch."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
from planted import BATCH, Planted

from gradkeeper.callbacks import Verdict
from gradkeeper.callbacks.capsule.model import state_of
from gradkeeper.callbacks.capsule.writer import Contents, write_capsule
from gradkeeper.callbacks.diagnosis.replay import verdict_of_step

if keras.backend.backend() == "jax":
    from gradkeeper.callbacks.diagnosis.jax.equations import KINDS
elif keras.backend.backend() == "torch":
    from gradkeeper.callbacks.diagnosis.torch.kinds import KINDS

# Attributes of `Planted` and `Failing` that differ from those on TensorFlow, by the fault's name.
DIFFERENT: dict[str, dict[str, dict[str, Any]]] = {
    # Keras computes a GRU on JAX without its cell.
    "jax": {"gru": {"layer": "rnn"}},
    "torch": {
        # Keras computes both on torch without their cells.
        "gru": {"layer": "rnn"},
        "lstm": {"layer": "rnn"},
        # Keras multiplies float16 matrices in float32, and casts the product.
        "float16": {"more": {"operation": "Cast"}},
        "targets_too_large": {"more": {"operation": "Pow"}},
        # Keras's Adam on torch updates all variables at once.
        "large_gradients": {"line": "torch._foreach_mul(grads, grads)"},
        # The gradient of a reciprocal uses its result, which is the first value not finite.
        "where_around_division": {
            "place": "forward",
            "cause": "division by 0, in a branch of where() that is not taken",
        },
    },
}
# Faults of the TensorFlow tests, apart from those of `planted_operations`, that do not exist.
EXCLUDED = {
    "jax": {
        "empty_selection": "a shape must not depend on values",
        "label_out_of_range": "the one-hot vector of such a label is 0, and the loss is finite",
        "update_by_hand": "a train step of TensorFlow; see `planted_in_jax`",
        "empty_batch": "a train step of TensorFlow; see `planted_in_jax`",
    },
    "torch": {
        "empty_selection": "a layer of TensorFlow; see `planted_in_torch`",
        "label_out_of_range": "torch raises an IndexError",
        "update_by_hand": "a train step of TensorFlow; see `planted_in_torch`",
        "empty_batch": "a train step of TensorFlow; see `planted_in_torch`",
        "norm_at_zero": "the gradient of a norm at 0 is 0",
    },
}


def as_here(planted: Any) -> Any:
    """Return a fault with the expected verdict of this backend."""
    different = DIFFERENT[keras.backend.backend()].get(planted.build.__name__, {})
    return dataclasses.replace(planted, **different)


def verdict_of(planted: Planted) -> Verdict:
    """Return the verdict of the replay of the bad step."""
    model, data = planted.build()
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return verdict_of_step(model, _batch_of_step(planted, data))


def _batch_of_step(planted: Planted, of: dict[str, Any]) -> tuple[Any, ...]:
    rows = slice(planted.step * BATCH, (planted.step + 1) * BATCH)
    parts = [of[name] for name in ("x", "y", "sample_weight") if name in of]
    parts = [tuple(each) if isinstance(each, list) else each for each in parts]
    return keras.tree.map_structure(
        lambda each: keras.ops.convert_to_tensor(each[rows]), tuple(parts)
    )


def capsule_of(model: keras.Model, batch: Any, folder: Path, *, step: int = 0) -> Path:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    facts = {"step": step, "gradients": {"nonfinite": [[0]]}}
    contents = Contents(facts, model, state_of(model), [batch])
    return write_capsule(folder, contents, max_bytes=1 << 20)


def assert_as_planted(verdict: Verdict, planted: Planted) -> None:
    assert verdict.fault is not None
    assert (verdict.place, verdict.layer, verdict.fault.name) == (
        planted.place,
        planted.layer,
        planted.cause,
    )
    kinds = {"operation": verdict.operation, "gradient_of": verdict.gradient_of}
    for name, expected in planted.more.items():
        assert (KINDS[kinds[name]] if name in kinds else getattr(verdict, name)) == expected
    assert planted.line is None or planted.line in str(verdict.source)
