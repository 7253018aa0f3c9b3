"""One request on its way to the node and back, without a task.

What it means, whether it is allowed and what is answered is decided by the same functions as on
aiohttp's way (`raftkv.server.http.calls.keys`). Whatever those refuse before the node is asked,
and what takes more than one question to the node, is not for here: `begin` of `FastPath` gives
None, and the request goes to aiohttp untouched.
"""

import sys
from typing import Final, get_args

from raftkv.kv.commands import Put, encode_command
from raftkv.kv.outcomes import Outcome, Written
from raftkv.node.events import Answer, Get, ReadResult, Stale
from raftkv.node.messages import Failure, FailureCode, RequestId
from raftkv.server.http.calls.keys import Write, end_read, end_write
from raftkv.server.http.endpoint import Endpoint
from raftkv.server.http.fast.wire import Wire
from raftkv.server.http.reading import LINEARIZABLE
from raftkv.server.http.requests import ReadKey

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

#: For metrics: the row of the route table, and the method.
Label = tuple[str, str]

GET_LABEL: Final = ("/v1/kv/{key}", "GET")
PUT_LABEL: Final = ("/v1/kv/{key}", "PUT")

# Of a node that stopped before it answered (node design, rule 18).
_STOPPED: Final = Failure(FailureCode.STOPPED, "the node is stopping")
_BROKEN_OFF: Final = Failure(
    FailureCode.UNKNOWN, "the node stopped while the request was on its way"
)
_WRITE_ANSWERS: Final = (*get_args(Outcome), Failure)


class Owner:
    """A client's connection, as an exchange sees it."""

    __slots__ = ()

    def answered(self, exchange: "Exchange", answer: Answer | None) -> None:
        """The node has answered; None: it stopped before."""
        raise NotImplementedError


class Exchange:
    """One request whose head is recognised and allowed."""

    __slots__ = (
        "body_bytes", "is_put_off", "key", "label", "owner", "raw", "request_id", "started_at"
    )  # fmt: skip

    is_write = False

    def __init__(
        self, owner: Owner, label: Label, key: bytes, body_bytes: int, started_at: float
    ) -> None:
        self.owner = owner
        self.label = label
        self.key = key
        self.body_bytes = body_bytes  # that follow the head
        self.started_at = started_at
        self.request_id: RequestId = 0
        #: The answer, when it must wait for those before it; and whether the connection ends then.
        self.raw: tuple[bytes, bool] | None = None
        #: The answer was large and could not be sent: it is asked for again.
        self.is_put_off = False

    def ask(self, at: Endpoint, body: bytes) -> None:
        """Give it to the node."""
        raise NotImplementedError

    def render(
        self, at: Endpoint, wire: Wire, answer: Answer | None, *, closes: bool
    ) -> tuple[int, bytes]:
        """Status and bytes of the answer."""
        raise NotImplementedError

    def on_answer(self, answer: Answer | None) -> None:
        """For the driver."""
        self.owner.answered(self, answer)


class PlainRead(Exchange):
    """`GET` of a key with nothing else asked: linearizable, raw."""

    __slots__ = ()

    @override
    def ask(self, at: Endpoint, body: bytes) -> None:
        assert not body
        self.request_id = at.driver.begin_read(Get(self.key), LINEARIZABLE, self.on_answer)

    @override
    def render(
        self, at: Endpoint, wire: Wire, answer: Answer | None, *, closes: bool
    ) -> tuple[int, bytes]:
        if type(answer) is ReadResult and answer.item is not None:
            return 200, wire.found(answer, answer.item, closes=closes)
        asked = ReadKey(self.key, 0, LINEARIZABLE, False, None, None)
        return _read_response(at, wire, asked, answer, closes=closes)


class AnyRead(Exchange):
    """`GET` of a key in every other way, but for long polls."""

    __slots__ = ("asked",)

    def __init__(self, owner: Owner, label: Label, asked: ReadKey, started_at: float) -> None:
        super().__init__(owner, label, asked.key, 0, started_at)
        self.asked = asked

    @override
    def ask(self, at: Endpoint, body: bytes) -> None:
        assert not body
        asked = self.asked
        query = Get(asked.key, asked.revision)
        self.request_id = at.driver.begin_read(query, asked.how, self.on_answer)

    @override
    def render(
        self, at: Endpoint, wire: Wire, answer: Answer | None, *, closes: bool
    ) -> tuple[int, bytes]:
        return _read_response(at, wire, self.asked, answer, closes=closes)


class PlainPut(Exchange):
    """`PUT` of a key with nothing else asked."""

    __slots__ = ()

    is_write = True

    @override
    def ask(self, at: Endpoint, body: bytes) -> None:
        command = encode_command(Put(self.key, body))
        self.request_id = at.driver.begin_write(
            command, LINEARIZABLE.timeout_seconds, self.on_answer
        )

    @override
    def render(
        self, at: Endpoint, wire: Wire, answer: Answer | None, *, closes: bool
    ) -> tuple[int, bytes]:
        if type(answer) is Written:
            at.count_proposal(answer)
            raw = wire.written(self.key, answer, closes=closes)
            return 201 if answer.version == 1 else 200, raw
        return _write_response(at, wire, self.key, answer, closes=closes)


class AnyWrite(Exchange):
    """A write of a key in every other way, but for what must look at a lease first."""

    __slots__ = ("write",)

    is_write = True

    def __init__(
        self, owner: Owner, label: Label, write: Write, body_bytes: int, started_at: float
    ) -> None:
        super().__init__(owner, label, write.asked.key, body_bytes, started_at)
        self.write = write

    @override
    def ask(self, at: Endpoint, body: bytes) -> None:
        command = encode_command(self.write.command(body, at.settings.value_bytes_max))
        self.request_id = at.driver.begin_write(
            command, self.write.asked.timeout_seconds, self.on_answer
        )

    @override
    def render(
        self, at: Endpoint, wire: Wire, answer: Answer | None, *, closes: bool
    ) -> tuple[int, bytes]:
        return _write_response(at, wire, self.key, answer, closes=closes)


def _read_response(
    at: Endpoint, wire: Wire, asked: ReadKey, answer: Answer | None, *, closes: bool
) -> tuple[int, bytes]:
    if answer is None:
        answer = _STOPPED
    assert isinstance(answer, ReadResult | Stale | Failure), "the answer to a read of a key"
    response = end_read(at, asked, answer)
    return response.status, wire.response(response, closes=closes)


def _write_response(
    at: Endpoint, wire: Wire, key: bytes, answer: Answer | None, *, closes: bool
) -> tuple[int, bytes]:
    outcome = _BROKEN_OFF if answer is None else answer
    assert isinstance(outcome, _WRITE_ANSWERS), "the answer to a write"
    at.count_proposal(outcome)
    response = end_write(at, key, outcome)
    return response.status, wire.response(response, closes=closes)
