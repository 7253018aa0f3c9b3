"""Turns a node's insides into what it says of itself. Reads only."""

from functools import partial
from typing import TYPE_CHECKING

from raftkv.node.status import ClusterStatus, MemberStatus, State, Status
from raftkv.raft import ConfState, Member, NodeId, Role

if TYPE_CHECKING:
    from raftkv.node.node import Node


def status(node: "Node", now: float) -> Status:
    """See `Status`. Valid before recovery too, with zeros."""
    core = node.core
    if core is None:
        return _starting(node)
    raft, store, snapshots = core.raft, core.store, node.snapshots
    seen_at = node.leader_seen_at
    return Status(
        name=node.settings.name,
        member_id=core.identity.member_id,
        cluster_id=core.identity.cluster_id,
        state=_state(node),
        role="learner" if raft.is_learner else str(raft.role),
        term=raft.term,
        leader=raft.leader_id,
        leader_name=_name_of(raft.conf_state, raft.leader_id),
        commit_index=raft.commit_index,
        applied_index=raft.applied_index,
        first_log_index=raft.first_index,
        last_log_index=raft.last_index,
        durable_index=raft.durable_index,
        revision=store.revision,
        db_bytes=store.engine.size_bytes(),
        keys=store.key_count,
        pending_requests=len(node.requests) + len(node.orders),
        is_voter=raft.is_voter,
        caught_up=node.requests.is_caught_up,
        seconds_since_leader=None if seen_at is None else now - seen_at,
        is_transferring=raft.transferee is not None,
        version=node.settings.version,
        removed=raft.is_removed,
        leases=store.lease_count,
        locks=store.lock_count,
        idempotency_records=store.once_count,
        idempotency_bytes=store.once_bytes,
        logical_bytes=store.logical_bytes,
        compacted_revision=store.compacted_revision,
        log_time_ms=store.log_time_ms,
        quota_bytes=node.settings.quota_bytes,
        idempotency_hits=node.requests.replayed_count,
        hash_mismatches=node.hash_check.mismatch_count,
        snapshot_index=0 if snapshots.newest is None else snapshots.newest.meta.last.index,
        snapshot_age_seconds=None if snapshots.taken_at is None else now - snapshots.taken_at,
        snapshot_duration_seconds=snapshots.duration_seconds,
        snapshot_error=snapshots.last_refusal,
    )


def _starting(node: "Node") -> Status:
    return Status(
        name=node.settings.name,
        member_id=0,
        cluster_id=None,
        state=State.JOINING,
        role=str(Role.FOLLOWER),
        term=0,
        leader=None,
        leader_name=None,
        commit_index=0,
        applied_index=0,
        first_log_index=0,
        last_log_index=0,
        durable_index=0,
        revision=0,
        db_bytes=0,
        keys=0,
        pending_requests=0,
        is_voter=False,
        caught_up=False,
        seconds_since_leader=None,
        is_transferring=False,
        version=node.settings.version,
    )


def _state(node: "Node") -> State:
    if node.is_stopped:
        return State.FAILED
    if node.hand_over.is_draining:
        return State.DRAINING
    identity = node.identity
    if identity is None or identity.cluster_id is None:
        return State.UNINITIALISED
    return State.RUNNING if node.requests.is_caught_up else State.JOINING


def _name_of(conf: ConfState, member_id: NodeId | None) -> str | None:
    return next((member.name for member in conf.members if member.id == member_id), None)


def cluster(node: "Node", now: float) -> ClusterStatus:
    """See `ClusterStatus`. Only a leader knows its followers' lag and health."""
    core = node.core
    if core is None:
        return ClusterStatus(None, None, None, 0, 0, (), (), (), (), None, "", 0)
    raft, conf = core.raft, core.raft.conf_state
    members = tuple(_member(node, member, now) for member in conf.members)
    tolerance = None
    if raft.role is Role.LEADER:
        healthy = {member.id for member in members if member.healthy}
        halves = [half for half in (conf.voters, conf.voters_outgoing) if half]
        tolerance = min(len(healthy.intersection(half)) - (len(half) // 2 + 1) for half in halves)
    return ClusterStatus(
        cluster_id=core.identity.cluster_id,
        leader=raft.leader_id,
        leader_name=_name_of(conf, raft.leader_id),
        term=raft.term,
        config_index=raft.config_index,
        voters=conf.voters,
        learners=conf.learners,
        voters_outgoing=conf.voters_outgoing,
        members=members,
        fault_tolerance=tolerance,
        state_hash=core.store.chain_hash.hex(),
        state_hash_index=core.store.applied_index,
        auto_promote=conf.auto_promote,
        removed=conf.removed,
        hash_mismatches=node.hash_check.mismatch_count,
        role_changes=node.reports.role_changes(partial(_name_of, conf), now),
    )


def _member(node: "Node", member: Member, now: float) -> MemberStatus:
    core = node.core
    assert core is not None
    raft = core.raft
    is_self = member.id == raft.id
    progress = raft.progress.get(member.id) if raft.role is Role.LEADER else None
    tick_seconds = node.settings.tick_seconds
    if is_self:
        match: int | None = raft.durable_index
        contact: float | None = 0.0
        healthy: bool | None = True
    elif progress is not None:
        match = progress.match
        contact = progress.silent_ticks * tick_seconds
        healthy = progress.silent_ticks <= node.settings.election_ticks
    else:
        match = contact = healthy = None
    is_voter = member.id in raft.conf_state.voters or member.id in raft.conf_state.voters_outgoing
    role = "leader" if member.id == raft.leader_id else "follower" if is_voter else "learner"
    return MemberStatus(
        id=member.id,
        name=member.name,
        peer_url=member.peer_url,
        client_url=member.client_url,
        role=role,
        voter=is_voter,
        match_index=match,
        lag_entries=None if match is None else max(0, raft.last_index - match),
        last_contact_seconds=contact,
        rtt_seconds=None if progress is None else node.round_trips.seconds.get(member.id),
        healthy=healthy,
        diverged=node.hash_check.differs_from(member.id),
        unanswered_seconds=node.reports.unanswered_seconds(member.id, now),
        report=node.reports.of(member.id, raft, core.store, now),
    )
