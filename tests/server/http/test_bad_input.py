"""Bad inputs of faults.md section 6: each gives a 4xx or a closed connection in bounded time."""

import asyncio

import pytest

from raftkv.server.http.calls import keys
from raftkv.server.http.connection import READ_BUFFER_BYTES
from raftkv.server.http.fast import exchange
from raftkv.server.http.fast.connection import PIPELINED_MAX
from raftkv.server.http.fast.wire import Wire
from raftkv.server.http.settings import HttpSettings
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import Raw, Served, serving, until

pytestmark = pytest.mark.usefixtures("both_ways")
BOTH_LOOPS = True

HOST = b"Host: localhost\r\n"
PUT = b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST
GET = b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n"

# What an event loop hands on at once, at most.
RECEIVED_BYTES_MAX = 256 << 10

# Short deadlines, so that the tests need not wait for the real ones.
IMPATIENT = HttpSettings("n1", head_seconds_max=0.2, body_seconds_max=0.2, linger_seconds=0.05)
# Shorter still, where all that is awaited is the end of the connection.
CURT = HttpSettings("n1", body_seconds_max=0.05, linger_seconds=0.05)


async def drip(raw: Raw, data: bytes) -> None:
    """Send a byte at a time, each well within any deadline, until the server has had enough."""
    for byte in data:
        if raw.reader.at_eof() or raw.writer.is_closing():
            return
        raw.send(bytes((byte,)))
        await asyncio.sleep(0.02)


async def test_row_1_a_head_that_drips_is_cut_off_and_others_are_served() -> None:
    async with serving(settings=IMPATIENT) as served:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(drip_head(served))
            assert (await served.ask("GET", "/livez")).status == 200
        assert loop.time() - started_at < 5.0
        await until(lambda: not served.server.connection_count)


async def drip_head(served: Served) -> None:
    async with served.connect() as raw:
        await asyncio.gather(drip(raw, GET[:-1] * 2), raw.until_closed())


async def test_row_1_a_connection_that_sends_nothing_is_cut_off() -> None:
    async with serving(settings=IMPATIENT) as served, served.connect() as raw:
        assert await raw.until_closed() == b""


async def test_row_1_a_second_head_has_a_deadline_too() -> None:
    async with serving(settings=IMPATIENT) as served, served.connect() as raw:
        raw.send(GET)
        assert (await raw.answer()).status == 404
        await asyncio.gather(drip(raw, GET[:-1] * 2), raw.until_closed())


async def test_an_idle_connection_outlives_the_head_deadline() -> None:
    async with serving(settings=IMPATIENT) as served, served.connect() as raw:
        raw.send(GET)
        await raw.answer()
        await asyncio.sleep(2 * IMPATIENT.head_seconds_max)
        raw.send(GET)
        assert (await raw.answer()).status == 404


@pytest.mark.parametrize("sent", [b"", b"x" * 10])
async def test_row_2_a_body_that_does_not_come_is_408(sent: bytes) -> None:
    async with serving(settings=IMPATIENT) as served, served.connect() as raw:
        raw.send(PUT + b"Content-Length: 1000000\r\n\r\n" + sent)
        answer = await raw.answer()
        assert (answer.status, answer.code()) == (408, "body_timeout")
        assert answer.headers["Connection"] == "close"
        assert not served.driver.commands
        assert await raw.until_closed() == b""


async def test_row_2_a_body_that_drips_is_408() -> None:
    async with serving(settings=IMPATIENT) as served, served.connect() as raw:
        raw.send(PUT + b"Content-Length: 1000000\r\n\r\n")
        dripping = asyncio.create_task(drip(raw, b"x" * 1000))
        assert (await raw.answer()).status == 408
        assert await raw.until_closed() == b""
        dripping.cancel()


LIMIT = 100_000
SMALL_VALUES = HttpSettings("n1", value_bytes_max=LIMIT, linger_seconds=0.05)


async def test_row_3_a_declared_length_over_the_limit_is_413_before_the_body() -> None:
    async with serving(settings=SMALL_VALUES) as served, served.connect() as raw:
        raw.send(PUT + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1))
        answer = await raw.answer()
        assert (answer.status, answer.code()) == (413, "too_large")
        assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("over", [0, 1])
async def test_row_3_the_limit_is_exact(over: int) -> None:
    async with serving(settings=SMALL_VALUES) as served:
        answer = await served.ask("PUT", "/v1/kv/a", body=b"x" * (LIMIT + over))
        assert answer.status == (413 if over else 201)


async def test_row_3_a_chunked_body_over_the_limit_is_413_without_being_kept() -> None:
    async with serving(settings=SMALL_VALUES) as served, served.connect() as raw:
        raw.send(PUT + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"

        async def send_without_end() -> None:
            while not raw.writer.is_closing():
                raw.send(chunk)
                await raw.writer.drain()

        sending = asyncio.create_task(send_without_end())
        answer = await raw.answer()
        assert (answer.status, answer.code()) == (413, "too_large")
        await raw.until_closed()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert not served.driver.commands


MALFORMED_HEADS = {
    "two content lengths": PUT + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "length and chunked": PUT + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
    "signed length": PUT + b"Content-Length: +10\r\n\r\n",
    "negative length": PUT + b"Content-Length: -1\r\n\r\n",
    "huge length": PUT + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "unknown transfer coding": PUT + b"Transfer-Encoding: gzip\r\n\r\n",
    "two hosts": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "no host": b"GET /v1/kv/a HTTP/1.1\r\n\r\n",
    "bare line feeds": b"GET /v1/kv/a HTTP/1.1\nHost: localhost\n\n",
    "folded header": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "NUL in a value": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "space before a colon": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n",
    "lower case method": b"get /v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"BREW /v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "TRACE": b"TRACE /v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /v1/kv/a\r\n\r\n",
    "HTTP/2.0": b"GET /v1/kv/a HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "absolute form": b"GET http://localhost/v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "no slash": b"GET v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw non-ASCII": b"GET /v1/kv/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw UTF-8": b"GET /v1/kv/\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /v1/kv/a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "long target": b"GET /v1/kv/" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "long header": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    "many headers": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 1000 + b"\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "random": bytes(range(256)),
    "bad port": b"GET //[::1/v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "upgrade": PUT + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Encoding: x\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("head", MALFORMED_HEADS.values(), ids=MALFORMED_HEADS.keys())
async def test_rows_5_and_33_malformed_heads_are_4xx_or_closed(
    served: Served, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with served.connect() as raw:
        raw.send(head)
        try:
            answer = await raw.answer()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass  # closed without a word
        else:
            assert 400 <= answer.status < 500
            assert answer.code()
    assert not served.driver.commands
    assert not served.driver.reads
    assert not caplog.records  # or anybody could fill the log
    assert (await served.ask("GET", "/livez")).status == 200


MALFORMED_CHUNKS = {
    "huge chunk size": b"FFFFFFFFFFFFFFFF\r\nx",
    "overflowing chunk size": b"FFFFFFFFFFFFFFFFFFFFF\r\nx",
    "not hex": b"zz\r\nx",
    "signed chunk size": b"-1\r\nx",
    "wrong chunk end": b"1\r\nxy\r\n0\r\n\r\n",
    "bare line feed": b"1\nx\n0\n\n",
    "endless extension": b"1;" + b"a" * 50_000,
    "huge trailers": b"1\r\nx\r\n0\r\n" + b"X: " + b"a" * 50_000 + b"\r\n\r\n",
    "many trailers": b"1\r\nx\r\n0\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
}


@pytest.mark.parametrize("chunks", MALFORMED_CHUNKS.values(), ids=MALFORMED_CHUNKS.keys())
@pytest.mark.parametrize("is_split", [False, True])
async def test_row_4_malformed_chunks_are_4xx_or_closed(
    chunks: bytes, is_split: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(settings=CURT) as served, served.connect() as raw:
        head = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
        if is_split:
            raw.send(head)
            await until(lambda: served.server.in_flight)
            raw.send(chunks)
        else:
            raw.send(head + chunks)
        try:
            answer = await raw.answer()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        else:
            assert 400 <= answer.status < 500
            assert answer.code()
        await raw.until_closed()
        assert not served.driver.commands
        assert not caplog.records


async def test_row_4_endless_tiny_chunks_end_at_the_body_deadline() -> None:
    async with serving(settings=IMPATIENT) as served, served.connect() as raw:
        raw.send(PUT + b"Transfer-Encoding: chunked\r\n\r\n")
        dripping = asyncio.create_task(drip(raw, b"1\r\nx\r\n" * 500))
        assert (await raw.answer()).status == 408
        dripping.cancel()


async def test_row_6_pipelined_requests_are_answered_in_order_and_capped(both_ways: str) -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with serving(driver) as served, served.connect() as raw:
        raw.send(GET * 10_000)
        await until(lambda: driver.waiting)
        if both_ways == "fast":
            # Those at work, and what waits behind them unread, are bounded.
            await until(lambda: buffered_bytes(served) > READ_BUFFER_BYTES)
            assert len(driver.reads) == PIPELINED_MAX
            assert buffered_bytes(served) <= READ_BUFFER_BYTES + RECEIVED_BYTES_MAX
        else:
            # One is at work, and what waits behind it is bounded.
            assert len(driver.reads) == 1
            assert max(len(each._messages) for each in served.server.connections) <= 32
        assert driver.gate is not None
        driver.gate.set()
        for _ in range(10_000):
            assert (await raw.answer()).status == 404


def buffered_bytes(served: Served) -> int:
    """What the only connection on the short way has received and not begun."""
    assert served.server._fast is not None
    (connection,) = served.server._fast.connections
    return len(connection._buffer)


async def test_row_6_a_client_that_never_reads_is_paused_and_then_cut_off() -> None:
    settings = HttpSettings("n1", unread_seconds_max=0.2)
    async with serving(settings=settings) as served:
        await served.ask("PUT", "/v1/kv/a", body=b"x" * (1 << 20))
        async with served.connect() as raw:
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            raw.send(GET * 100)
            await until(lambda: served.server.in_flight)
            # 100 MiB are asked for; what was read of the store is what the sockets hold.
            await until(lambda: served.server.in_flight == 0)
            assert len(served.driver.reads) < 50


async def test_connections_beyond_the_cap_are_told_so() -> None:
    async with serving(settings=HttpSettings("n1", connections_max=2)) as served:
        async with served.connect() as first, served.connect() as second:
            for raw in (first, second):
                raw.send(GET)
                assert (await raw.answer()).status == 404
            async with served.connect() as third:
                answer = await third.answer()
                assert (answer.status, answer.code()) == (429, "overloaded")
                assert await third.until_closed() == b""
        await until(lambda: not served.server.connection_count)
        assert (await served.ask("GET", "/livez")).status == 200


async def test_row_7_an_encoded_body_is_415(served: Served) -> None:
    answer = await served.ask("PUT", "/v1/kv/a", body=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.code()) == (415, "content_encoding")
    assert not served.driver.commands


async def test_row_8_deep_json_is_400(served: Served) -> None:
    for body in (b"[" * 60_000, b'{"cluster_id":' * 4_000, b"1e999", b"NaN"):
        answer = await served.ask("POST", "/v1/cluster/bootstrap", body=body)
        assert (answer.status, answer.code()) == (400, "bad_body")


async def test_a_json_body_has_a_limit_of_its_own(served: Served) -> None:
    answer = await served.ask("POST", "/v1/cluster/bootstrap", body=b" " * 100_000)
    assert answer.status == 413


async def test_row_10_a_hostile_name_is_shown_escaped(served: Served) -> None:
    answer = await served.ask("GET", "/v1/kv/a?%0D%0AX-Evil:%20y=1")
    assert (answer.status, answer.code()) == (400, "bad_parameter")
    assert "X-Evil" not in answer.headers
    assert "\r" not in answer.json()["detail"]


async def test_an_unknown_expectation_is_417(served: Served) -> None:
    answer = await served.ask("PUT", "/v1/kv/a", body=b"", headers={"Expect": "a-miracle"})
    assert (answer.status, answer.code()) == (417, "expectation_failed")


async def test_a_bug_is_a_500_whose_outcome_is_unknown(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError

    monkeypatch.setattr(keys, "end_write", fail)
    monkeypatch.setattr(exchange, "end_write", fail)
    monkeypatch.setattr(Wire, "written", fail)
    answer = await served.ask("PUT", "/v1/kv/a", body=b"v")
    assert (answer.status, answer.code()) == (500, "internal")
    assert answer.json()["outcome"] == "unknown"
    assert answer.headers["Connection"] == "close"
    assert "is a bug of this server" in caplog.text
    assert "/v1/kv/a" not in caplog.text
