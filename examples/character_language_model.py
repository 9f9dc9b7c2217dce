"""SimpleRNN, LSTM and GRU that learn to write Shakespeare, character by character.

    python examples/character_language_model.py --epochs 10

Trains each model on tiny Shakespeare, prints the loss in nats per character on the validation text
(a model that knows only the frequency of each character has 3.31), and generates text. By default
each model trains for one short epoch, about a minute in all; ten full epochs (`--steps 400`) are
enough to write words.
"""

import keras
import typer

from gradkeeper import zoo
from gradkeeper.callbacks import GradientMonitor
from gradkeeper.training import load_task, make_optimizer


def main(
    epochs: int = 1,
    steps: int = 150,
    units: int = 128,
    prompt: str = "ROMEO:",
    preprocessing: str = "none",
    data_dir: str | None = None,
) -> None:
    """Train three models and print text that they generate.

    Args:
        epochs: epochs per model.
        steps: train steps per epoch; 400 steps read the whole text once.
        units: units of the recurrent layer.
        prompt: the text to continue.
        preprocessing: "none", or "letters" for lower-case letters and ` .,!?` only.
        data_dir: data folder of tensorflow-datasets; the text is downloaded if it is missing.
    """
    task = load_task("tiny_shakespeare", length=50, preprocessing=preprocessing, data_dir=data_dir)
    if preprocessing == "letters":
        prompt = "".join(filter(task.vocabulary.characters.__contains__, prompt.lower()))
    print(f"{len(task.vocabulary)} characters; baseline: {task.baseline:.3f} {task.baseline_label}")
    for name in ("simple_rnn", "lstm", "gru"):
        keras.utils.set_random_seed(0)
        model = zoo.create_model(
            name,
            task="language_model",
            input_shape=task.input_shape,
            output_units=task.output_units,
            units=units,
        )
        model.compile(make_optimizer("adam", 3e-3, global_clipnorm=1.0), loss=task.loss)
        monitor = GradientMonitor()
        history = model.fit(
            task.train_dataset(50, endless=True),
            validation_data=task.evaluation_dataset(50),
            epochs=epochs,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=2,
            callbacks=[monitor],
        )
        text = zoo.generate_text(
            model, prompt, vocabulary=task.vocabulary, length=200, temperature=0.8, seed=0
        )
        print(
            f"\n== {name}: {history.history['val_loss'][-1]:.3f} nats per character, "
            f"clipped {100 * monitor.history.clip_fraction:.0f} % of the steps\n{text}\n"
        )


if __name__ == "__main__":
    typer.run(main)
