"""Script that takes the pictures of the live view, `docs/live-view/*.png`, during a training.

    python docs/_pictures/live_view.py [CHROMIUM]

The pictures show the page and the terminal in the middle of the training. `CHROMIUM` is the command
of the browser, `chromium` by default.
"""

import base64
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.reporting.live.terminal import render
from gradkeeper.callbacks.reporting.live.view import LiveView

FOLDER = Path(__file__).resolve().parents[1] / "live-view"
STEPS = 600


class Browser:
    """Tab of a headless Chromium that the DevTools protocol controls through pipes."""

    def __init__(self, command: str) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, command, *flags],
            pass_fds=[to_browser, from_browser],
            stderr=subprocess.DEVNULL,
        )
        self._number, self._buffer, self._session = 0, b"", {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                self._buffer += os.read(self._read, 1 << 20)
            answer, _, self._buffer = self._buffer.partition(b"\0")
            found = json.loads(answer)
            if found.get("id") == self._number:
                return found["result"]

    def picture(self, url: str, width: int, height: int, scheme: str) -> Image.Image:
        """Open an address and return its picture after a second refresh."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Page.navigate", url=url)
        time.sleep(2.5)
        shot = self.call("Page.captureScreenshot")
        return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Photographer(keras.callbacks.Callback):
    """Take the pictures after a number of train steps."""

    def __init__(self, log_dir: Path, address: str, browser: Browser) -> None:
        super().__init__()
        self._log_dir, self._address, self._browser = log_dir, address, browser

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch != STEPS * 3 // 4:
            return
        for scheme in ("light", "dark"):
            save(self._browser.picture(self._address, 1280, 900, scheme), f"wide-{scheme}")
        both = Image.new("RGB", (860, 1000), "white")
        for left, scheme in ((0, "light"), (440, "dark")):
            both.paste(self._browser.picture(self._address, 420, 1000, scheme), (left, 0))
        save(both, "narrow")
        page = Path("terminal.html").resolve()
        page.write_text(terminal(self._log_dir), encoding="utf-8")
        save(self._browser.picture(page.as_uri(), 1080, 500, "dark"), "terminal")


def terminal(log_dir: Path) -> str:
    """Return the terminal's content as HTML."""
    console = Console(record=True, file=io.StringIO(), width=108, height=25, force_terminal=True)
    view = LiveView(log_dir)
    view.refresh()
    console.print(render(view, console, console.height))
    return console.export_html(theme=MONOKAI, inline_styles=True)


def save(picture: Image.Image, name: str) -> None:
    """Save a picture with 128 colors, rare ones included."""
    FOLDER.mkdir(exist_ok=True)
    palette = picture.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(FOLDER / f"{name}.png", optimize=True)


@contextmanager
def served(log_dir: Path) -> Iterator[str]:
    """Run `gradkeeper watch --serve` and yield the address of the page."""
    command = ["gradkeeper", "watch", str(log_dir), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"http://\S+", line)
        try:
            yield found[0] if found else sys.exit(f"no address in {line!r}")
        finally:
            process.terminate()


def train(callbacks: list[keras.callbacks.Callback]) -> None:
    """Train a network of sigmoid layers after a recurrent one; one target is an outlier."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32 * STEPS, 20, 3)).astype("float32")
    y = x[:, :, :1].mean(axis=1) * 3
    y[16 * STEPS] = 300
    layers = [
        keras.layers.LSTM(24, return_sequences=True, name="encoder"),
        keras.layers.GRU(24, name="memory"),
        *(keras.layers.Dense(24, activation="sigmoid", name=f"hidden_{i}") for i in range(6)),
        keras.layers.Dense(1, name="out"),
    ]
    model = keras.Sequential([keras.Input((20, 3)), *layers])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0, callbacks=callbacks)


def main() -> None:
    """Train and take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        log_dir = Path("logs/run-1")
        browser = Browser(sys.argv[1] if len(sys.argv) > 1 else "chromium")
        with served(log_dir) as address:
            monitor = GradientMonitor(log_dir=log_dir)
            train([monitor, Photographer(log_dir, address, browser)])
        browser.close()


if __name__ == "__main__":
    main()
