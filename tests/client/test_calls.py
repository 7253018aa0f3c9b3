"""The client library against real listeners, and against servers that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.client import Client, Deleted, Written
from raftkv.client.errors import (
    ConditionFailedError,
    OutcomeUnknownError,
    RequestFailedError,
    UnreachableError,
)
from raftkv.client.wire import key_path, parse_endpoint
from raftkv.node.events import Consistency
from raftkv.node.messages import Failure, FailureCode
from raftkv.server.http.targets import key_of_base64url, key_of_path
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import Served, serving

# Nothing listens on the discard port of a test machine.
NOBODY = "http://127.0.0.1:9"


@asynccontextmanager
async def client_of(
    *served: Served, timeout_seconds: float = 5.0, retry_writes: bool = True
) -> AsyncIterator[Client]:
    endpoints = [f"127.0.0.1:{each.port}" for each in served]
    async with Client(
        endpoints, timeout_seconds=timeout_seconds, retry_writes=retry_writes
    ) as client:
        yield client


# ---- plain use ------------------------------------------------------------------------------


async def test_put_get_append_delete() -> None:
    async with serving() as served, client_of(served) as client:
        assert await client.get(b"k") is None
        assert await client.put(b"k", b"one") == Written(101, 1)
        assert await client.append(b"k", b"\xff") == Written(102, 2)
        item = await client.get(b"k", consistency="local", min_revision=102)
        assert item is not None
        assert (item.value, item.create_revision, item.mod_revision) == (b"one\xff", 101, 102)
        assert (item.version, item.revision) == (2, 102)
        assert served.driver.reads[-1][1:3] == (Consistency.LOCAL, 102)
        assert await client.delete(b"k") == Deleted(1, 103)
        assert await client.delete(b"k") == Deleted(0, 103)
        assert await client.put(b"empty", b"") == Written(104, 1)
        empty = await client.get(b"empty")
        assert empty is not None
        assert empty.value == b""


async def test_conditions() -> None:
    async with serving() as served, client_of(served) as client:
        await client.put(b"k", b"one", create_only=True)
        with pytest.raises(ConditionFailedError) as caught:
            await client.put(b"k", b"two", create_only=True)
        assert caught.value.mod_revision == 101
        with pytest.raises(ConditionFailedError):
            await client.append(b"k", b"two", if_match=7)
        await client.put(b"k", b"two", if_match=101)
        with pytest.raises(ConditionFailedError) as caught:
            await client.delete(b"absent", if_match=7)
        assert caught.value.mod_revision is None


async def test_status_and_cluster() -> None:
    async with serving() as served, client_of(served) as client:
        assert (await client.status(client.endpoints[0]))["name"] == "n1"
        assert (await client.cluster())["fault_tolerance"] == 0


@given(st.binary(min_size=1, max_size=511))
def test_every_key_has_a_path_that_names_it(key: bytes) -> None:
    path = key_path(key)
    if path.startswith("/v1/kv/"):
        text = path.removeprefix("/v1/kv/")
        assert key_of_path(text) == unquote_to_bytes(text) == key
        assert not {"", ".", ".."} & set(text.split("/"))
    else:
        assert key_of_base64url(path.removeprefix("/v1/k/")) == key


@pytest.mark.parametrize("key", [b"..", b"a/../b", b"./a", b"a//b", b"/a", b"a/", b"/"])
def test_keys_that_proxies_would_fold_travel_as_base64url(key: bytes) -> None:
    assert key_path(key).startswith("/v1/k/")


@pytest.mark.parametrize("key", [b"a", b"a/b", b"...", b".a", b"a%2Fb", b"\xff", b"a b+c?d#e"])
async def test_readable_keys_stay_readable_and_exact(key: bytes) -> None:
    assert key_path(key).startswith("/v1/kv/")
    async with serving() as served, client_of(served) as client:
        await client.put(key, b"v")
        assert list(served.driver.items) == [key]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:7400", "http://127.0.0.1:7400"),
        ("http://db:7400/", "http://db:7400"),
        ("https://db", "https://db"),
        ("[::1]:7400", "http://[::1]:7400"),
    ],
)
def test_endpoints(text: str, url: str) -> None:
    assert str(parse_endpoint(text).origin()) == url


@pytest.mark.parametrize("text", ["", "http://", "ftp://db", "http://db/path", "db:port", ":7400"])
def test_not_an_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="is not an endpoint"):
        parse_endpoint(text)


def test_a_client_needs_an_endpoint() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Client([])


# ---- failures and retries -------------------------------------------------------------------


async def test_another_endpoint_is_tried_when_nothing_listens() -> None:
    async with serving() as served:
        endpoints = [NOBODY, f"http://127.0.0.1:{served.port}"]
        async with Client(endpoints) as client:
            assert await client.put(b"k", b"v") == Written(101, 1)
            assert len(served.driver.commands) == 1


async def test_when_nothing_listens_anywhere_it_says_so_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with Client([NOBODY, NOBODY], timeout_seconds=30, fail_fast=True) as client:
        started_at = loop.time()
        with pytest.raises(UnreachableError, match="connection refused"):
            await client.put(b"k", b"v")
        with pytest.raises(UnreachableError, match="connection refused"):
            await client.status(client.endpoints[0])
        assert loop.time() - started_at < 5


async def test_a_name_without_an_address_is_said_in_words() -> None:
    async with Client(["http://nosuch.invalid:7400"], fail_fast=True) as client:
        with pytest.raises(UnreachableError, match=r"no address is known for nosuch\.invalid"):
            await client.get(b"k")


async def test_a_write_that_was_not_committed_is_tried_elsewhere() -> None:
    refusing = FakeDriver(failure=Failure(FailureCode.NO_LEADER, "no leader"))
    async with serving(refusing) as first, serving() as second, client_of(first, second) as client:
        assert await client.put(b"k", b"v") == Written(101, 1)
        assert (len(refusing.commands), len(second.driver.commands)) == (1, 1)


async def test_rule_18_without_a_key_an_unknown_outcome_is_never_tried_again() -> None:
    unknown = FakeDriver(failure=Failure(FailureCode.UNKNOWN, "the leader went away"))
    async with (
        serving(unknown) as first,
        serving() as second,
        client_of(first, second, retry_writes=False) as client,
    ):
        for call in (client.put(b"k", b"v"), client.append(b"k", b"v"), client.delete(b"k")):
            with pytest.raises(OutcomeUnknownError, match="may or may not"):
                await call
        assert (len(unknown.commands), len(second.driver.commands)) == (3, 0)


async def test_a_refusal_is_not_retried() -> None:
    async with serving() as served, client_of(served) as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.put(b"k", b"x" * ((1 << 20) + 1))
        assert (caught.value.status, caught.value.code) == (413, "too_large")
        with pytest.raises(RequestFailedError, match="1 to 511 bytes"):
            await client.get(b"x" * 512)
        assert not served.driver.commands


async def test_a_node_is_left_alone_for_as_long_as_it_asks() -> None:
    refusing = FakeDriver(failure=Failure(FailureCode.NO_LEADER, "no leader"))
    async with serving(refusing) as served, client_of(served, timeout_seconds=0.5) as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.put(b"k", b"v")
        assert caught.value.code == "no_leader"
        # Retry-After says 1 s, which is beyond the deadline.
        assert len(refusing.commands) == 1


class Misbehaving:
    """A server that counts the requests it gets and then does as it likes."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.behave: Callable[[int], bytes | None] = lambda _: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head)
                lines = head.lower().split(b"\r\n")
                lengths = [line[15:] for line in lines if line.startswith(b"content-length:")]
                await reader.readexactly(int(lengths[0]) if lengths else 0)
                answer = self.behave(len(self.requests))
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def misbehaving(
    *, retry_writes: bool = True, timeout_seconds: float = 0.5
) -> AsyncIterator[tuple[Misbehaving, Client]]:
    server = Misbehaving()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with (
        listening,
        Client(
            [f"127.0.0.1:{port}"],
            timeout_seconds=timeout_seconds,
            retry_writes=retry_writes,
            prefer_leader=False,
        ) as client,
    ):
        yield server, client


def problem(
    status: int,
    code: str,
    detail: str = "because",
    *,
    retryable: bool = False,
    outcome: str = "not_committed",
) -> bytes:
    fields = {"detail": detail, "code": code, "retryable": retryable, "outcome": outcome}
    body = json.dumps(fields).encode()
    head = f"HTTP/1.1 {status} Problem\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


OK = b'HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{"revision":7,"version":2}'


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_rule_18_a_kept_connection_that_breaks_never_resends_a_write(method: str) -> None:
    async with misbehaving(retry_writes=False) as (server, client):
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "PUT": lambda: client.put(b"k", b"v"),
            "DELETE": lambda: client.delete(b"k"),
            "POST": lambda: client.append(b"k", b"v"),
        }
        # The first answer keeps the connection; on it the second request is read, executed,
        # and the connection closed: exactly when aiohttp would send again by itself.
        server.behave = lambda count: OK if count == 1 else None
        await client.put(b"k", b"v")
        with pytest.raises(OutcomeUnknownError):
            await calls[method]()
        assert len(server.requests) == 2
        assert server.requests[1].startswith(method.encode())


async def test_rule_18_a_write_is_repeated_only_as_the_same_bytes_under_one_key() -> None:
    async with misbehaving(timeout_seconds=5) as (server, client):
        server.behave = lambda count: None if count < 3 else OK
        assert await client.put(b"k", b"v") == Written(7, 2)
        assert len(server.requests) == 3
        assert len(set(server.requests)) == 1
        assert b"Idempotency-Key: " in server.requests[0]
        # Another call is another write.
        await client.put(b"k", b"v")
        assert server.requests[3] != server.requests[0]


async def test_rule_18_what_may_have_happened_stays_unknown_until_its_outcome_is_learned() -> None:
    refusal = problem(503, "no_leader", retryable=True)
    async with misbehaving() as (server, client):
        # The first attempt is lost; that others are certainly not committed says nothing of it.
        server.behave = lambda count: None if count == 1 else refusal
        with pytest.raises(OutcomeUnknownError):
            await client.put(b"k", b"v", create_only=True)


@pytest.mark.parametrize(
    ("second", "error"),
    [
        # The outcome of the first attempt, as the node remembers it.
        (problem(412, "condition_failed"), ConditionFailedError),
        # A refusal that is none of an applied command settles nothing.
        (problem(401, "unauthorised"), OutcomeUnknownError),
    ],
)
async def test_rule_18_only_an_applied_outcome_settles_an_attempt_that_was_lost(
    second: bytes, error: type[Exception]
) -> None:
    async with misbehaving(timeout_seconds=5) as (server, client):
        server.behave = lambda count: None if count == 1 else second
        with pytest.raises(error):
            await client.put(b"k", b"v", create_only=True)
        assert len(server.requests) == 2


async def test_a_node_that_does_not_know_the_outcome_is_asked_again_under_the_key() -> None:
    async with misbehaving(timeout_seconds=5) as (server, client):
        unknown = problem(504, "unknown", outcome="unknown")
        server.behave = lambda count: unknown if count == 1 else OK
        assert await client.append(b"k", b"v") == Written(7, 2)
        assert len(server.requests) == 2


async def test_retries_end_at_the_deadline() -> None:
    async with misbehaving() as (server, client):
        server.behave = lambda _: problem(503, "no_leader", retryable=True)
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        with pytest.raises(RequestFailedError) as caught:
            await client.put(b"k", b"v")
        assert caught.value.code == "no_leader"
        assert len(server.requests) >= 2
        assert loop.time() - started_at < 2


async def test_a_read_is_tried_again_when_its_connection_breaks() -> None:
    async with misbehaving(timeout_seconds=5) as (server, client):
        found = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-RaftKV-Revision: 9\r\n"
            b"X-RaftKV-Create-Revision: 7\r\nX-RaftKV-Mod-Revision: 8\r\nX-RaftKV-Version: 2\r\n"
            b"\r\nv"
        )
        server.behave = lambda count: None if count < 3 else found
        item = await client.get(b"k")
        assert item is not None
        assert (item.value, item.mod_revision) == (b"v", 8)
        assert len(server.requests) == 3


async def test_a_proxys_error_page_says_nothing_about_a_write() -> None:
    async with misbehaving(retry_writes=False) as (server, client):
        page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops"
        server.behave = lambda _: page
        with pytest.raises(OutcomeUnknownError, match="502"):
            await client.put(b"k", b"v")
        assert len(server.requests) == 1
        with pytest.raises(RequestFailedError, match="502"):
            await client.get(b"k")
        assert len(server.requests) > 2  # a read is safe to repeat


async def test_a_server_that_failed_at_a_read_has_changed_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer_wrongly(*_: object) -> Written:
        return Written(1, 1)  # to a read: a bug

    async with serving() as served, client_of(served) as client:
        monkeypatch.setattr(served.driver, "read", answer_wrongly)
        with pytest.raises(RequestFailedError, match="the server failed"):
            await client.get(b"k")


async def test_some_other_servers_success_is_not_ours() -> None:
    async with misbehaving() as (server, client):
        server.behave = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        with pytest.raises(OutcomeUnknownError, match="no RaftKV node"):
            await client.put(b"k", b"v")
        with pytest.raises(RequestFailedError, match="no RaftKV node"):
            await client.get(b"k")
        with pytest.raises(RequestFailedError, match="no RaftKV node"):
            await client.status(client.endpoints[0])


async def test_redirects_are_not_followed() -> None:
    async with misbehaving() as (server, client):
        server.behave = lambda _: (
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:9/\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        with pytest.raises(OutcomeUnknownError, match="307"):
            await client.put(b"k", b"v")
        assert len(server.requests) == 1


async def test_no_answer_in_time_is_an_unknown_outcome() -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with (
        serving(driver) as served,
        client_of(served, timeout_seconds=0.1, retry_writes=False) as client,
    ):
        with pytest.raises(OutcomeUnknownError, match="in time"):
            await client.put(b"k", b"v")
        assert len(driver.commands) == 1


async def test_it_must_be_opened() -> None:
    with pytest.raises(RuntimeError, match="context manager"):
        await Client([NOBODY]).get(b"k")
