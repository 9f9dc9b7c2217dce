"""Greedy decoding with an encoder-decoder."""

from typing import Any

import keras
import numpy as np

from gradkeeper._arguments import integer


def generate(
    model: keras.Model,
    source: Any,
    *,
    start_token: int,
    max_length: int,
    end_token: int | None = None,
) -> np.ndarray:
    """Generate target sequences by greedy decoding.

    Each step appends the most probable token to the target input. The whole target is passed
    through the model at every step, in a fixed shape. The decoder at the current step does not
    depend on the placeholder tokens after it.

    Args:
        model: a trained model of `create_model("seq2seq_attention", ...)`.
        source: integer tokens [batch, time], or [time] for one sequence.
        start_token: the first token of the target input, as in training.
        max_length: maximum number of tokens to generate.
        end_token: the token that ends a sequence. Generation stops when all sequences have ended.
            If None, `max_length` tokens are generated.

    Returns:
        int32 tokens [batch, length], or [length] for one sequence, with length at most
        `max_length`. After its first `end_token`, a sequence is filled with `end_token`.

    Raises:
        ValueError: if the model is not an encoder-decoder, if the source is empty, or if a token
            is outside the model's vocabulary.
    """
    tokens = _source_tokens(source)
    integer("max_length", max_length)
    _check_model(model, tokens, start_token=start_token, end_token=end_token)
    target = np.full((len(tokens), max_length + 1), start_token, "int32")
    ended = np.zeros(len(tokens), bool)
    step = 0
    while step < max_length and not ended.all():
        logits = model.predict_on_batch({"source": tokens, "target": target[:, :-1]})
        best = np.asarray(logits)[:, step].argmax(axis=-1)
        step += 1
        target[:, step] = best if end_token is None else np.where(ended, end_token, best)
        ended |= target[:, step] == end_token if end_token is not None else False
    generated = target[:, 1 : step + 1]
    return generated[0] if np.ndim(source) == 1 else generated


def _source_tokens(source: Any) -> np.ndarray:
    tokens = np.asarray(source)
    if tokens.ndim not in (1, 2) or tokens.size == 0 or tokens.dtype.kind not in "iu":
        raise ValueError(
            "`source` must be integer tokens [batch, time] or [time], not empty. "
            f"Received: source of shape {tokens.shape}, dtype {tokens.dtype}"
        )
    return np.atleast_2d(tokens).astype("int32")


def _check_model(model: keras.Model, source: np.ndarray, **ends: int | None) -> None:
    names = sorted(model.input) if isinstance(model.input, dict) else []
    if names != ["source", "target"]:
        raise ValueError(
            "`generate` needs an encoder-decoder with the inputs 'source' and 'target'. For a "
            "language model, use `generate_text`. "
            f"Received: model={model.name!r} with the inputs {model.input}"
        )
    embedded = {side: model.get_layer(f"{side}_embedding") for side in names}
    _check_tokens("source", source, embedded["source"].input_dim)
    for name, token in ends.items():
        if token is not None:
            _check_tokens(name, np.asarray(token), embedded["target"].input_dim)
    if embedded["target"].mask_zero and ends["start_token"] == 0:
        raise ValueError(
            "Token 0 is padding in this model. Use another start token. Received: start_token=0"
        )


def _check_tokens(name: str, tokens: np.ndarray, size: int) -> None:
    if tokens.min() < 0 or tokens.max() >= size:
        raise ValueError(
            f"`{name}` must be tokens from 0 to {size - 1}. "
            f"Received: {name} from {tokens.min()} to {tokens.max()}"
        )
