"""The recorder sends once, and claims no more than it knows."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.linearizability.history import Certainty, Kind, Operation
from tests.linearizability.recorder import UnexpectedAnswerError, attempt, recording_session

PUT = Operation(1, "a/b", Kind.PUT, 0, argument="v1")


@asynccontextmanager
async def server(answers: Callable[[int], bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers request number n of all connections with ``answers(n)``; b"": cut the connection."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen.append(head)
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                answer = answers(len(seen))
                if not answer:
                    return
                writer.write(answer)
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", seen
    finally:
        listening.close()
        await listening.wait_closed()


def response(status: str, body: bytes = b"{}", *headers: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}".encode(), b"Content-Length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


CREATED = response("201 Created", b"{}", b"X-RaftKV-Revision: 7")


@pytest.mark.parametrize("kind", list(Kind))
async def test_rule_18_request_on_a_broken_kept_connection_is_not_sent_again(kind: Kind) -> None:
    asked = Operation(1, "k", kind, 0, argument="" if kind in (Kind.GET, Kind.DELETE) else "v")
    async with (
        server(lambda number: CREATED if number == 1 else b"") as (url, seen),
        recording_session(2.0) as session,
    ):
        await attempt(session, url, PUT)  # leaves a connection to be kept
        done = await attempt(session, url, asked)
    assert done.certainty is Certainty.UNKNOWN
    assert len(seen) == 2


async def test_answer_is_recorded() -> None:
    async with server(lambda _: CREATED) as (url, seen), recording_session(2.0) as session:
        done = await attempt(session, url, PUT)
    assert seen[0].startswith(b"PUT /v1/kv/a/b HTTP/1.1\r\n")
    assert (done.certainty, done.existed, done.revision) == (Certainty.KNOWN, False, 7)
    assert done.return_ns is not None
    assert done.call_ns < done.return_ns


@pytest.mark.parametrize("said", ["not_committed", "unknown"])
async def test_problem_is_believed(said: str) -> None:
    body = b'{"code":"x","outcome":"%s"}' % said.encode()
    async with (
        server(lambda _: response("503 Service Unavailable", body)) as (url, _),
        recording_session(2.0) as session,
    ):
        done = await attempt(session, url, PUT)
    assert done.certainty is Certainty(said)
    assert done.return_ns is None


async def test_no_connection_is_no_effect() -> None:
    async with server(lambda _: b"") as (url, _):
        pass
    async with recording_session(2.0) as session:
        assert (await attempt(session, url, PUT)).certainty is Certainty.NOT_COMMITTED


async def test_answer_outside_the_contract_is_not_recorded() -> None:
    async with (
        server(lambda _: response("500 Internal Server Error")) as (url, _),
        recording_session(2.0) as session,
    ):
        with pytest.raises(UnexpectedAnswerError, match="500"):
            await attempt(session, url, PUT)
