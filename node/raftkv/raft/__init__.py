"""Raft: how several nodes keep one log, and lose nothing while a majority of them lives.

This package is the consensus core: values in, values out; no I/O, clock or randomness of its own.
The host (`raftkv.node`) calls a `RawNode` and carries out the `Ready` that it hands back. Read
this essay first, then `raft` (the state and its transitions) with `election`, `replication` and
`reading` beside it. Sources: "In search of an understandable consensus algorithm" (the paper) and
Diego Ongaro's dissertation (the thesis). The vocabulary is etcd-io/raft's, the clarity toydb's.

THE LOG

Every change of the replicated state is an `Entry`: a term, an index, and bytes that mean nothing
here. The log (`log.RaftLog`) is the sequence of entries. Nodes agree on the log; a state machine
that applies the same entries in the same order then is the same everywhere. An entry is named for
good by its `EntryId` (term, index): whenever two logs have an entry of the same name, they are
equal up to there (log matching, paper 5.3).

An entry is *committed* once a majority of the voters has it on disk and it is of the leader's
term, or precedes one that is. A committed entry is in the log of every later leader, so it may be
applied. Until then it may be overwritten.

TERMS AND ELECTION

Time is cut into terms, numbered upwards; each has at most one leader, because each node votes once
in a term and a leader needs a majority. A node hears of a later term by any message, and follows
it at once (`Raft._settle_term`). Term and vote are on disk before any message of that term leaves.

A follower that hears no leader for its election timeout (random, so that seldom two campaign at
once) becomes a `PreCandidate` and asks all voters "would you vote for me?" (`PreVote`). Only with
a majority of yes does it become a `Candidate`, enter the next term, vote for itself and ask for
votes (`Vote`). Voters refuse a candidate whose last `EntryId` is below their own: thus every leader
has every committed entry (paper 5.4). Nodes that heard a leader within the minimum timeout answer
neither; so a node that is cut off, behind, or no longer a member disturbs nobody (thesis 4.2.3,
9.6). And a leader that hears no quorum for that long steps down (check-quorum, thesis 6.2). A node
with a term above the leader's answers with it, the leader steps down, and the next one includes it.

REPLICATION

The `Leader` alone appends: `RawNode.propose`. What one turn of the host's loop brought goes out as
one `Append` per peer, naming the entry before it, while the leader writes its own disk (thesis
10.2.1). A follower takes an Append only if it has that previous entry; else it says where its log
may agree (`AppendResp`, skipping whole terms). It cuts its log only where an entry really differs,
and never at or below its commit index. Its yes waits until the entries are on its disk. The leader
keeps a `Progress` for each peer: PROBE, one Append at a time until the logs are known to agree,
then REPLICATE, a small window of Appends in flight (thesis 10.2.2). Commit is the highest index
that a majority holds durably, the leader's own disk counting like any other.

A new leader first appends a no-op. With its commit all that earlier leaders left is committed too;
counting copies of their entries would not do (paper 5.4.2, figure 8).

`Heartbeat` is its own message, unlike in the paper, so that it never waits behind bulk data.

DURABILITY

What asserts that something is on disk waits for the disk, and nothing else does
(`durability.DurabilityQueue`). `Ready.write` is the one write that may be in flight; its messages
are sent when it is done. All that gathers meanwhile is the next write: group commit without a
timer. A completed write counts only for entries that were not overwritten meanwhile.

READS

A linearizable read needs no log entry (thesis 6.4). The leader notes its commit index, proves by a
round of heartbeats that it was still the leader after the read arrived, and the read is served
anywhere as soon as that index is applied there: `RawNode.read_index`, `ReadState`. All reads of a
turn, also those that followers forward (`ReadIndex`), share one round. A leader answers none before
it committed in its own term. Reads that no clock is asked for: leases are not offered.

MEMBERSHIP

A configuration (`ConfState`: voters, learners) is itself an entry, in force from the moment it is
appended and gone if it is truncated (`configurations.Configurations`). While two sets of voters are
in force (joint consensus, paper 6), elections, commit, reads and check-quorum need a majority of
each (`quorum.Quorum`). Learners receive the log and have no say. A node campaigns only if its
newest configuration lists it as voter (with two exceptions: `Raft.may_campaign`), yet grants votes
by the log rule alone: its own configuration may be the older one.

The leader changes it by `RawNode.propose_config` (`confchange`, `membership`): one change at a
time, the last one committed, and an entry of its own term committed, too. A member is added as
learner, promoted once it has caught up, or takes the vote of another in one joint change, which the
leader, or the next one, finishes by itself. What would leave the cluster without a majority that
answers is refused.

Node ids are random and made together with the disk, so a node that lost its disk is another node
and cannot vote twice. Every Append and Heartbeat carries the session of its receiver's membership,
every answer echoes it, and the leader drops answers of a session that is over.

SNAPSHOTS

The host applies entries and drops them from the log when it likes (`RawNode.compact`). A peer that
needs one of them is sent the whole state instead, as a file and by the hosts; the core only says to
whom (`snapshotting.SnapshotWanted`). The receiving host tells its core by `InstallSnapshot`, which
replaces the log unless it is committed as far. The configuration at that point comes with it.

FOUNDING

A node with an empty log belongs to no cluster: it neither votes nor campaigns, but takes Appends.
So how does the first leader come to be? `RawNode.bootstrap` makes one node the leader of term 1
with a log of one entry, 1@1, the first configuration. Nobody else can lead term 1, since all others
first hear of the cluster from that node, and it was told so once. It appends nothing more in term
1; it only replicates 1@1. When a quorum has it, the founder steps down and campaigns for term 2
like anybody (without pre-vote and marked as a transfer, because all have just heard from it).
Killed before, it finds 1@1, term 1, its own vote and commit index 0 on its disk, and resumes: it
cannot have sent anything else. Should it not come back, whoever holds 1@1 can be elected into term
2, as 1@1 is the same everywhere.

WHAT IS NOT HERE

When to take a snapshot, and its transfer: that is the host's. Client sessions belong to the state
machine (thesis 6.3). Nodes are trusted to run this code: `validation` keeps garbage out, not
malice.
"""

from raftkv.raft.confchange import (
    AddLearner,
    ConfigChange,
    LeaveJoint,
    PromoteLearner,
    RemoveMember,
    ReplaceMember,
    decode_config_change,
    encode_config_change,
    next_conf_state,
)
from raftkv.raft.config import Config, Rng
from raftkv.raft.durability import Write
from raftkv.raft.errors import (
    BootstrapRefused,
    ConfigChangeRefused,
    DropReason,
    ProposalDropped,
    RaftError,
    ReadDropped,
    RefusalReason,
)
from raftkv.raft.messages import (
    Append,
    AppendResp,
    ConfState,
    Entry,
    EntryId,
    EntryType,
    HardState,
    Heartbeat,
    HeartbeatResp,
    Index,
    Input,
    InstallSnapshot,
    Member,
    Message,
    NodeId,
    PreVote,
    PreVoteResp,
    ReadIndex,
    ReadIndexResp,
    SnapshotBase,
    Term,
    TimeoutNow,
    Vote,
    VoteResp,
    decode_conf_state,
    encode_conf_state,
)
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.rawnode import Positions, RawNode, Ready
from raftkv.raft.read_only import ReadState
from raftkv.raft.roles import Role, SoftState
from raftkv.raft.snapshotting import SnapshotWanted

__all__ = [
    "AddLearner",
    "Append",
    "AppendResp",
    "BootstrapRefused",
    "ConfState",
    "Config",
    "ConfigChange",
    "ConfigChangeRefused",
    "DropReason",
    "Entry",
    "EntryId",
    "EntryType",
    "HardState",
    "Heartbeat",
    "HeartbeatResp",
    "Index",
    "Input",
    "InstallSnapshot",
    "LeaveJoint",
    "Member",
    "Message",
    "NodeId",
    "Positions",
    "PreVote",
    "PreVoteResp",
    "Progress",
    "ProgressState",
    "PromoteLearner",
    "ProposalDropped",
    "RaftError",
    "RawNode",
    "ReadDropped",
    "ReadIndex",
    "ReadIndexResp",
    "ReadState",
    "Ready",
    "RefusalReason",
    "RemoveMember",
    "ReplaceMember",
    "Rng",
    "Role",
    "SnapshotBase",
    "SnapshotWanted",
    "SoftState",
    "Term",
    "TimeoutNow",
    "Vote",
    "VoteResp",
    "Write",
    "decode_conf_state",
    "decode_config_change",
    "encode_conf_state",
    "encode_config_change",
    "next_conf_state",
]
