"""Live view as a page."""

import http.client
import json
import re
import threading

import numpy as np
import pytest
from growing_run import GrowingRun
from histories import window

from gradkeeper.callbacks.reporting.live.server import PageServer, data
from gradkeeper.callbacks.reporting.live.view import LiveView
from gradkeeper.callbacks.sinks import ParquetSink


@pytest.fixture
def request_of(tmp_path):
    """Serve `tmp_path`; return `request(path)`, which returns status, headers and body."""
    with PageServer(LiveView(tmp_path), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def request(path, method="GET", **headers):
            connection = http.client.HTTPConnection(*server.server_address, timeout=10)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            found = answer.status, answer.headers, answer.read()
            connection.close()
            return found

        request.port = server.server_port
        request.address = server.server_address
        yield request
        server.shutdown()
        thread.join()


def test_the_page_fetches_nothing_from_elsewhere(request_of):
    status, headers, page = request_of("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"</html>" in page
    assert re.findall(rb"(?:src|href|fetch)[=(]\W*(\w*)", page) == [b"data", b"data"]  # icon, fetch
    assert b"://" not in page
    assert b"innerHTML" not in page


def test_data_contain_what_is_new(request_of, tmp_path):
    def get(**query):
        path = "/data?" + "&".join(f"{name}={value}" for name, value in query.items())
        status, headers, body = request_of(path)
        assert status == 200
        assert headers["Content-Type"] == "application/json"
        return json.loads(body)

    empty = get()
    assert (empty["bins"], empty["facts"], empty["layers"]) == ([], {}, [])
    run = GrowingRun(tmp_path)
    run.write(0, 3)
    first = get(version=empty["version"], bins=0, findings=0)
    assert first["layers"] == ["rnn/cell", "dense"]
    assert [each[0] for each in first["bins"]] == [0, 1, 2]
    assert first["bins"][1] == pytest.approx([1, 0.5, 2 * 3**0.5, 2 * 2**0.5, 2], rel=1e-4)
    assert first["norms"] == first["bins"][2][2:]
    run.write(3, 5)
    second = get(version=first["version"], bins=3, findings=0)
    assert second["bins_before"] == 3
    assert [each[0] for each in second["bins"]] == [3, 4]
    run.resume(2)
    third = get(version=second["version"], bins=5, findings=0)
    assert third["version"] != second["version"]
    assert third["bins_before"] == 0
    assert [each[0] for each in third["bins"]] == [0, 1]


def test_findings_are_sent_once(tmp_path):
    sink, view = ParquetSink(tmp_path), LiveView(tmp_path)
    sink.write(window([[1.0, 2.0, 3.0], [np.nan, 2.0, np.inf]], scalars={"loss": [1.0, np.inf]}))
    view.refresh()
    found = data(view)
    assert [(each["rule"], each["step"]) for each in found["findings"]] == [("nonfinite", 1)]
    assert found["findings"][0]["advice"]
    assert found["bins"][1] == [1, None, -1, -1, -1]
    again = data(view, found["version"], len(found["bins"]), 1)
    assert (again["findings_before"], again["findings"], again["bins"]) == (1, [], [])
    assert data(view, "other", 2, 1)["findings"] == found["findings"]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("localhost:9000", 200),  # a forwarded port
        ("localhost", 200),
        ("attacker.example:{port}", 403),
        ("127.0.0.1.attacker.example", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("path", ["/", "/data"])
def test_only_names_of_this_machine_are_answered(request_of, path, host, status):
    assert request_of(path, Host=host.format(port=request_of.port))[0] == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/data", 501),
        ("PUT", "/", 501),
        ("HEAD", "/", 501),
        ("OPTIONS", "/data", 501),
        ("GET", "/other", 404),
        ("GET", "/../pyproject.toml", 404),
        ("GET", "/data?bins=many", 400),
    ],
)
def test_other_requests_are_refused(request_of, method, path, status):
    assert request_of(path, method)[0] == status


def test_the_server_listens_on_this_machine_only(request_of):
    assert request_of.address[0] == "127.0.0.1"


def test_a_port_in_use(request_of, tmp_path):
    with pytest.raises(OSError, match=f"another port.*port={request_of.port}"):
        PageServer(LiveView(tmp_path), request_of.port)
