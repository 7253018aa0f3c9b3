"""The command that runs in pods, tried on a socket, and what is made of what it says."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typing_extensions import override

from benchmarks import service
from benchmarks.pod_puts import puts


class Node(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201 if len(body) == 256 else 400)
        self.send_header("X-RaftKV-Node", "n2")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_puts_are_timed_on_connections_of_their_own() -> None:
    with HTTPServer(("127.0.0.1", 0), Node) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found = puts("127.0.0.1", server.server_port, 2, 3)
        server.shutdown()
        thread.join()
    assert [each["node"] for each in found] == ["n2", "n2"]
    assert all(len(ms) == 3 and min(ms) > 0 for each in found for ms in [_list(each["ms"])])


def _list(value: object) -> list[float]:
    assert isinstance(value, list)
    return value


def test_ways_are_compared_with_loopback() -> None:
    found = {
        service._LOOPBACK: [{"node": "n1", "ms": [1.0, 1.0, 1.5]}],
        service._DIRECT: [{"node": "n1", "ms": [1.25]}],
        service._SERVICE: [{"node": "n1", "ms": [1.5]}, {"node": "n2", "ms": [3.0, 3.0]}],
    }
    entries = service.summarise(found, "n1")
    above = [entry["p50 above loopback, ms"] for entry in entries]
    assert above == pytest.approx([0.0, 0.25, 2.0, 0.5, 2.0])
    assert [entry["PUTs"] for entry in entries] == [3, 1, 3, 1, 2]
