"""Puts from inside a pod, one after the other: `python - HOST PORT CONNECTIONS PUTS < pod_puts.py`.

For the standard library alone, since it is sent into pods. Prints one line of JSON: for each
connection which node answered, and the milliseconds of every put.
"""

import json
import re
import socket
import sys
import time

VALUE = b"v" * 256


def _answer(connection: socket.socket) -> bytes:
    """One whole answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head = received.partition(b"\r\n\r\n")[0]
    found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    missing = len(head) + 4 + int(found[1] if found else 0) - len(received)
    while missing > 0:
        more = _more(connection)
        received += more
        missing -= len(more)
    return received


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the node closed the connection")
    return data


def puts(host: str, port: int, connections: int, count: int) -> list[dict[str, object]]:
    """The first put of a connection is not counted. Raises ConnectionError for a refusal."""
    found: list[dict[str, object]] = []
    for number in range(connections):
        took_ms, node = [], ""
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for place in range(count + 1):
                head = (
                    f"PUT /v1/kv/bench/service/{number}-{place} HTTP/1.1\r\nHost: {host}\r\n"
                    f"Content-Length: {len(VALUE)}\r\n\r\n"
                )
                began = time.perf_counter()
                connection.sendall(head.encode() + VALUE)
                answer = _answer(connection)
                took_ms.append((time.perf_counter() - began) * 1e3)
                if answer[9:12] not in {b"200", b"201"}:
                    raise ConnectionError(answer[:200].decode(errors="replace"))
                by = re.search(rb"\r\nx-raftkv-node: *([^\r]+)", answer, re.IGNORECASE)
                node = by[1].decode() if by else ""
        found.append({"node": node, "ms": took_ms[1:]})
    return found


if __name__ == "__main__":
    print(json.dumps(puts(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
