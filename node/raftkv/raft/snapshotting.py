"""Snapshots in place of entries that a log dropped, the leader's and the follower's end (paper 7).

Free functions called by `raftkv.raft.raft.Raft` and `raftkv.raft.replication`. The state itself is
a file that the hosts transfer; the core says who needs one (`SnapshotWanted`), and takes note when
one has arrived (`InstallSnapshot`).

    leader    SnapshotWanted ─ host sends a file ─ snapshot_sent ── AppendResp ─ Appends go on
    follower  host verifies the file, syncs it ── InstallSnapshot ─ Write.snapshot ─┘

Invariant: what is committed is never taken back. A snapshot at or below the commit index changes
nothing, also when it comes late, twice or from a leader whose snapshot is older.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raftkv.raft.messages import Index, InstallSnapshot, NodeId, SnapshotBase
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.roles import Leader

if TYPE_CHECKING:
    from raftkv.raft.raft import Raft


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """The host is to send ``peer`` a snapshot whose last index is at least ``min_index``.

    Said once; the host answers `RawNode.snapshot_sent` or `RawNode.snapshot_failed`, in the end.
    """

    peer: NodeId
    session: Index
    min_index: Index


# ---- the leader's end -----------------------------------------------------------------------


def want(raft: "Raft", peer: NodeId, progress: Progress) -> None:
    """The entry before the next one for ``peer``, which speaks, is compacted: have one sent."""
    if progress.state is ProgressState.REPLICATE:
        progress.become_probe(progress.next)
    progress.become_snapshot()
    raft.snapshots_wanted.append(SnapshotWanted(peer, progress.session, raft.log.base.index))


def sent(raft: "Raft", peer: NodeId, index: Index) -> None:
    """The peer's host took over a snapshot up to ``index``."""
    assert index <= raft.log.applied, "a snapshot of what is not applied"
    if isinstance(raft.role, Leader) and peer in raft.role.progress:
        raft.role.progress[peer].snapshot_sent(index)


def failed(raft: "Raft", peer: NodeId) -> None:
    """The peer's host took over nothing."""
    if isinstance(raft.role, Leader) and peer in raft.role.progress:
        raft.role.progress[peer].snapshot_failed()


# ---- the follower's end ---------------------------------------------------------------------


def on_install_snapshot(raft: "Raft", message: InstallSnapshot) -> None:
    """The host has the file of a leader's snapshot. The accepting answer waits for the disk."""
    if not raft.follow(message.sender):
        return
    log, last = raft.log, message.last
    if last.index <= log.commit:
        raft.accept(message, log.commit)
    elif log.term_of(last.index) == last.term:
        # The own log is equal up to there (log matching): nothing is missing but the news.
        raft.commit_to(last.index)
        raft.accept(message, last.index)
    else:
        log.install(SnapshotBase(last, message.config_index, message.conf))
        raft.configuration_may_have_changed()
        raft.accept(message, last.index)
