"""Clients of this node that wait for a lock (API contract, `POST /v1/locks/{name}`).

The queue is replicated; who is granted the lock learns it from the state machine of whichever node
the request waits on (`AppliedEntry.grants`). So a change of leader concerns nobody who waits. A
snapshot that takes the place of entries has no grants: then the locks themselves are looked at.

    asking     its `AcquireLock` is on its way; the answer may be the lock, or a place in the queue
    waiting    for the grant of its ticket
    leaving    it waited as long as it would: a `LeaveLock` decides between queue and lock

A grant may be applied here before the leader's answer with the ticket arrives: those for names that
somebody asks for are remembered until then. A client that goes away leaves the queue, and gives
back a lock that came too late, unless another request waits here under the same ticket, as that of
the same owner does. Where even the leaving fails, the queue forgets the waiter by log time.

Owned by `raftkv.node.requests`; holds no clock.
"""

from collections.abc import Callable

import msgspec

from raftkv.kv.commands import LeaveLock, encode_command, is_once
from raftkv.kv.outcomes import LockGrant, LockHeld, LockQueued, LockReleased
from raftkv.kv.records import Lock
from raftkv.node.events import Answer, LockRequest
from raftkv.node.messages import Failure, FailureCode, RequestId

_NOT_LEFT = Failure(
    FailureCode.UNKNOWN,
    "the wait is over, but the queue could not be left: the lock may still come",
)

Place = tuple[bytes, int]  # a lock and a ticket in its queue


class _Wait(msgspec.Struct, eq=False):
    id: RequestId
    name: bytes
    wait_deadline: float
    is_once: bool  # a retry with the same idempotency key gets the answer of this one
    is_asking: bool = True
    is_leaving: bool = False
    is_cancelled: bool = False
    is_answered: bool = False
    queued: LockQueued | None = None


class LockWaits:
    """All requests for locks that this node has not answered."""

    def __init__(
        self,
        answer: Callable[[RequestId, Answer], None],
        write: Callable[[bytes, Callable[[Answer], None]], None],
    ) -> None:
        """``write`` proposes an encoded command, and says what came of it."""
        self._answer = answer
        self._write = write
        self._requests: dict[RequestId, _Wait] = {}
        self._places: dict[Place, list[_Wait]] = {}
        # How many ask for a name, and what was granted meanwhile to tickets nobody knows here.
        self._asking: dict[bytes, int] = {}
        self._early: dict[Place, LockGrant] = {}

    def __len__(self) -> int:
        """How many requests are not answered."""
        return len(self._requests)

    def ask(self, request: LockRequest) -> Callable[[Answer], None]:
        """A client asks; to be called with what came of its command."""
        wait = _Wait(request.id, request.name, request.wait_deadline, is_once(request.command))
        self._requests[request.id] = wait
        self._asking[request.name] = self._asking.get(request.name, 0) + 1
        return lambda answer: self._asked(wait, answer)

    def cancel(self, request: RequestId, *, is_dropped: bool) -> None:
        """The client went away; ``is_dropped``: its command never left."""
        wait = self._requests.pop(request, None)
        if wait is None:
            return
        wait.is_cancelled = True
        if is_dropped:
            self._stop_asking(wait)
        elif wait.queued is not None:
            self._give_up_place(wait)

    def granted(self, grants: tuple[LockGrant, ...]) -> None:
        """Locks went to waiters, here or anywhere."""
        for grant in grants:
            place = (grant.name, grant.ticket)
            waits = self._places.get(place)
            if waits is not None:
                for wait in waits.copy():
                    self._finish(wait, LockHeld(grant.token, grant.token, grant.ttl_ms))
            elif grant.name in self._asking:
                self._early[place] = grant

    def look_again(self, revision: int, find: Callable[[bytes], Lock | None]) -> None:
        """A snapshot of ``revision`` was installed: what became of those who wait?

        ``find`` gives the lock of a name, as it is in there; None: nobody holds it.
        """
        queued: set[Place] = set()
        for name in dict.fromkeys((*self._asking, *(name for name, _ in self._places))):
            lock = find(name)
            if lock is None:
                continue
            queued.update((name, waiter.ticket) for waiter in lock.waiters)
            if lock.ticket:
                self.granted((LockGrant(name, lock.ticket, lock.token, lock.ttl_ms),))
        for place, waits in list(self._places.items()):
            # A ticket is the revision that queued it: one beyond the snapshot is yet to come.
            if place[1] <= revision and place not in queued:
                # It had the lock and lost it again, or its owner has another ticket.
                for wait in waits.copy():
                    if not wait.is_leaving:
                        self._leave(wait)

    def expire(self, now: float) -> None:
        """Leave the queue for those who waited as long as they would."""
        for waits in list(self._places.values()):
            for wait in waits.copy():
                if wait.wait_deadline <= now and not wait.is_leaving:
                    self._leave(wait)

    # ---- steps ------------------------------------------------------------------------------

    def _asked(self, wait: _Wait, answer: Answer) -> None:
        """What came of the command. A second time, if it was called unknown before."""
        grant = None
        if isinstance(answer, LockQueued):
            grant = self._early.get((wait.name, answer.ticket))
        self._stop_asking(wait)
        if wait.is_cancelled or wait.is_answered:
            self._came_too_late(wait, answer)
        elif not isinstance(answer, LockQueued):
            self._finish(wait, answer)
        elif grant is not None:
            self._finish(wait, LockHeld(grant.token, grant.token, grant.ttl_ms))
        else:
            wait.queued = answer
            self._places.setdefault((wait.name, answer.ticket), []).append(wait)

    def _came_too_late(self, wait: _Wait, answer: Answer) -> None:
        """Nobody waits for the answer any more: leave no trace in the queue."""
        if isinstance(answer, LockQueued):
            wait.queued = answer
            self._give_up_place(wait)
        elif (
            isinstance(answer, LockHeld)
            and wait.is_cancelled
            and not wait.is_once
            # A client that asks again, as its owner, may have been told of the same lock.
            and not any(other.name == wait.name for other in self._requests.values())
        ):
            # By the ticket: it does nothing if the owner asked again, through another node.
            leave = LeaveLock(wait.name, answer.token, releases=True)
            self._write(encode_command(leave), _ignore)

    def _give_up_place(self, wait: _Wait) -> None:
        assert wait.queued is not None
        place = (wait.name, wait.queued.ticket)
        self._remove(wait)
        if place not in self._places:
            self._write(encode_command(LeaveLock(*place, releases=True)), _ignore)

    def _leave(self, wait: _Wait) -> None:
        assert wait.queued is not None
        wait.is_leaving = True
        if any(other.wait_deadline > wait.wait_deadline for other in self._companions(wait)):
            # Another request of the same owner waits on: the place is its.
            self._finish(wait, wait.queued)
            return
        leave = LeaveLock(wait.name, wait.queued.ticket, releases=False)
        self._write(encode_command(leave), lambda answer: self._left(wait, answer))

    def _left(self, wait: _Wait, answer: Answer) -> None:
        if wait.is_cancelled or wait.is_answered:
            return
        assert wait.queued is not None
        match answer:
            case LockReleased(revision=revision):
                self._finish(wait, LockQueued(revision, wait.queued.ticket))
            case LockHeld():
                self._finish(wait, answer)
            case _:
                self._finish(wait, _NOT_LEFT)

    def _finish(self, wait: _Wait, answer: Answer) -> None:
        self._remove(wait)
        wait.is_answered = True
        del self._requests[wait.id]
        self._answer(wait.id, answer)

    # ---- parts ------------------------------------------------------------------------------

    def _companions(self, wait: _Wait) -> list[_Wait]:
        assert wait.queued is not None
        return self._places.get((wait.name, wait.queued.ticket), [])

    def _remove(self, wait: _Wait) -> None:
        if wait.queued is None:
            return
        place = (wait.name, wait.queued.ticket)
        waits = self._places.get(place, [])
        if wait in waits:
            waits.remove(wait)
            if not waits:
                del self._places[place]

    def _stop_asking(self, wait: _Wait) -> None:
        if not wait.is_asking:
            return
        wait.is_asking = False
        self._asking[wait.name] -= 1
        if self._asking[wait.name] == 0:
            del self._asking[wait.name]
            for place in [place for place in self._early if place[0] == wait.name]:
                del self._early[place]


def _ignore(_: Answer) -> None:
    """Whatever came of it: nobody waits."""
