"""Linearizable reads on their way: waiting for a read index, then for apply to reach it.

All reads that wait share one ReadIndex round; at most one round is under way, and the reads that
arrive meanwhile share the next one. So a round always begins after the requests it serves (node
design, rule 16; thesis 6.4), and under load the rounds get fuller rather than more frequent.

Reads that may be stale wait for nothing but the revision they name, a bounded one as long as the
node knows itself to be new enough. It knows from the rounds: once the index of a round is applied,
the store shows at least all that was committed when the round began.

Owned by the node class; holds no clock and sends nothing.
"""

import msgspec

from raftkv.node.events import Consistency, ReadRequest
from raftkv.node.messages import RequestId
from raftkv.raft.messages import Index

# Where reads wait together, in the order in which they came.
_Place = dict[RequestId, ReadRequest]


class _Round(msgspec.Struct):
    context: int
    requests: _Place
    began_at: float  # before the question left
    ticks: int = 0  # since then
    is_barrier: bool = False  # the node itself waits, to know that it has caught up


class _Indexed(msgspec.Struct):
    """A round that was confirmed: its reads wait for apply to reach ``index``."""

    index: Index
    requests: _Place
    began_at: float


class _Returned:
    """Reads that were put back, all at once; they are taken all at once too."""

    def __init__(self) -> None:
        self._requests: list[ReadRequest] = []
        self._by_id: _Place | None = None  # the same, once a client left since they came

    def __len__(self) -> int:
        return len(self._requests if self._by_id is None else self._by_id)

    def put(self, requests: list[ReadRequest]) -> None:
        self._requests = requests
        self._by_id = None

    def take(self) -> list[ReadRequest]:
        if not self._requests:
            return []  # as in nearly every turn
        taken = self._requests if self._by_id is None else list(self._by_id.values())
        self.put([])
        return taken

    def expire(self, now: float) -> list[ReadRequest]:
        requests = self.take()
        self.put([request for request in requests if request.deadline > now])
        return [request for request in requests if request.deadline <= now]

    def cancel(self, request_id: RequestId) -> None:
        if self._by_id is None:
            if not self._requests:
                return
            # Once a turn, however many leave: they are put back anew in the next.
            self._by_id = {request.id: request for request in self._requests}
        self._by_id.pop(request_id, None)


class Reads:
    """All pending reads of one node."""

    def __init__(self, first_context: int, retry_ticks: int) -> None:
        self._next_context = first_context
        self._retry_ticks = retry_ticks
        self.waiting: _Place = {}  # for a round
        # A round was dropped since the last tick: the next one is not begun before the next
        # tick, lest this node and one that no longer leads keep each other busy.
        self._is_put_off = False
        self._round: _Round | None = None
        self._indexed: list[_Indexed] = []  # in the order of the rounds
        self._for_revision: _Place = {}  # confirmed, for the store to get so far
        self._unconfirmed: _Place = {}  # local and bounded ones
        # Those that were taken and not answered, for a turn that has time for them. Of thousands
        # one turn answers a few: to move each in and out by itself would take as long.
        self._ready = _Returned()
        self._unserved = _Returned()  # of the unconfirmed
        # Where each read waits: clients leave by the thousand, and to look for the read of each in
        # all places would be a walk for each.
        self._places: dict[RequestId, _Place] = {}
        # The store shows at least what was committed then; None: nothing is known.
        self._fresh_as_of: float | None = None
        self.barrier_wanted = True
        self.barrier_index: Index | None = None

    def __len__(self) -> int:
        """How many reads are pending."""
        return len(self._places) + len(self._ready) + len(self._unserved)

    @property
    def has_any(self) -> bool:
        """Whether any read is pending."""
        return bool(len(self) or self._round is not None or self._indexed)

    def age_seconds(self, now: float) -> float | None:
        """The store shows at least all that was committed so long ago; None: nothing is known."""
        return None if self._fresh_as_of is None else now - self._fresh_as_of

    def wants_round(self) -> bool:
        """Whether a new round should be asked for now."""
        is_wanted = bool(self.waiting) or self.barrier_wanted
        return is_wanted and self._round is None and not self._is_put_off

    def begin_round(self, now: float) -> int:
        """Put all waiting reads into a new round; its context, which is never used again."""
        context = self._next_context
        self._next_context += 1
        self._round = _Round(context, self.waiting, now, is_barrier=self.barrier_wanted)
        self.waiting = {}
        return context

    def abandon_round(self, context: int | None = None) -> None:
        """The round cannot be answered: its reads wait for the next one, with a new context."""
        if self._round is None or context not in (None, self._round.context):
            return
        arrived, self.waiting = self.waiting, self._round.requests
        self._round = None
        for request in arrived.values():
            self._put(request, self.waiting)

    def drop_round(self, context: int) -> None:
        """The core gave the round up: its reads wait for one that begins after the next tick."""
        if self._round is not None and context == self._round.context:
            self.abandon_round()
            self._is_put_off = True

    def tick(self) -> None:
        """Ask again when an answer is overdue: the question or the answer may be lost."""
        self._is_put_off = False
        if self._round is not None:
            self._round.ticks += 1
            if self._round.ticks >= self._retry_ticks:
                self.abandon_round()

    def confirm(self, context: int, index: Index) -> None:
        """The round's leadership was confirmed: its reads may be served once ``index`` is applied.

        An answer to an abandoned round is ignored: its reads are in another one.
        """
        if self._round is None or self._round.context != context:
            return
        if self._round.is_barrier:
            self.barrier_wanted = False
            self.barrier_index = index
        self._indexed.append(_Indexed(index, self._round.requests, self._round.began_at))
        self._round = None

    def take_ready(self, applied: Index, revision: int) -> list[ReadRequest]:
        """Remove the linearizable reads that a store at ``applied`` and ``revision`` can answer."""
        ready = self._ready.take()
        while self._indexed and self._indexed[0].index <= applied:
            entry = self._indexed.pop(0)
            self._fresh_as_of = entry.began_at
            for request in entry.requests.values():
                if request.min_revision <= revision:
                    del self._places[request.id]
                    ready.append(request)
                else:
                    self._put(request, self._for_revision)
        if self._for_revision:
            reached = [r for r in self._for_revision.values() if r.min_revision <= revision]
            self._remove(reached)
            ready += reached
        return ready

    def put_back(self, requests: list[ReadRequest]) -> None:
        """These of `take_ready` were not answered; the store can only get newer."""
        self._ready.put(requests)

    def put_back_unconfirmed(self, requests: list[ReadRequest]) -> None:
        """These of `take_unconfirmed` were not answered."""
        self._unserved.put(requests)

    @property
    def has_unserved(self) -> bool:
        """Whether some were put back since they were taken last."""
        return bool(len(self._ready) or len(self._unserved))

    def take_unconfirmed(self, revision: int, now: float) -> list[ReadRequest]:
        """Remove the reads that a store at ``revision`` can answer without asking anybody.

        A bounded one for which the store is too old becomes linearizable. To be called after
        `take_ready`, with the same store.
        """
        returned = self._unserved.take()
        if not (returned or self._unconfirmed):
            return []
        age = self.age_seconds(now)
        ready: list[ReadRequest] = []
        too_old_for: list[ReadRequest] = []
        for request in returned:
            (too_old_for if _is_beyond(request, age) else ready).append(request)
        reached: list[ReadRequest] = []
        outdated: list[ReadRequest] = []
        for request in self._unconfirmed.values():
            if _is_beyond(request, age):
                outdated.append(request)
            elif request.min_revision <= revision:
                reached.append(request)
        self._remove(reached)
        self._remove(outdated)
        for request in too_old_for + outdated:
            self._put(request, self.waiting)
        return ready + reached

    def add(self, request: ReadRequest) -> None:
        """Take a new read."""
        is_linearizable = request.consistency is Consistency.LINEARIZABLE
        self._put(request, self.waiting if is_linearizable else self._unconfirmed)

    def expire_unasked(self, now: float) -> list[ReadRequest]:
        """Remove the reads whose deadline passed before a leader confirmed their round."""
        expired = self._expire(self.waiting, now)
        if self._round is not None:
            expired += self._expire(self._round.requests, now)
        return expired

    def expire_lagging(self, now: float) -> list[ReadRequest]:
        """Remove the reads for which the store was not new enough by their deadline."""
        expired = self._expire(self._for_revision, now)
        expired += self._unserved.expire(now)
        expired += self._expire(self._unconfirmed, now)
        for entry in self._indexed:
            expired += self._expire(entry.requests, now)
        return expired

    def cancel(self, request_id: RequestId) -> None:
        """The client went away."""
        place = self._places.pop(request_id, None)
        if place is None:
            self._ready.cancel(request_id)
            self._unserved.cancel(request_id)
            return
        del place[request_id]
        if not place:
            # Else every look into it walks over what it once held.
            place.clear()

    def _put(self, request: ReadRequest, place: _Place) -> None:
        """Let a read wait there: a new one, or one that leaves where it waited."""
        place[request.id] = request
        self._places[request.id] = place

    def _remove(self, requests: list[ReadRequest]) -> None:
        for request in requests:
            self.cancel(request.id)

    def _expire(self, place: _Place, now: float) -> list[ReadRequest]:
        """Remove the reads there whose deadline passed."""
        expired = [request for request in place.values() if request.deadline <= now]
        self._remove(expired)
        return expired


def _is_beyond(request: ReadRequest, age: float | None) -> bool:
    """Whether a store of this age is too old for a bounded read."""
    is_bounded = request.consistency is Consistency.BOUNDED
    return is_bounded and (age is None or age > request.max_stale_seconds)
