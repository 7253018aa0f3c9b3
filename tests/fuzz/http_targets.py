"""Fuzzed: what clients send. Heads and bodies, and the parsers behind them."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final, cast

from multidict import CIMultiDict

from raftkv.server.http import (
    conditions,
    guards,
    leases,
    locks,
    membership,
    ranges,
    requests,
    targets,
    txns,
    watching,
)
from raftkv.server.http import problems as http_problems
from raftkv.server.http.app import create_server
from raftkv.server.http.routes import Listener
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics
from tests.fuzz.support import Sink, Taken, must
from tests.server.http.fake_driver import FakeDriver

# The version is the request's own, also one that is refused.
_STATUS_LINE: Final = re.compile(rb"HTTP/[0-9]\.[0-9] [1-5][0-9][0-9] ")


async def _serve(content: bytes, step: int) -> bytes:
    server = create_server(
        Listener.CLIENT | Listener.ADMIN,
        FakeDriver(),
        HttpSettings(node_name="n1", linger_seconds=0.0),
        Metrics(),
        host="127.0.0.1",
        authenticate=None,
    )
    # Whoever speaks at first may hand the connection over to another protocol.
    sink = Sink()
    sink.protocol = server()
    sink.protocol.connection_made(sink)
    is_lost = False

    def now() -> asyncio.Protocol:
        return cast("asyncio.Protocol", sink.get_protocol())

    def lose() -> None:
        nonlocal is_lost
        if not is_lost:
            is_lost = True
            asyncio.get_running_loop().call_soon(now().connection_lost, None)

    sink.closed = lose
    for start in range(0, len(content), step):
        if sink.is_closed:
            break
        now().data_received(content[start : start + step])
        if start % (16 * step) == 0:
            await asyncio.sleep(0)
    # Some turns of the loop for what was asked; nothing here waits for anything else.
    for _ in range(30):
        await asyncio.sleep(0)
    if not sink.is_closed:
        now().eof_received()
        sink.close()
    for _ in range(3):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return bytes(sink.written)


def http_head(data: bytes) -> None:
    """A connection to the client port: what comes back is HTTP, and never a bug of the server."""
    taken = Taken(data)
    step = taken.number(1) + 1
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(_raise_later)
        _UNHANDLED.clear()
        written = runner.run(_serve(taken.rest[:4096], step))
    assert not _UNHANDLED, _UNHANDLED
    assert not written or _STATUS_LINE.match(written), written[:100]
    assert b'"code":"internal"' not in written, written
    assert b" 500 " not in written[:40]


_UNHANDLED: Final[list[str]] = []


def _raise_later(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _UNHANDLED.append(repr(context))


_BODIES: Final[tuple[Callable[[bytes], object], ...]] = (
    lambda body: txns.parse_txn(body, 1 << 20),
    leases.parse_grant,
    lambda body: locks.parse_acquire(b"name", body, b"owner"),
    lambda body: membership.parse_bootstrap("", body),
    lambda body: membership.parse_drain("POST", "", body),
    membership.parse_add,
    lambda body: membership.parse_replace("00000000000000ab", body),
    membership.parse_transfer,
    membership.parse_compact,
)


def json_body(data: bytes) -> None:
    """Every JSON body that a call takes: understood, or refused by name."""
    for parse in _BODIES:
        try:
            parse(data)
        except http_problems.Refused as refused:
            must(400 <= refused.problem.kind.status < 500)


def http_target(data: bytes) -> None:
    """Targets, queries and header values: understood, or refused by name."""
    text = Taken(data).rest.decode("utf-8", "surrogateescape")
    first, _, second = text.partition("\n")
    headers = CIMultiDict[str](
        [
            (name, second)
            for name in (
                *("If-Match", "If-None-Match", "Idempotency-Key", "X-RaftKV-Fence"),
                *("Last-Event-ID", "Accept", "X-RaftKV-Config-Index", "Host", "Origin"),
            )
        ]
    )
    try:
        path, query = targets.split_target(first)
    except http_problems.Refused:
        path, query = "/", "".join(each for each in first if each.isascii())
    for parse in cast(
        "tuple[Callable[[], object], ...]",
        (
            lambda: targets.key_of_path(path),
            lambda: targets.key_of_base64url(path),
            lambda: ranges.parse_range(query, [second]),
            lambda: ranges.parse_delete(query, CIMultiDict()),
            lambda: requests.parse_read(b"k", query, headers),
            lambda: requests.parse_write("PUT", b"k", query, headers),
            lambda: requests.parse_write("POST", b"k", query, CIMultiDict()),
            lambda: watching.parse_watch(query, headers),
            lambda: guards.parse_guards(headers),
            lambda: conditions.parse_tags("If-Match", [second]),
            lambda: conditions.write_condition([second], []),
            lambda: leases.parse_list(query),
            lambda: locks.parse_list(query),
            lambda: locks.release(b"name", second),
            lambda: requests.check_head(headers, is_write=True, must_be_local=True),
            lambda: membership.parse_config_index(headers),
        ),
    ):
        try:
            parse()
        except http_problems.Refused as refused:
            must(400 <= refused.problem.kind.status < 500)
