"""The same bytes to the short way and to aiohttp: both answer, and ask of the node, the same."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv.outcomes import (
    ConditionFailed,
    Deleted,
    IdempotencyMismatch,
    Incremented,
    Item,
    LockLost,
    NotACounter,
    Replayed,
    Returned,
    TooLarge,
    Written,
)
from raftkv.node.messages import Failure, FailureCode
from raftkv.server.http.authorisation import Authenticate
from raftkv.server.http.settings import HttpSettings
from raftkv.server.tokens import Tokens
from tests.server.http import harness
from tests.server.http.fake_driver import store_at
from tests.server.http.harness import SECONDS_MAX, Served, serving

DATE = re.compile(rb"[a-z]{3}, \d\d [a-z]{3} \d{4} \d\d:\d\d:\d\d gmt")
LIMITS = HttpSettings("n1", value_bytes_max=1000, linger_seconds=0.05)
TOKEN = "abc"

# What is sent, piece by piece, and how many answers are waited for.
Step = tuple[list[bytes], int]


class Pair:
    """A listener of each kind, with nodes that are alike."""

    def __init__(self, fast: Served, usual: Served) -> None:
        self.fast, self.usual = fast, usual

    def reset(self, failure: Failure | None = None) -> None:
        for served in (self.fast, self.usual):
            driver = served.driver
            driver.store = store_at(100)
            driver.failure = failure
            driver.outcomes.clear()
            driver.commands.clear()
            driver.reads.clear()
            driver.queries.clear()
            driver.timeouts.clear()

    async def compare(self, steps: list[Step]) -> list[bytes]:
        """Send the same to both, and check that all is the same; the answers."""
        fast, usual = await asyncio.gather(exchange(self.fast, steps), exchange(self.usual, steps))
        if len(usual) == 2 and usual[0].startswith(b"HTTP/1.0 400"):
            # It refuses whatever came together with a bad head; here the good ones are served.
            assert fast[-2:] == usual
            return fast
        assert fast == usual
        for name in ("commands", "reads", "queries", "timeouts", "max_stale_seconds"):
            assert getattr(self.fast.driver, name) == getattr(self.usual.driver, name)
        assert self.fast.driver.items == self.usual.driver.items
        return fast


async def exchange(served: Served, steps: list[Step]) -> list[bytes]:
    """What comes back until all answers have come or the server closes, comparable."""
    got: list[bytes] = []
    async with asyncio.timeout(SECONDS_MAX), served.connect() as raw:
        try:
            for pieces, answers in steps:
                for piece in pieces:
                    raw.send(piece)
                    await asyncio.sleep(0)
                for _ in range(answers):
                    got.append(await answer(raw.reader))  # noqa: PERF401 keeps what came before
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            got.append(b"closed" + getattr(error, "partial", b""))
    return got


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer with its headers sorted; interim answers are skipped."""
    head = b"HTTP/1.1 100 "
    while head.startswith(b"HTTP/1.1 100 "):
        head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head[:-4].split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines)
    body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    assert DATE.fullmatch(fields[b"date"])
    lines = [line for line in lines if not line.startswith(b"Date: ")]
    return b"\n".join([status_line, *sorted(lines), b"", body])


class Both:
    """Runs both listeners for as long as a module's tests need them."""

    def __init__(self, runner: asyncio.Runner, pair: Pair) -> None:
        self.runner, self.pair = runner, pair

    def compare(self, *steps: Step) -> list[bytes]:
        return self.runner.run(self.pair.compare(list(steps)))


@pytest.fixture(scope="module", params=[False, True], ids=["open", "tokens"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    authenticate: Authenticate | None = None
    if request.param:
        file = tmp_path_factory.mktemp("tokens") / "tokens"
        # sha256 of TOKEN
        digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        file.write_text(f"{digest} write\n")
        tokens = Tokens(file)
        tokens.load()
        authenticate = tokens.authenticate
    stack = AsyncExitStack()

    async def start() -> Pair:
        fast = await stack.enter_async_context(serving(settings=LIMITS, authenticate=authenticate))
        harness.is_fast = False
        try:
            usual = await stack.enter_async_context(
                serving(settings=LIMITS, authenticate=authenticate)
            )
        finally:
            harness.is_fast = True
        return Pair(fast, usual)

    with asyncio.Runner() as runner:
        yield Both(runner, runner.run(start()))
        runner.run(stack.aclose())


KEYS = (
    "a",
    "b",
    "n",
    "%61",
    "%FF",
    "a%2Fb",
    "a/../b",
    "//",
    "%2",
    "%zz",
    "",
    "x" * 512,
    "a+b",
    "!$&'",
)
QUERIES = (
    "", "", "", "", "", "", "?", "?prev=true", "?ttl=30s", "?ttl=0s", "?timeout=2s", "?timeout=0",
    "?op=append", "?op=increment", "?op=increment&by=-5", "?by=1", "?consistency=local",
    "?consistency=bounded&max_stale=5s", "?min_revision=100", "?revision=101", "?revision=9999",
    "?lease=0000000000000065", "?redirect=true", "?x=1", "?prev=true&prev=true", "?prev=%74rue",
    "?after=1&wait=1ms", "?timeout=%FF",
)  # fmt: skip
HEADERS = (
    "Accept: */*", "Accept: application/json", "accept: application/json;q=0.5, text/html",
    "If-Match: *", 'If-Match: "101"', 'If-Match: "101-j"', "If-Match: 101", "If-None-Match: *",
    'If-None-Match: "101"', 'If-None-Match: W/"101"', "Idempotency-Key: 1", "Idempotency-Key: a b",
    "X-RaftKV-Fence: l:7", "X-RaftKV-Fence: l", "X-RaftKV-Cluster: c1", "X-RaftKV-Cluster: c2",
    "Origin: http://localhost", "Origin: http://evil.example", "User-Agent: test", "X-Other:  x",
    "Connection: keep-alive", "Connection: close", "Content-Encoding: gzip", "Expect: 100-continue",
    "Content-Type: text/plain", f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x",
    "Host: localhost", "Transfer-Encoding: chunked", "Bad Header: x", "Upgrade: h2c",
)  # fmt: skip


def request(
    method: str, path: str, headers: list[str], body: bytes | None, *, has_token: bool
) -> bytes:
    """One request, framed as its headers say."""
    lines = [f"{method} /v1/{path} HTTP/1.1", "Host: localhost:7400", *headers]
    if has_token:
        lines.append(f"Authorization: Bearer {TOKEN}")
    framed = body or b""
    if "Transfer-Encoding: chunked" in headers:
        framed = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + framed


paths = st.builds(
    lambda key, query: f"kv/{key}{query}",
    st.sampled_from(("a", "a", "b", "n")) | st.sampled_from(KEYS),
    st.just("") | st.sampled_from(QUERIES),
)
requests = st.builds(
    request,
    st.sampled_from(("GET", "PUT", "PUT", "DELETE", "POST", "PATCH")),
    paths | st.sampled_from(("k/YQ", "k/YQ==", "k/Y", "k/", "kv", "kv?prefix=", "cluster")),
    st.just([]) | st.lists(st.sampled_from(HEADERS), max_size=3),
    st.none() | st.sampled_from((b"", b"7", b"value", b"\xff\x00", b"x" * 1000, b"x" * 1001)),
    has_token=st.sampled_from((True, True, True, False)),
)
FAILURES = (
    Failure(FailureCode.UNKNOWN, "the connection broke"),
    Failure(FailureCode.NO_LEADER, "no leader"),
    Failure(FailureCode.OVERLOADED, "too much"),
    Failure(FailureCode.QUOTA, "full"),
    Failure(FailureCode.COMPACTED, "gone", revision=7),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut into one part more than there are ``cuts``."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=3),
    st.lists(st.integers(0, 1000), max_size=2),
    st.none() | st.none() | st.sampled_from(FAILURES),
)
def test_made_up_requests(
    both: Both, asked: list[bytes], cuts: list[int], failure: Failure | None
) -> None:
    both.pair.reset(failure)
    both.compare(*((pieces(each, cuts), 1) for each in asked))


# aiohttp refuses all that came together with a bad head, so these are good.
good_requests = st.builds(
    request,
    st.sampled_from(("GET", "GET", "PUT", "DELETE")),
    st.sampled_from(("kv/a", "kv/b", "kv/a?prev=true", "kv/a?x=1", "k/YQ", "kv/", "cluster")),
    st.sampled_from(
        ([], [], ["Accept: application/json"], ["If-Match: *"], ["Idempotency-Key: 1"])
    ),
    st.sampled_from((None, b"v")),
    has_token=st.just(True),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(good_requests, min_size=2, max_size=40), st.lists(st.integers(0, 9999), max_size=5))
def test_pipelined_requests(both: Both, asked: list[bytes], cuts: list[int]) -> None:
    both.pair.reset()
    both.compare((pieces(b"".join(asked), cuts), len(asked)))


@settings(max_examples=40, deadline=None)
@given(requests, st.data())
def test_requests_with_a_byte_changed(both: Both, asked: bytes, data: st.DataObject) -> None:
    both.pair.reset()
    at = data.draw(st.integers(0, asked.index(b"\r\n\r\n") - 1))
    bad = (b"", b"\r", b"\n", b" ", b"\t", b":", b"\x00", b"\xff", b"%")
    changed = asked[:at] + data.draw(st.sampled_from(bad)) + asked[at + 1 :]
    # What follows ends the exchange, also if it was taken for a part of the first.
    last = request("GET", "kv/a", ["Connection: close"], None, has_token=True)
    both.compare(([changed + last], 3))


def test_outcomes_of_writes(both: Both) -> None:
    put = request("PUT", "kv/a", [], b"v", has_token=True)
    item = Item(b"a", b"\xff", 1, 2, 3, 4)
    for outcome in (
        Written(7, 1), Written(8, 2), ConditionFailed(7, 3), ConditionFailed(7, 0), TooLarge(7, 9),
        Replayed(9, Written(7, 1)), Replayed(9, Returned(Written(7, 2), item)),
        Replayed(9, ConditionFailed(7, 3)), Returned(Written(7, 2), None), NotACounter(7),
        Incremented(7, 1, 5), Deleted(7, 1), IdempotencyMismatch(7), LockLost(7),
    ):  # fmt: skip
        both.pair.reset()
        for served in (both.pair.fast, both.pair.usual):
            served.driver.outcomes.append(outcome)
        (answer,) = both.compare(([put], 1))
        assert answer.startswith(b"HTTP/1.1 ")


def test_items_of_every_kind(both: Both) -> None:
    for value in (b"", b"v", b"\xff" * 1000):
        both.pair.reset()
        put = request("PUT", "kv/a?ttl=30s", [], value, has_token=True)
        again = request("PUT", "kv/a", [], value, has_token=True)
        get = request("GET", "kv/a", [], None, has_token=True)
        as_json = request("GET", "kv/a", ["Accept: application/json"], None, has_token=True)
        for sent in (put, get, as_json, again, get):
            (answer,) = both.compare(([sent], 1))
            assert answer.startswith((b"HTTP/1.1 200 OK", b"HTTP/1.1 201 Created"))


def test_the_short_way_was_taken(both: Both) -> None:
    """Or all of the above would compare aiohttp with itself."""
    both.pair.reset()

    async def ask() -> None:
        async with both.pair.fast.connect() as raw:
            for method in ("PUT", "GET", "DELETE"):
                raw.send(request(method, "kv/a", [], None, has_token=True))
                await raw.answer()
            assert not both.pair.fast.server.connections
            assert both.pair.fast.server.connection_count == 1

    both.runner.run(ask())
