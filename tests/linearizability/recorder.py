"""Sends one request over HTTP and records it as an operation: what was asked, when, what came back.

Never sends a request twice, and claims no more than it knows: no connection, or an answer that
says ``not_committed``, is known to have had no effect; anything else without an answer is
unknown. Used by the loads of `tests.process`.
"""

from collections.abc import Mapping
from time import monotonic_ns
from urllib.parse import quote

import aiohttp
import msgspec

from tests.linearizability.history import Certainty, Kind, Operation

_METHODS = {
    Kind.PUT: "PUT",
    Kind.GET: "GET",
    Kind.DELETE: "DELETE",
    Kind.APPEND: "POST",
    Kind.CAS: "PUT",
}


class UnexpectedAnswerError(AssertionError):
    """An answer that the contract does not know for this request."""


class _Problem(msgspec.Struct):
    code: str
    outcome: str


class _Deleted(msgspec.Struct):
    deleted: int


def recording_session(timeout_seconds: float) -> aiohttp.ClientSession:
    """A session for `attempt`: no request without an answer for longer than ``timeout_seconds``.

    aiohttp silently sends a PUT or DELETE again when the kept connection it chose turns out to be
    broken: an effect that no history would know. There is no public switch; aiohttp's own test
    client uses this one.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
    )
    session._retry_connection = False
    return session


async def attempt(
    session: aiohttp.ClientSession, url: str, asked: Operation, *, consistency: str | None = None
) -> Operation:
    """Send ``asked`` to the node at ``url`` once; the operation with times and answer.

    ``consistency`` of a read; None: the default, linearizable.

    Raises UnexpectedAnswerError for an answer that no correct node gives.
    """
    target = f"{url}/v1/kv/{quote(asked.key)}"
    if asked.kind is Kind.APPEND:
        target += "?op=append"
    if asked.kind is Kind.GET and consistency is not None:
        target += f"?consistency={consistency}"
    headers = {}
    if asked.kind is Kind.CAS and asked.expected_revision:
        headers["If-Match"] = f'"{asked.expected_revision}"'
    elif asked.kind is Kind.CAS:
        headers["If-None-Match"] = "*"
    asked = msgspec.structs.replace(asked, call_ns=monotonic_ns())
    try:
        async with session.request(
            _METHODS[asked.kind], target, data=asked.argument.encode("latin-1"), headers=headers
        ) as response:
            body = await response.read()
    except aiohttp.ClientConnectorError:
        return msgspec.structs.replace(asked, certainty=Certainty.NOT_COMMITTED)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return msgspec.structs.replace(asked, certainty=Certainty.UNKNOWN)
    return_ns = monotonic_ns()
    if response.status in (408, 429, 503, 504):
        problem = msgspec.json.decode(body, type=_Problem)
        certainty = Certainty(problem.outcome)
        return msgspec.structs.replace(asked, certainty=certainty)
    answer = _read_answer(asked, response.status, response.headers, body)
    return msgspec.structs.replace(asked, return_ns=return_ns, **answer)


def _read_answer(
    asked: Operation, status: int, headers: Mapping[str, str], body: bytes
) -> dict[str, object]:
    """What an answer says, as fields of the operation."""
    said: dict[str, object] = {"revision": int(headers.get("X-RaftKV-Revision", "0"))}
    match asked.kind, status:
        case Kind.GET, 200:
            mod_revision = int(headers["X-RaftKV-Mod-Revision"])
            value = body.decode("latin-1")
            return {**said, "existed": True, "value": value, "mod_revision": mod_revision}
        case Kind.GET, 404:
            return {**said, "existed": False, "mod_revision": 0}
        case Kind.DELETE, 200:
            return {**said, "existed": msgspec.json.decode(body, type=_Deleted).deleted == 1}
        case ((Kind.PUT | Kind.APPEND | Kind.CAS), 200 | 201):
            return {**said, "existed": status == 200}
        case Kind.CAS, 412:
            current = headers.get("ETag", '"0"')
            return {**said, "succeeded": False, "mod_revision": int(current.strip('"'))}
        case _:
            raise UnexpectedAnswerError(f"{asked.kind} was answered {status}: {body[:200]!r}")
