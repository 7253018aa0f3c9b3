"""What members say of themselves while somebody looks: roles and log positions, for consoles.

A leader knows how far its followers are; nobody else does, and nobody knows what another node takes
itself for. So while `/v1/cluster` is being asked for, a node asks all members, and each answers
with a `Report`. Nobody looks: nothing is sent. Reports decide nothing.

Owned by the node class; holds no clock.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from raftkv.kv.store import Store
from raftkv.node.messages import PeerMessage, Report, ReportRequest
from raftkv.node.status import MemberReport, RoleChange
from raftkv.raft import NodeId, RawNode, Role
from raftkv.raft.messages import Index, Term

# Members are not asked more often, however many look.
ASK_SECONDS_MIN: Final = 0.2
# Nobody has looked for so long: what was said before then says nothing about now.
_FORGET_SECONDS: Final = 3.0
# So many changes of this node's role, term or leader are remembered: several elections.
ROLE_CHANGES_MAX: Final = 32


class Reports:
    """See the module docstring."""

    def __init__(self, send: Callable[[NodeId, PeerMessage], None]) -> None:
        self._send = send
        self._asked_at = float("-inf")
        self._received: dict[NodeId, tuple[float, Report]] = {}
        # Since when who was asked has not answered.
        self._unanswered: dict[NodeId, float] = {}
        # The how manieth, when, and what was so from then on; the oldest first.
        self._changes: deque[tuple[int, float, str, Term, NodeId | None]] = deque(
            maxlen=ROLE_CHANGES_MAX
        )
        self._change_count = 0

    # ---- reports ----------------------------------------------------------------------------

    def look(self, raft: RawNode, now: float) -> None:
        """Somebody looks at the cluster: ask the members, unless that was done just now."""
        if now - self._asked_at < ASK_SECONDS_MIN:
            return
        if now - self._asked_at > _FORGET_SECONDS:
            self._received.clear()
            self._unanswered.clear()
        self._asked_at = now
        members = {member.id for member in raft.conf_state.members}
        self._received = {
            member: kept for member, kept in self._received.items() if member in members
        }
        self._unanswered = {
            member: self._unanswered.get(member, now) for member in members - {raft.id}
        }
        for member in list(self._unanswered):  # an answer may come at once
            self._send(member, ReportRequest())

    def received(
        self,
        sender: NodeId,
        message: ReportRequest | Report,
        raft: RawNode,
        store: Store,
        now: float,
    ) -> None:
        """A peer asks how this node is, or says how it is itself.

        Who is no member is not remembered.
        """
        if isinstance(message, ReportRequest):
            self._send(sender, own_report(raft, store))
        elif any(member.id == sender for member in raft.conf_state.members):
            self._received[sender] = (now, message)
            self._unanswered.pop(sender, None)

    def of(self, member: NodeId, raft: RawNode, store: Store, now: float) -> MemberReport | None:
        """What ``member`` said last, with what its leader said of it; None: nothing yet."""
        if member == raft.id:
            at, report = now, own_report(raft, store)
        elif member in self._received and now - self._asked_at <= _FORGET_SECONDS:
            at, report = self._received[member]
        else:
            return None
        return MemberReport(
            role=report.role,
            term=report.term,
            last_log_index=report.last_index,
            durable_index=report.durable_index,
            commit_index=report.commit_index,
            applied_index=report.applied_index,
            revision=report.revision,
            match_index=self._match(member, raft, store),
            age_seconds=now - at,
        )

    def unanswered_seconds(self, member: NodeId, now: float) -> float:
        """For how long ``member`` has been asked without an answer; 0: nothing is open."""
        if now - self._asked_at > _FORGET_SECONDS:
            return 0.0  # nobody looks: what is open was forgotten, not left unanswered
        return now - self._unanswered.get(member, now)

    def _match(self, member: NodeId, raft: RawNode, store: Store) -> Index | None:
        """How far the leader knows the member's log to be its own."""
        leader = raft.leader_id
        if leader == raft.id:
            return dict(own_report(raft, store).matches).get(member)
        kept = None if leader is None else self._received.get(leader)
        if kept is None or kept[1].term != raft.term:
            return None
        return dict(kept[1].matches).get(member)

    # ---- changes of the role ----------------------------------------------------------------

    def role_changed(self, raft: RawNode, now: float) -> None:
        """This node's role, term or leader is another one."""
        self._change_count += 1
        self._changes.append((self._change_count, now, role_of(raft), raft.term, raft.leader_id))

    def role_changes(
        self, name_of: Callable[[NodeId], str | None], now: float
    ) -> tuple[RoleChange, ...]:
        """The last changes, the oldest first."""
        return tuple(
            RoleChange(number, role, term, None if leader is None else name_of(leader), now - at)
            for number, at, role, term, leader in self._changes
        )


def role_of(raft: RawNode) -> str:
    """As `Status.role` says it."""
    return "learner" if raft.is_learner else str(raft.role)


def own_report(raft: RawNode, store: Store) -> Report:
    """How this node is."""
    matches: tuple[tuple[NodeId, Index], ...] = ()
    if raft.role is Role.LEADER:
        followers = ((member, progress.match) for member, progress in raft.progress.items())
        matches = tuple(
            (member, raft.durable_index if member == raft.id else match)
            for member, match in followers
        )
    return Report(
        role=role_of(raft),
        term=raft.term,
        last_index=raft.last_index,
        durable_index=raft.durable_index,
        commit_index=raft.commit_index,
        applied_index=raft.applied_index,
        revision=store.revision,
        matches=matches,
    )
