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


class _Round(msgspec.Struct):
    context: int
    requests: list[ReadRequest]
    began_at: float  # before the question left
    ticks: int = 0  # since then
    is_barrier: bool = False  # the node itself waits, to know that it has caught up


class _Indexed(msgspec.Struct):
    """A round that was confirmed: its reads wait for apply to reach ``index``."""

    index: Index
    requests: list[ReadRequest]
    began_at: float


class Reads:
    """All pending reads of one node."""

    def __init__(self, first_context: int, retry_ticks: int) -> None:
        self._next_context = first_context
        self._retry_ticks = retry_ticks
        self.waiting: list[ReadRequest] = []  # for a round
        # A round was dropped since the last tick: the next one is not begun before the next
        # tick, lest this node and one that no longer leads keep each other busy.
        self._is_put_off = False
        self._round: _Round | None = None
        self._indexed: list[_Indexed] = []  # in the order of the rounds
        self._ready: list[ReadRequest] = []  # for a turn that has time for them
        self._for_revision: list[ReadRequest] = []  # confirmed, for the store to get so far
        self._unconfirmed: list[ReadRequest] = []  # local and bounded ones
        self._has_unserved = False  # some of those could have been answered
        # The store shows at least what was committed then; None: nothing is known.
        self._fresh_as_of: float | None = None
        self.barrier_wanted = True
        self.barrier_index: Index | None = None

    def __len__(self) -> int:
        """How many reads are pending."""
        in_round = len(self._round.requests) if self._round else 0
        indexed = sum(len(entry.requests) for entry in self._indexed)
        confirmed = len(self._ready) + len(self._for_revision)
        return len(self.waiting) + in_round + indexed + confirmed + len(self._unconfirmed)

    @property
    def has_any(self) -> bool:
        """Whether any read is pending."""
        return bool(
            self.waiting
            or self._round is not None
            or self._indexed
            or self._ready
            or self._for_revision
            or self._unconfirmed
        )

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
        self.waiting = []
        return context

    def abandon_round(self, context: int | None = None) -> None:
        """The round cannot be answered: its reads wait for the next one, with a new context."""
        if self._round is None or context not in (None, self._round.context):
            return
        self.waiting = self._round.requests + self.waiting
        self._round = None

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
        ready, self._ready = self._ready, []
        while self._indexed and self._indexed[0].index <= applied:
            entry = self._indexed.pop(0)
            self._fresh_as_of = entry.began_at
            for request in entry.requests:
                (ready if request.min_revision <= revision else self._for_revision).append(request)
        if self._for_revision:
            reached = [r for r in self._for_revision if r.min_revision <= revision]
            if reached:
                self._for_revision = [r for r in self._for_revision if r.min_revision > revision]
                ready += reached
        return ready

    def put_back(self, requests: list[ReadRequest]) -> None:
        """These of `take_ready` were not answered; the store can only get newer."""
        self._ready = requests

    def put_back_unconfirmed(self, requests: list[ReadRequest]) -> None:
        """These of `take_unconfirmed` were not answered."""
        self._has_unserved = bool(requests)
        self._unconfirmed = requests + self._unconfirmed

    @property
    def has_unserved(self) -> bool:
        """Whether some were put back since they were taken last."""
        return bool(self._ready) or self._has_unserved

    def take_unconfirmed(self, revision: int, now: float) -> list[ReadRequest]:
        """Remove the reads that a store at ``revision`` can answer without asking anybody.

        A bounded one for which the store is too old becomes linearizable. To be called after
        `take_ready`, with the same store.
        """
        self._has_unserved = False
        if not self._unconfirmed:
            return []
        age = self.age_seconds(now)
        ready: list[ReadRequest] = []
        remaining: list[ReadRequest] = []
        for request in self._unconfirmed:
            is_bounded = request.consistency is Consistency.BOUNDED
            if is_bounded and (age is None or age > request.max_stale_seconds):
                self.waiting.append(request)
            elif request.min_revision <= revision:
                ready.append(request)
            else:
                remaining.append(request)
        self._unconfirmed = remaining
        return ready

    def add(self, request: ReadRequest) -> None:
        """Take a new read."""
        is_linearizable = request.consistency is Consistency.LINEARIZABLE
        (self.waiting if is_linearizable else self._unconfirmed).append(request)

    def expire_unasked(self, now: float) -> list[ReadRequest]:
        """Remove the reads whose deadline passed before a leader confirmed their round."""
        expired, self.waiting = _split(self.waiting, now)
        if self._round is not None:
            in_round, self._round.requests = _split(self._round.requests, now)
            expired += in_round
        return expired

    def expire_lagging(self, now: float) -> list[ReadRequest]:
        """Remove the reads for which the store was not new enough by their deadline."""
        expired, self._for_revision = _split(self._for_revision, now)
        unconfirmed, self._unconfirmed = _split(self._unconfirmed, now)
        expired += unconfirmed
        for entry in self._indexed:
            indexed, entry.requests = _split(entry.requests, now)
            expired += indexed
        return expired

    def cancel(self, request_id: RequestId) -> None:
        """The client went away."""
        places = [self.waiting, self._ready, self._for_revision, self._unconfirmed]
        places += [entry.requests for entry in self._indexed]
        if self._round is not None:
            places.append(self._round.requests)
        for requests in places:
            for position, request in enumerate(requests):
                if request.id == request_id:
                    del requests[position]
                    return


def _split(requests: list[ReadRequest], now: float) -> tuple[list[ReadRequest], list[ReadRequest]]:
    """Those whose deadline passed, and the others."""
    expired = [request for request in requests if request.deadline <= now]
    if not expired:
        return [], requests
    return expired, [request for request in requests if request.deadline > now]
