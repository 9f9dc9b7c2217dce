"""Text generation with a language model."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.zoo.layers import SequenceAttention

WINDOW = 128


class Vocabulary(Protocol):
    """Protocol of a mapping between text and tokens."""

    def encode(self, text: str) -> Any: ...

    def decode(self, tokens: Any) -> str: ...


class Characters:
    """Vocabulary of single characters. The token of a character is its index in the list."""

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = list(characters)
        self.tokens = {character: token for token, character in enumerate(self.characters)}

    def encode(self, text: str) -> np.ndarray:
        unknown = sorted(set(text) - set(self.tokens))
        if unknown:
            raise ValueError(
                f"The vocabulary has only the characters {''.join(self.characters)!r}. "
                f"Received: unknown characters {''.join(unknown)!r} in {text!r}"
            )
        return np.array([self.tokens[character] for character in text], "int32")

    def decode(self, tokens: Any) -> str:
        return "".join(self.characters[token] for token in tokens)


def generate_text(
    model: keras.Model,
    prompt: str,
    *,
    vocabulary: Vocabulary | Sequence[str],
    length: int = 200,
    temperature: float = 1.0,
    seed: int | None = None,
) -> str:
    """Generate a continuation of a text with a language model.

    A copy of the model with the same weights and `stateful=True` reads the prompt and then the
    generated tokens, one at a time. A model with attention or convolutions reads a window of the
    last tokens instead; the window has the model's fixed length, or 128 tokens.

    Args:
        model: a trained model of `create_model(..., task="language_model")`.
        prompt: the text to continue, at least one token.
        vocabulary: an object with `encode(text) -> tokens` and `decode(tokens) -> text`, or the
            characters in the order of their tokens, as a string or a list.
        length: number of tokens to generate.
        temperature: divisor of the logits before sampling. Lower values make the text more
            predictable; 0 always takes the most probable token.
        seed: seed of the sampling. The same seed gives the same text.

    Returns:
        The prompt and its continuation.

    Raises:
        ValueError: if the model is not a language model, if the prompt is empty, if the prompt
            has characters that are not in the vocabulary, if the sizes of the vocabulary and the
            model differ, or if the temperature or the seed is negative.
    """
    _check_model(model)
    integer("length", length)
    number("temperature", temperature, "[0, inf)")
    if seed is not None:
        integer("seed", seed, minimum=0)
    words = _vocabulary(vocabulary, model.output_shape[-1])
    tokens = _prompt_tokens(prompt, words, model.output_shape[-1])
    without_state = (SequenceAttention, keras.layers.DepthwiseConv1D)
    sees_window = any(isinstance(layer, without_state) for layer in model.layers)
    next_logits = _windowed(model) if sees_window else _stepped(model)
    random = np.random.default_rng(seed)
    given = len(tokens)
    for _ in range(length):
        tokens.append(_sample(next_logits(tokens), temperature, random))
    return prompt + words.decode(np.array(tokens[given:], "int32"))


def _stepped(model: keras.Model) -> Callable[[list[int]], np.ndarray]:
    """Return a function that computes the next logits and reads only tokens that are unread."""
    twin = _twin(model, length=1, stateful=True)
    read = 0

    def next_logits(tokens: list[int]) -> np.ndarray:
        nonlocal read
        for token in tokens[read:]:
            logits = _predict_next(twin, np.array([[token]], "int32"))
        read = len(tokens)
        return logits[0, -1]

    return next_logits


def _predict_next(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs of a stateful model for inputs that continue those of the last call.

    The states of a stateful layer are not variables of the model. On JAX, Keras carries only the
    variables from one compiled call to the next, so that `predict` starts each batch from the same
    states (Keras 3.15). On JAX, the model is therefore called directly.
    """
    if keras.backend.backend() == "jax":
        return np.asarray(model(inputs, training=False))
    return np.asarray(model.predict_on_batch(inputs))


def _windowed(model: keras.Model) -> Callable[[list[int]], np.ndarray]:
    """Return a function that computes the next logits from a window of the last tokens.

    A shorter text is padded at the end. The logits do not depend on this padding.
    """
    length = model.input_shape[1] or WINDOW
    twin = _twin(model, length=length, stateful=False)

    def next_logits(tokens: list[int]) -> np.ndarray:
        recent = tokens[-length:]
        window = np.full((1, length), recent[-1], "int32")
        window[0, : len(recent)] = recent
        return np.asarray(twin.predict_on_batch(window))[0, len(recent) - 1]

    return next_logits


def _twin(model: keras.Model, *, length: int, stateful: bool) -> keras.Model:
    """Return a copy of the model with the same weights, for one sequence of a fixed length."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if "stateful" in config:
            config["stateful"] = stateful
            # A loop over a single step only costs time; JAX would recompile it for each token.
            config["unroll"] = config["unroll"] or length == 1
        return type(layer).from_config(config)

    inputs = keras.Input(batch_shape=(1, length), dtype="int32", name="inputs")
    twin = keras.models.clone_model(model, input_tensors=inputs, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def _sample(logits: np.ndarray, temperature: float, random: np.random.Generator) -> int:
    if not np.isfinite(logits).all():
        raise ValueError(
            "The model's logits are not finite. Check the model's weights for NaN and infinity. "
            "Received: NaN or infinite logits"
        )
    if temperature == 0:
        return int(logits.argmax())
    scaled = (logits.astype("float64") - logits.max()) / temperature
    weights = np.exp(scaled)
    return int(random.choice(len(weights), p=weights / weights.sum()))


def _check_model(model: keras.Model) -> None:
    shapes = (model.input_shape, model.output_shape)
    if isinstance(model.input_shape, dict) or [len(shape) for shape in shapes] != [2, 3]:
        raise ValueError(
            "`generate_text` needs a language model that maps integer tokens [batch, time] to "
            "logits [batch, time, vocabulary]. For an encoder-decoder, use `generate`. "
            f"Received: model={model.name!r} with input_shape={shapes[0]}, output_shape={shapes[1]}"
        )


def _vocabulary(vocabulary: Any, size: int) -> Vocabulary:
    # `encode` is no criterion: a str has an `encode` to bytes.
    if hasattr(vocabulary, "decode"):
        known: Vocabulary = vocabulary
        return known
    if len(vocabulary) != size or len(set(vocabulary)) != size:
        raise ValueError(
            f"`vocabulary` must have {size} different characters, one for each of the model's "
            f"logits. Received: {len(vocabulary)}, {len(set(vocabulary))} of them different"
        )
    return Characters(vocabulary)


def _prompt_tokens(prompt: str, vocabulary: Vocabulary, size: int) -> list[int]:
    tokens = [int(token) for token in np.ravel(vocabulary.encode(prompt))] if prompt else []
    if not tokens:
        raise ValueError(f"`prompt` must have at least one token. Received: prompt={prompt!r}")
    if min(tokens) < 0 or max(tokens) >= size:
        raise ValueError(
            f"The vocabulary does not fit the model, which has the tokens 0 to {size - 1}. "
            f"Received: tokens from {min(tokens)} to {max(tokens)}"
        )
    return tokens
