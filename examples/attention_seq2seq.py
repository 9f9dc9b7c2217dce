"""An encoder-decoder with attention that learns to reverse digit strings.

    python examples/attention_seq2seq.py

Trains with teacher forcing, then decodes greedily. Prints the average loss per digit and the share
of completely correct strings, for training strings and for unseen ones.
"""

import keras
import numpy as np
import typer

from gradkeeper import zoo
from gradkeeper.callbacks import GradientMonitor
from gradkeeper.training import make_optimizer

START = 10  # the token after the digits 0 to 9


def strings(examples: int, length: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return digit strings with the decoder's inputs, and the reversed strings."""
    source = np.random.default_rng(seed).integers(0, 10, (examples, length))
    reversed_ = source[:, ::-1]
    start = np.full((examples, 1), START)
    return {"source": source, "target": np.hstack([start, reversed_[:, :-1]])}, reversed_


def accuracy(model: keras.Model, inputs: dict[str, np.ndarray], wanted: np.ndarray) -> float:
    """Return the share of strings that greedy decoding reproduces completely."""
    written = zoo.generate(model, inputs["source"], start_token=START, max_length=wanted.shape[1])
    return float(np.mean(np.all(written == wanted, axis=1)))


def main(examples: int = 4000, length: int = 8, epochs: int = 8, units: int = 64) -> None:
    """Train the model; print losses, accuracies and a few decoded strings."""
    keras.utils.set_random_seed(0)
    train, test = strings(examples, length, seed=0), strings(500, length, seed=1)
    model = zoo.create_model(
        "seq2seq_attention", input_shape=(None,), output_units=11, units=units, embedding_units=32
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(make_optimizer("adam", 5e-3, global_clipnorm=1.0), loss=loss)
    monitor = GradientMonitor()
    model.fit(*train, batch_size=50, epochs=epochs, verbose=2, callbacks=[monitor])

    for name, (inputs, wanted) in {"train": train, "test": test}.items():
        average = model.evaluate(inputs, wanted, verbose=0)
        right = accuracy(model, {key: x[:500] for key, x in inputs.items()}, wanted[:500])
        print(f"{name:6} average loss {average:.4f} nats per digit, accuracy {100 * right:.1f} %")
    decoded = zoo.generate(model, test[0]["source"][:3], start_token=START, max_length=length)
    for source, output in zip(test[0]["source"], decoded, strict=False):
        print("".join(map(str, source)), "->", "".join(map(str, output)))
    print(
        f"largest gradient norm {monitor.history.global_norm.max():.3g}, "
        f"clipped {100 * monitor.history.clip_fraction:.0f} % of the steps"
    )


if __name__ == "__main__":
    typer.run(main)
