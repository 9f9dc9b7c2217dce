"""Live view as a page, served to this machine only."""

import json
import math
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from gradkeeper.callbacks.reporting.live.view import LiveView

_HOSTS = ("127.0.0.1", "localhost")
_OF_FINDING = ("step", "layer", "rule", "severity", "message", "advice")
# The page contains all its code, and fetches nothing but `/data`.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class PageServer(ThreadingHTTPServer):
    """Server of the page on 127.0.0.1, to run with `serve_forever`.

    GET `/` returns the page, and GET `/data?version=V&bins=B&findings=F` the content of `data` as
    JSON. The server refuses requests whose Host header is another name: a page of another site
    could read the data through a name that resolves to 127.0.0.1 (DNS rebinding).

    Args:
        view: the view, refreshed at each request of data.
        port: port of the server; 0 for any free one.

    Raises:
        OSError: if the port is in use.
    """

    def __init__(self, view: LiveView, port: int) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise OSError(
                f"Choose another port: {error.strerror}. Received: port={port}"
            ) from error
        self.view, self.lock = view, Lock()


def data(view: LiveView, version: str = "", bins: int = 0, findings: int = 0) -> dict[str, Any]:
    """Return the view as JSON-serializable values, without what the page has.

    Args:
        view: the view.
        version: version of the view that the page has.
        bins: number of bins that the page has of this version.
        findings: number of findings that the page has of this version.

    Returns:
        `version`; `bins_before` and `findings_before`, the numbers that the page has, 0 if it has
        another version; the later `bins`, lists of step, loss, global norm and layer norms, and
        `findings`; `rows_per_bin`, `facts`, `layers` and `norms` (the current norms). A number that
        is missing is None; a norm that is NaN or infinite is -1.
    """
    if version != view.version:
        bins = findings = 0
    return {
        "version": view.version,
        "log_dir": str(view.log_dir),
        "facts": view.facts,
        "layers": view.layers,
        "norms": _norms(view.current_norms),
        "rows_per_bin": view.bins.size,
        "bins_before": bins,
        "bins": [
            [each.step, _number(each.loss), *_norms(each.norms)] for each in view.bins.done[bins:]
        ],
        "findings_before": findings,
        "findings": [
            {name: getattr(each, name) for name in _OF_FINDING} for each in view.findings[findings:]
        ],
    }


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _norms(norms: np.ndarray) -> list[float | None]:
    return [-1 if math.isinf(norm) else _number(norm) for norm in norms.tolist()]


class _Handler(BaseHTTPRequestHandler):
    """Answer GET requests; the base class refuses all other methods."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self.headers.get("Host", "").partition(":")[0] not in _HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN, "Use the address that the command printed")
        elif url.path == "/":
            page = files("gradkeeper.callbacks.reporting.live").joinpath("page.html")
            self._send("text/html; charset=utf-8", page.read_bytes())
        elif url.path == "/data":
            self._send_data({name: values[0] for name, values in parse_qs(url.query).items()})
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send_data(self, query: dict[str, str]) -> None:
        try:
            counts = [int(query.get(name, 0)) for name in ("bins", "findings")]
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        assert isinstance(self.server, PageServer)
        with self.server.lock:
            self.server.view.refresh()
            found = data(self.server.view, query.get("version", ""), *counts)
        self._send("application/json", json.dumps(found, allow_nan=False).encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write no line per request to the terminal."""
