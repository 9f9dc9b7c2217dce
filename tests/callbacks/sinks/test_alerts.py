"""Alerts: each finding is sent once, to a function or to a webhook of a local server."""

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError, URLError

import numpy as np
import pytest

from gradkeeper.callbacks import Finding, GradientMonitor
from gradkeeper.callbacks.sinks import Webhook, alerts
from gradkeeper.callbacks.sinks.alerts import AlertSink

FINDING = Finding(
    7, "a<b>&c", "spike", "warning", "The norm is 2 > 1.", "Clip.", {"norm": float("inf"), "n": [2]}
)


class Server(ThreadingHTTPServer):
    """Server that stores the requests and answers with a status."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.status, self.location = [], 200, None
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):
        """Print nothing if the client has closed the connection."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.status)
        if self.server.location is not None:
            self.send_header("Location", self.server.location)
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def server():
    with Server() as server:
        yield server
        server.shutdown()


def test_a_webhook_receives_the_attributes_of_the_finding(server):
    AlertSink(f"{server.url}/hook?key=1").write_finding(FINDING)
    ((path, kind, body),) = server.requests
    assert (path, kind) == ("/hook?key=1", "application/json")
    assert body == {
        "step": 7,
        "layer": "a<b>&c",
        "rule": "spike",
        "severity": "warning",
        "message": "The norm is 2 > 1.",
        "advice": "Clip.",
        "evidence": {"norm": "Infinity", "n": [2]},
    }


def test_evidence_may_have_numbers_of_numpy(server):
    evidence = {"norm": np.float32("nan"), "steps": np.arange(2), "layers": [np.int64(3)]}
    AlertSink(server.url).write_finding(dataclasses.replace(FINDING, evidence=evidence))
    ((*_, body),) = server.requests
    assert body["evidence"] == {"norm": "NaN", "steps": [0, 1], "layers": [3]}


def test_slack_receives_an_escaped_text(server):
    AlertSink(Webhook(server.url, format="slack")).write_finding(FINDING)
    ((_, _, body),) = server.requests
    assert body == {"text": "warning: [spike] step 7: The norm is 2 &gt; 1. Clip."}


def test_the_format_follows_the_host():
    assert repr(Webhook("https://hooks.slack.com/services/secret")).endswith("format='slack')")
    assert repr(Webhook("https://example.com/hooks.slack.com")).endswith("format='json')")
    assert repr(Webhook("https://hooks.slack.com/a", format="json")).endswith("format='json')")


def test_a_redirect_is_not_followed(server):
    server.status, server.location = 302, f"{server.url}/elsewhere"
    with pytest.raises(HTTPError, match="302"):
        Webhook(f"{server.url}/hook")(FINDING)
    assert [path for path, *_ in server.requests] == ["/hook"]


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_of_the_server_is_raised(server, status):
    server.status = status
    with pytest.raises(HTTPError, match=str(status)):
        Webhook(server.url)(FINDING)


def test_a_server_that_does_not_respond_raises(server, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(Handler, "send_response", lambda *_: answer.wait(60))
    monkeypatch.setattr(alerts, "_TIMEOUT", 0.05)
    with pytest.raises(OSError, match="timed out"):
        Webhook(server.url)(FINDING)
    answer.set()


def test_a_server_that_is_gone_raises_without_the_path():
    with Server() as server:
        url = f"{server.url}/secret"
        server.shutdown()
    with pytest.raises(URLError) as error:
        Webhook(url)(FINDING)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "example.com/a", "file:///etc/passwd", "ftp://a/b", "http://", "http://a/b c\nd"]
)
def test_only_http_urls_are_allowed(url):
    with pytest.raises(ValueError, match="must be an http or https URL"):
        GradientMonitor(alerts=url)


def test_the_path_of_a_wrong_url_is_not_printed():
    with pytest.raises(ValueError, match=r"htps, host 'example\.com'") as error:
        Webhook("htps://example.com/secret")
    assert "secret" not in str(error.value)


def test_a_wrong_argument_is_refused():
    with pytest.raises(TypeError, match="Received: alerts=3"):
        GradientMonitor(alerts=3)
    with pytest.raises(ValueError, match="Choose one of: json, slack"):
        Webhook("https://example.com", format="teams")
