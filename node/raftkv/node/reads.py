"""Linearizable reads on their way: waiting for a read index, then for apply to reach it.

All reads that wait share one ReadIndex round; at most one round is under way, and the reads that
arrive meanwhile share the next one. So a round always begins after the requests it serves (node
design, rule 16; thesis 6.4), and under load the rounds get fuller rather than more frequent.

Owned by the node class; holds no clock and sends nothing.
"""

from collections.abc import Callable

import msgspec

from raftkv.node.events import Consistency, ReadRequest, RequestId
from raftkv.raft.messages import Index


class _Round(msgspec.Struct):
    context: int
    requests: list[ReadRequest]
    ticks: int = 0  # since it was asked
    is_barrier: bool = False  # the node itself waits, to know that it has caught up


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
        self._indexed: list[tuple[Index, list[ReadRequest]]] = []  # for apply, in round order
        self._for_revision: list[ReadRequest] = []  # for the store to reach min_revision
        self.barrier_wanted = True
        self.barrier_index: Index | None = None

    def __len__(self) -> int:
        """How many reads are pending."""
        in_round = len(self._round.requests) if self._round else 0
        indexed = sum(len(requests) for _, requests in self._indexed)
        return len(self.waiting) + in_round + indexed + len(self._for_revision)

    def wants_round(self) -> bool:
        """Whether a new round should be asked for now."""
        is_wanted = bool(self.waiting) or self.barrier_wanted
        return is_wanted and self._round is None and not self._is_put_off

    def begin_round(self) -> int:
        """Put all waiting reads into a new round; its context, which is never used again."""
        context = self._next_context
        self._next_context += 1
        self._round = _Round(context, self.waiting, is_barrier=self.barrier_wanted)
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
        if self._round.requests:
            self._indexed.append((index, self._round.requests))
        self._round = None

    def take_ready(self, applied: Index, revision: int) -> list[ReadRequest]:
        """Remove the reads that can be answered from a store at ``applied`` and ``revision``."""
        ready: list[ReadRequest] = []
        while self._indexed and self._indexed[0][0] <= applied:
            for request in self._indexed.pop(0)[1]:
                (ready if request.min_revision <= revision else self._for_revision).append(request)
        if self._for_revision:
            reached = [r for r in self._for_revision if r.min_revision <= revision]
            if reached:
                self._for_revision = [r for r in self._for_revision if r.min_revision > revision]
                ready += reached
        return ready

    def add(self, request: ReadRequest) -> None:
        """Take a new read. A local one waits for its revision only."""
        if request.consistency is Consistency.LOCAL:
            self._for_revision.append(request)
        else:
            self.waiting.append(request)

    def expire(self, now: float) -> list[ReadRequest]:
        """Remove the reads whose deadline passed."""
        return self._remove(lambda request: request.deadline <= now)

    def cancel(self, request_id: RequestId) -> None:
        """The client went away."""
        self._remove(lambda request: request.id == request_id)

    def _remove(self, condition: Callable[[ReadRequest], bool]) -> list[ReadRequest]:
        removed: list[ReadRequest] = []

        def keep(requests: list[ReadRequest]) -> list[ReadRequest]:
            gone = [request for request in requests if condition(request)]
            if not gone:
                return requests
            removed.extend(gone)
            return [request for request in requests if not condition(request)]

        self.waiting = keep(self.waiting)
        self._for_revision = keep(self._for_revision)
        self._indexed = [(index, keep(requests)) for index, requests in self._indexed]
        if self._round is not None:
            self._round.requests = keep(self._round.requests)
        return removed
