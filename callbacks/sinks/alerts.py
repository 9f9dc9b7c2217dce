"""Sink that sends findings to a function or a webhook."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from gradkeeper._arguments import choice
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks._scalars import finite_json
from gradkeeper.callbacks.sinks.sink import Sink

_FORMATS = ("json", "slack")
_SLACK = "hooks.slack.com"
# Seconds without a response from the server.
_TIMEOUT = 10.0


class Webhook:
    """Webhook that receives each finding as a POST request with a JSON body.

    Redirects are not followed. Messages contain the host only, because the path of a webhook is
    often secret.

    Args:
        url: an http or https URL.
        format: "json" sends the attributes of `Finding`; NaN and infinite numbers are the strings
            "NaN", "Infinity" and "-Infinity". "slack" sends a message in the format of Slack's
            incoming webhooks (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).
            By default "slack" for hooks.slack.com, else "json".

    Raises:
        ValueError: if `url` is not an http or https URL, or if `format` is unknown.
    """

    def __init__(self, url: str, *, format: Literal["json", "slack"] | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or url.split() != [url]:
            raise ValueError(
                "A webhook must be an http or https URL. Received: "
                f"{parts.scheme or 'no scheme'}, host {parts.hostname!r}"
            )
        default = "slack" if parts.hostname == _SLACK else "json"
        self._format = choice("format", default if format is None else format, _FORMATS)
        self._url, self._host = url, parts.hostname

    def __repr__(self) -> str:
        return f"Webhook(host={self._host!r}, format={self._format!r})"

    def __call__(self, finding: Finding) -> None:
        """Send the finding.

        Raises:
            OSError: if the server does not confirm it, or does not respond within 10 seconds.
        """
        body = _slack(finding) if self._format == "slack" else finite_json(finding.to_dict())
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with _OPENER.open(request, timeout=_TIMEOUT):
            pass


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """Return None, so that `open` raises an HTTPError."""


_OPENER = urllib.request.build_opener(_RefuseRedirects)


def _slack(finding: Finding) -> dict[str, str]:
    """Return a message with the characters escaped that Slack requires to be escaped."""
    text = f"{finding.severity}: {finding}"
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, escaped)
    return {"text": text}


Alerts: TypeAlias = Callable[[Finding], object] | str


class AlertSink(Sink):
    """Sink that calls a function with each finding, in a background thread.

    Args:
        alerts: a function of a finding, such as a `Webhook`, or the URL of a webhook.

    Raises:
        TypeError: if `alerts` is neither a function nor a string.
        ValueError: if `alerts` is a string that is not an http or https URL.
    """

    in_background = chief_only = True

    def __init__(self, alerts: Alerts) -> None:
        if not isinstance(alerts, str) and not callable(alerts):
            raise TypeError(
                f"alerts must be a function or the URL of a webhook. Received: alerts={alerts!r}"
            )
        self._send = Webhook(alerts) if isinstance(alerts, str) else alerts

    def write_finding(self, finding: Finding) -> None:
        self._send(finding)
