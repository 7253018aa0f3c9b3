"""Orders to the leader: to change the membership, or to hand leadership on.

Taken by any node, carried out by the leader; the way of an order is that of a write. It is *held*
until there is a leader that can begin it, then *forwarded* to it or *begun* here. What was begun is
answered when its fate is known: a change when the entry that holds it is committed (a replacement,
when its joint configuration was left), or another took its place; a transfer when the new leader
has committed an entry of its own term, which the old leader learns as a follower. So the promise of
the answer does not depend on who leads meanwhile. What may be done and when is the core's to say
(`raftkv.raft.membership`); it does one change at a time.

Owned by the node class, which shows it the core once a turn. Source: node design, rules 13 and 14.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from raftkv.node.events import Answer, ConfigChangeRequest, TransferRequest
from raftkv.node.messages import (
    ConfigChanged,
    Failure,
    FailureCode,
    ForwardOrder,
    OrderReply,
    PeerMessage,
    RequestId,
    Transferred,
)
from raftkv.raft import NodeId, RawNode, Role
from raftkv.raft.confchange import (
    ConfigChange,
    PromoteLearner,
    decode_config_change,
    encode_config_change,
)
from raftkv.raft.errors import ConfigChangeRefused, RefusalReason
from raftkv.raft.messages import EntryId, Term

# Reasons to refuse a transfer, beside those that the core knows.
NOT_TRANSFERRED: Final = "not_transferred"
SILENT: Final = "silent"

# The leader may begin such a one a little later.
_RETRIED: Final = (RefusalReason.NOT_LEADER, RefusalReason.NOT_READY)

# Orders that one node has not answered: people and operators give them, one after the other.
_PENDING_MAX: Final = 64

_FULL = Failure(FailureCode.OVERLOADED, "too many orders are in flight on this node")
_UNKNOWN = Failure(FailureCode.UNKNOWN, "whether the order was carried out is not known")
_LINK_BROKE = Failure(
    FailureCode.UNKNOWN, "the connection to the leader broke after the order was sent to it"
)
_OVERWRITTEN = Failure(
    FailureCode.NO_LEADER, "the leader was deposed before the change was committed"
)


class _Order(msgspec.Struct, eq=False):
    """One order. ``origin`` is the peer that forwarded it, and its incarnation; None: a client."""

    id: RequestId
    change: ConfigChange | None  # None: a transfer
    config_index: int | None
    target: NodeId | None
    deadline: float
    origin: tuple[NodeId, int] | None = None
    # Why it is still held, if a leader said so.
    refusal: Failure | None = None


class _Change(msgspec.Struct, eq=False):
    order: _Order
    entry: EntryId


class _Transfer(msgspec.Struct, eq=False):
    order: _Order
    target: NodeId
    term: Term  # of the leader that hands over


class Orders:
    """See the module docstring."""

    def __init__(
        self,
        *,
        incarnation: int,
        election_ticks: int,
        answer: Callable[[RequestId, Answer], None],
        send: Callable[[NodeId, PeerMessage], None],
    ) -> None:
        self._incarnation = incarnation
        self._election_ticks = election_ticks
        self._answer = answer
        self._send = send
        self._connected: set[NodeId] = set()
        self._held: list[_Order] = []
        self._forwarded: dict[RequestId, tuple[NodeId, _Order]] = {}
        self._changes: list[_Change] = []
        self._transfers: list[_Transfer] = []
        # Orders that were held again wait for the next tick.
        self._is_put_off = False

    def __len__(self) -> int:
        """How many orders are not answered yet."""
        return len(self._held) + len(self._forwarded) + len(self._begun())

    @property
    def has_deadlines(self) -> bool:
        """Whether anything waits that `expire` could end."""
        return bool(self._held or self._forwarded or self._changes or self._transfers)

    # ---- events -----------------------------------------------------------------------------

    def on_change(self, request: ConfigChangeRequest) -> None:
        """A client wants to change the membership."""
        self._hold(_Order(request.id, request.change, request.config_index, None, request.deadline))

    def on_transfer(self, request: TransferRequest) -> None:
        """A client wants leadership to move."""
        self._hold(_Order(request.id, None, None, request.target, request.deadline))

    def _hold(self, order: _Order) -> None:
        if len(self) >= _PENDING_MAX:
            self._answer(order.id, _FULL)
        else:
            self._held.append(order)

    def on_peer_up(self, peer: NodeId) -> None:
        """Orders may be forwarded to this peer."""
        self._connected.add(peer)

    def on_peer_down(self, peer: NodeId) -> None:
        """What was forwarded to this peer and not answered is unknown."""
        self._connected.discard(peer)
        for leader, order in list(self._forwarded.values()):
            if leader == peer:
                del self._forwarded[order.id]
                self._settle(order, _LINK_BROKE)

    def on_forward(self, sender: NodeId, message: ForwardOrder, raft: RawNode, now: float) -> None:
        """A peer takes this node for the leader: begin its order now, or give it back."""
        origin = (sender, message.incarnation)
        order = _Order(message.id, None, message.config_index, message.target, now, origin)
        if message.change:
            try:
                order.change = decode_config_change(message.change)
            except ValueError:
                self._settle(order, Failure(FailureCode.INVALID, "this is no known change"))
                return
        if raft.role is not Role.LEADER or not self._begin(order, raft):
            self._send(sender, OrderReply(message.incarnation, message.id, order.refusal, True))

    def on_reply(self, sender: NodeId, message: OrderReply) -> None:
        """The leader answers an order that was forwarded to it."""
        leader, order = self._forwarded.get(message.id, (None, None))
        if message.incarnation != self._incarnation or order is None or leader != sender:
            return
        del self._forwarded[message.id]
        if message.is_given_back:
            order.refusal = message.answer if isinstance(message.answer, Failure) else None
            self._held.append(order)
            self._is_put_off = True
        else:
            self._settle(order, message.answer or _UNKNOWN)

    def on_cancel(self, request: RequestId) -> None:
        """The client went away: drop its order if it is held, else let it run unanswered."""
        self._held = [order for order in self._held if order.id != request]
        self._forwarded.pop(request, None)
        for running in self._begun():
            if running.order.id == request and running.order.origin is None:
                self._forget(running)

    def tick(self, raft: RawNode) -> None:
        """A tick passed: try again what was held again, and promote who asked for it."""
        self._is_put_off = False
        for learner in raft.learners_to_promote():
            try:
                raft.propose_config(PromoteLearner(learner))
            except ConfigChangeRefused:
                break

    def expire(self, now: float, no_leader: Failure) -> None:
        """Answer what waited until its deadline."""
        for order in [order for order in self._held if order.deadline <= now]:
            self._held.remove(order)
            self._settle(order, order.refusal or no_leader)
        for _, order in list(self._forwarded.values()):
            if order.deadline <= now:
                del self._forwarded[order.id]
                self._settle(order, _UNKNOWN)
        for running in self._begun():
            # An order of a peer has its deadline there.
            if running.order.origin is None and running.order.deadline <= now:
                self._forget(running)
                self._settle(running.order, _UNKNOWN)

    # ---- once a turn ------------------------------------------------------------------------

    def turn(self, raft: RawNode) -> None:
        """Begin or forward what is held, and answer what is done."""
        if self._held and not self._is_put_off:
            self._offer(raft)
        for change in self._changes.copy():
            self._follow_change(change, raft)
        for transfer in self._transfers.copy():
            self._follow_transfer(transfer, raft)

    def _offer(self, raft: RawNode) -> None:
        if raft.role is Role.LEADER:
            held, self._held = self._held, []
            self._held = [order for order in held if not self._begin(order, raft)]
            return
        leader = raft.leader_id
        if leader is None or leader not in self._connected:
            return
        for order in self._held:
            change = b"" if order.change is None else encode_config_change(order.change)
            self._forwarded[order.id] = (leader, order)
            message = ForwardOrder(
                self._incarnation, order.id, change, order.config_index, order.target
            )
            self._send(leader, message)
        self._held.clear()

    def _begin(self, order: _Order, raft: RawNode) -> bool:
        """Begin or refuse an order on the leader; False if it may be tried again."""
        if order.change is None:
            return self._begin_transfer(order, raft)
        if order.config_index not in (None, raft.config_index):
            detail = f"the present configuration is that of index {raft.config_index}"
            self._settle(order, Failure(FailureCode.PRECONDITION, detail))
            return True
        try:
            entry = raft.propose_config(order.change)
        except ConfigChangeRefused as refused:
            order.refusal = Failure(FailureCode.REFUSED, refused.detail, str(refused.reason))
            if refused.reason in _RETRIED:
                return False
            self._settle(order, order.refusal)
            return True
        self._changes.append(_Change(order, entry))
        return True

    def _begin_transfer(self, order: _Order, raft: RawNode) -> bool:
        if raft.is_founding or not _has_committed_in_term(raft):
            order.refusal = _refusal(RefusalReason.NOT_READY, "the leader has just been elected")
            return False
        target = best_successor(raft, self._election_ticks) if order.target is None else None
        target = order.target if order.target is not None else target
        refusal = self._check_target(target, raft)
        if refusal is not None:
            self._settle(order, refusal)
        elif target == raft.id:
            self._settle(order, Transferred(raft.id, raft.term))
        else:
            assert target is not None
            raft.transfer_leader(target)
            self._transfers.append(_Transfer(order, target, raft.term))
        return True

    def _check_target(self, target: NodeId | None, raft: RawNode) -> Failure | None:
        if target is None:
            return _refusal(SILENT, "no other voter answers that could lead")
        if target == raft.id:
            return None
        if target not in raft.conf_state.ids:
            return _refusal(RefusalReason.UNKNOWN_MEMBER, f"no member has the id {target:016x}")
        if target not in raft.conf_state.voters:
            return _refusal(RefusalReason.NOT_A_VOTER, "only a voter can lead")
        if raft.progress[target].silent_ticks > self._election_ticks:
            return _refusal(SILENT, "the target does not answer")
        if raft.transferee not in (None, target):
            detail = "leadership is being handed to another member"
            return _refusal(RefusalReason.CHANGE_IN_PROGRESS, detail)
        return None

    # ---- what was begun ---------------------------------------------------------------------

    def _follow_change(self, change: _Change, raft: RawNode) -> None:
        index = change.entry.index
        if raft.commit_index < index:
            return
        term = raft.term_of(index)
        if term is None:
            answer: Answer = _UNKNOWN  # a snapshot took the place of the log
        elif term != change.entry.term:
            answer = _OVERWRITTEN
        elif raft.conf_state.is_joint and raft.config_index == index:
            return
        elif raft.config_index > raft.commit_index:
            return  # the second half of this change, or already another
        else:
            answer = ConfigChanged(raft.config_index)
        self._forget(change)
        self._settle(change.order, answer)

    def _follow_transfer(self, transfer: _Transfer, raft: RawNode) -> None:
        answer: Answer
        if raft.term == transfer.term:
            if raft.role is not Role.LEADER or raft.transferee == transfer.target:
                return
            detail = "the target did not take over in time"
            answer = _refusal(NOT_TRANSFERRED, detail)
        elif raft.leader_id is None or not _has_committed_in_term(raft):
            return
        elif raft.leader_id == transfer.target:
            answer = Transferred(transfer.target, raft.term)
        else:
            answer = _refusal(NOT_TRANSFERRED, f"member {raft.leader_id:016x} leads now")
        self._forget(transfer)
        self._settle(transfer.order, answer)

    def _begun(self) -> list[_Change | _Transfer]:
        return [*self._changes, *self._transfers]

    def _forget(self, running: _Change | _Transfer) -> None:
        if isinstance(running, _Change):
            self._changes.remove(running)
        else:
            self._transfers.remove(running)

    def _settle(self, order: _Order, answer: Answer) -> None:
        if order.origin is None:
            self._answer(order.id, answer)
            return
        assert isinstance(answer, ConfigChanged | Transferred | Failure)
        peer, incarnation = order.origin
        self._send(peer, OrderReply(incarnation, order.id, answer, False))


def best_successor(
    raft: RawNode,
    election_ticks: int,
    avoid: tuple[NodeId, ...] = (),
    *,
    may_be_silent: bool = False,
) -> NodeId | None:
    """The voter that this leader should hand over to: one that answers and lacks least.

    Rather one that is not to be avoided; a silent one only if ``may_be_silent`` and all are.
    """
    candidates = [
        (progress.silent_ticks > election_ticks, peer in avoid, -progress.match, peer)
        for peer, progress in raft.progress.items()
        if peer in raft.conf_state.voters and peer != raft.id
    ]
    if not candidates:
        return None
    is_silent, _, _, best = min(candidates)
    return None if is_silent and not may_be_silent else best


def _has_committed_in_term(raft: RawNode) -> bool:
    return raft.term_of(raft.commit_index) == raft.term


def _refusal(reason: str, detail: str) -> Failure:
    return Failure(FailureCode.REFUSED, detail, str(reason))
