"""Log replication and heartbeats, the leader's and the follower's end (paper 5.3).

Free functions called by `raftkv.raft.raft.Raft`, which they change through its methods only.

The leader does not send when something is appended but when the host takes its `Ready`
(`flush`): all that one loop turn brought travels in one Append per peer, and in parallel with
the leader's own disk write (thesis 10.2.1). How far ahead it sends is `Progress`'s business.
"""

from typing import TYPE_CHECKING

from raftkv.raft import membership, reading, snapshotting
from raftkv.raft.messages import (
    Append,
    AppendResp,
    Entry,
    Heartbeat,
    HeartbeatResp,
    NodeId,
    TimeoutNow,
)
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.roles import Leader

if TYPE_CHECKING:
    from raftkv.raft.raft import Raft


# ---- the leader's end -----------------------------------------------------------------------


def flush(raft: "Raft", leader: Leader) -> None:
    """Send what the calls since the last flush made due: heartbeats, then Appends."""
    reading.begin_round(raft, leader)
    if leader.is_heartbeat_due:
        leader.is_heartbeat_due = False
        for peer in leader.peers:
            _send_heartbeat(raft, leader, peer)
    if leader.has_news:
        leader.has_news = False
        for peer in leader.peers:
            _replicate(raft, peer, leader.progress[peer])
        membership.step_down_if_no_voter(raft, leader)


def _send_heartbeat(raft: "Raft", leader: Leader, peer: NodeId) -> None:
    progress = leader.progress[peer]
    # Not beyond what the peer is known to hold: beyond, its log may still be another one.
    commit = min(progress.match, raft.log.commit)
    raft.send(Heartbeat(raft.id, peer, raft.term, progress.session, commit, leader.reads.number))


def _replicate(raft: "Raft", peer: NodeId, progress: Progress) -> None:
    log = raft.log
    if progress.state is ProgressState.SNAPSHOT:
        return
    if log.term_of(progress.next - 1) is None:
        _replicate_what_is_gone(raft, peer, progress)
        return
    last_index = log.last_index
    if progress.leaves_at is not None and progress.leaves_at > log.commit:
        # Who leaves learns it when it is settled. Else it might be the only one alive that holds
        # the entry: the others could not win against its log, and it could not win at all.
        last_index = progress.leaves_at - 1
    while (
        progress.next <= last_index or progress.state is ProgressState.PROBE
    ) and progress.may_send_entries:
        entries = log.entries_within(progress.next, last_index, raft.config.append_bytes_max)
        _send_append(raft, peer, progress, entries)
    # A commit index is news too: a reader on that peer may wait for it.
    is_commit_due = (
        progress.commit_sent < log.commit
        and progress.commit_sent < progress.next - 1
        and progress.state is ProgressState.REPLICATE
        and not progress.inflights.is_full
    )
    if progress.is_nudge_due or is_commit_due:
        _send_append(raft, peer, progress, ())


def _replicate_what_is_gone(raft: "Raft", peer: NodeId, progress: Progress) -> None:
    """The entries that the peer needs are compacted: no Append can help it."""
    if progress.leaves_at is not None:
        return
    if not progress.may_send_entries and not progress.is_nudge_due:
        return
    if progress.is_heard(raft.config.election_ticks):
        snapshotting.want(raft, peer, progress)
        return
    # Silent, perhaps as it has nothing yet: such a node takes no notice of heartbeats, but of an
    # Append (node design, rule 15). Where the log begins is as good as anywhere.
    progress.become_probe(raft.log.first_index)
    _send_append(raft, peer, progress, ())


def _send_append(
    raft: "Raft", peer: NodeId, progress: Progress, entries: tuple[Entry, ...]
) -> None:
    log = raft.log
    prev_index = progress.next - 1
    prev_term = log.term_of(prev_index)
    assert prev_term is not None
    raft.send(
        Append(
            raft.id, peer, raft.term, progress.session, prev_term, prev_index, log.commit, entries
        )
    )
    progress.sent(prev_index + len(entries), log.commit)


def _sender_progress(
    raft: "Raft", leader: Leader, answer: AppendResp | HeartbeatResp
) -> Progress | None:
    """The sender's progress, if it is a member and speaks of its present membership."""
    progress = leader.progress.get(answer.sender)
    if progress is None or progress.session != answer.session:
        raft.dropped_messages += 1
        return None
    if not progress.is_heard(raft.config.election_ticks):
        leader.has_news = True  # a silent peer is not sent a snapshot: it may need one
    progress.heard()
    return progress


def on_append_resp(raft: "Raft", answer: AppendResp) -> None:
    """The peer's log agrees up to some index, or parts from this one before another."""
    leader, log = raft.role, raft.log
    if not isinstance(leader, Leader):
        return
    progress = _sender_progress(raft, leader, answer)
    if progress is None:
        return
    if answer.rejected_index is not None:
        hint = log.highest_match(answer.hint_index, answer.hint_term)
        if progress.rejected(answer.rejected_index, hint.index):
            leader.has_news = True
    elif answer.match > log.last_index:
        raft.dropped_messages += 1  # acknowledges what was never sent
    elif progress.accepted(answer.match, log.base.index):
        leader.has_news = True
        if answer.match > log.commit:
            raft.advance_commit(leader)
        if raft.role is leader:
            continue_transfer(raft, leader)


def on_heartbeat_resp(raft: "Raft", answer: HeartbeatResp) -> None:
    """The peer still takes this node for the leader of the term, as of a round."""
    leader = raft.role
    if not isinstance(leader, Leader):
        return
    progress = _sender_progress(raft, leader, answer)
    if progress is not None and progress.confirmed_round < answer.round <= leader.reads.number:
        progress.confirmed_round = answer.round
        reading.answer_confirmed(raft, leader)


def continue_transfer(raft: "Raft", leader: Leader) -> None:
    """Tell the target of a transfer to campaign, once it holds the whole log."""
    if leader.transfer is None:
        return
    target = leader.transfer.target
    if leader.progress[target].match == raft.log.last_index:
        raft.send(TimeoutNow(raft.id, target, raft.term))


# ---- the follower's end ---------------------------------------------------------------------


def on_append(raft: "Raft", message: Append) -> None:
    """Receiver rules 2 to 5 (paper fig. 2). The accepting answer waits for the disk."""
    if not raft.follow(message.sender):
        return
    log = raft.log
    if message.prev_index < log.commit:
        # Late or from a leader that lost the answers: what is committed agrees with every
        # leader's log, so say where to go on, and let nothing old touch the log.
        raft.accept(message, log.commit)
        return
    if log.term_of(message.prev_index) != message.prev_term:
        _reject(raft, message)
        return
    missing = message.entries[log.count_present(message.entries) :]
    if missing:
        first = missing[0].index
        if first <= log.last_index:
            log.truncate(first)
        log.append(missing)
        raft.configuration_may_have_changed()
    match = message.prev_index + len(message.entries)
    # What follows ``match`` here may be another leader's leftover: not covered by ``commit``.
    raft.commit_to(min(message.commit, match))
    raft.accept(message, match)


def _reject(raft: "Raft", message: Append) -> None:
    hint = raft.log.highest_match(message.prev_index, message.prev_term)
    raft.send(
        AppendResp(
            raft.id,
            message.sender,
            raft.term,
            message.session,
            match=0,
            rejected_index=message.prev_index,
            hint_term=hint.term,
            hint_index=hint.index,
        )
    )


def on_heartbeat(raft: "Raft", message: Heartbeat) -> None:
    """Recognise the leader and echo the round; says nothing of the log, so waits for nothing."""
    if not raft.follow(message.sender):
        return
    # The leader's ``commit`` is bounded by what this node acknowledged as durable. A shorter log
    # means that the disk lost acknowledged entries: such a node may not vote nor count.
    assert message.commit <= raft.log.last_index, (
        f"this node acknowledged its log up to {message.commit} and holds {raft.log.last_index}"
    )
    raft.commit_to(message.commit)
    raft.send(HeartbeatResp(raft.id, message.sender, raft.term, message.session, message.round))
