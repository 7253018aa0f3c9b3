"""The guided tour: what is typed, what to look for in what happens, and why it happens.

Values only; `raftkv demo` shows them, and a test holds every sentence's ``look_for`` to the cores.
"Paper" is the Raft paper, "thesis" is Diego Ongaro's (see `raftkv.raft`).
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Move:
    """Commands that are typed one after the other, and then explained."""

    commands: tuple[str, ...]
    why: str
    look_for: tuple[str, ...] = ()  # lines that are among those printed


@dataclass(frozen=True, slots=True)
class Step:
    """One story, on a cluster of its own."""

    title: str
    source: str  # where it is described
    intro: str
    moves: tuple[Move, ...]


_LEADER_1: Final = ("quiet founded 1,2,3", "quiet campaign 1", "quiet settle")

_ELECTION: Final = Step(
    "An election, and a first entry",
    "paper 5.2 and 5.3; pre-vote: thesis 9.6",
    "Three nodes of a new cluster. Each has one entry, 1@1 (index 1, term 1): the configuration,"
    " which lists the voters. Nobody leads.",
    (
        Move(
            ("founded 1,2,3", "timeout 1", "ready 1"),
            "Node 1 heard no leader for an election timeout. Before it disturbs anybody it asks"
            " whether it would win: PreVote, for term 2, while its own term stays 1.",
            ("n1 pre_candidate in term 1", "n1@2 -> n2 PreVote last=1@1"),
        ),
        Move(
            ("settle",),
            "A majority would vote for it, so it enters term 2 and votes for itself. Term and vote"
            " are on disk (`write`) before any message that rests on them leaves. With the votes"
            " it leads, and appends a no-op, 2@2. Once a majority has that on disk it is"
            " committed, and each node applies it.",
            ("n1 candidate in term 2", "n1 leader in term 2", "n1 applies 2@2 no-op"),
        ),
        Move(
            ("propose 1 hello", "settle"),
            "An entry goes to the followers while the leader writes its own disk. Two of three"
            " disks are enough: commit=3 goes out, and all apply it in the same order.",
            ("n1@2 -> n2 Append base=2@2 [3@2] commit=2", "n3 applies 3@2 hello"),
        ),
        Move(
            ("status",),
            "commit: known to be committed. durable: on this node's disk. last: the newest entry.",
            ("n1 leader term=2 vote=n1 leader=n1 commit=3 durable=3 last=3@2",),
        ),
    ),
)

_SPLIT_VOTE: Final = Step(
    "A split vote",
    "paper 5.2; random timeouts: thesis 9.3",
    "Four voters: a majority is three. Two nodes campaign at the same moment.",
    (
        Move(
            (
                "quiet founded 1,2,3,4",
                "quiet settle",
                "timeout 1",
                "timeout 2",
                "ready 1",
                "ready 2",
                "quiet deliver type=PreVote",
                "quiet ready 1",
                "quiet ready 2",
                "ready 3",
                "ready 4",
            ),
            "Both asked before either won, and a pre-vote binds nobody: nodes 3 and 4 say yes to"
            " both.",
            ("n3@2 -> n1 PreVoteResp granted", "n3@2 -> n2 PreVoteResp granted"),
        ),
        Move(
            (
                "deliver type=PreVoteResp",
                "ready 1",
                "ready 2",
                "persist 1",
                "persist 2",
            ),
            "Both are candidates of term 2 now, and both voted for themselves. The requests for"
            " votes left when that was on disk.",
            ("n1 candidate in term 2", "n2 candidate in term 2"),
        ),
        Move(
            ("deliver from=1 to=3", "deliver from=2 to=4", "settle"),
            "Node 3 heard node 1 first, node 4 heard node 2 first. A node votes once in a term, so"
            " each candidate has two votes of four, and nobody leads term 2.",
            ("n3@2 -> n1 VoteResp granted", "n4@2 -> n2 VoteResp granted"),
        ),
        Move(
            ("timeout 1", "settle"),
            "Timeouts are random, so next time one node comes first. Node 1 wins term 3. A term"
            " without a leader cost nothing but time.",
            ("n1 leader in term 3",),
        ),
    ),
)

_CRASH: Final = Step(
    "A leader crashes with an entry that is not committed",
    "paper 5.3, 5.4",
    "Node 1 leads. It appends an entry that reaches nobody else, and crashes.",
    (
        Move(
            (*_LEADER_1, "isolate 1", "propose 1 lost", "settle"),
            "The entry 3@2 is on node 1's disk only. One of three is no majority: it is not"
            " committed, and whoever proposed it was told nothing.",
            ("n1 write 3 term=2 vote=n1 commit=2 [3@2]",),
        ),
        Move(
            ("crash 1", "heal", "quiet miss 3", "timeout 2", "settle"),
            "Nodes 2 and 3 miss their leader (one that heard from it lately would answer nobody),"
            " and node 2 is elected. It may lead because its log is not behind that of its voters"
            " (last=2@2): so a leader always has every committed entry.",
            ("n2 leader in term 3", "n2 applies 3@3 no-op"),
        ),
        Move(
            ("propose 2 kept", "quiet settle", "restart 1", "log 1"),
            "Node 1 comes back with what its disk holds, and there index 3 is of term 2.",
            ("3@2 lost",),
        ),
        Move(
            ("heartbeat 2", "settle", "log 1"),
            "An Append names the entry before its own. The logs agree up to 2@2, and at index 3"
            " they differ: node 1 cuts its log there and takes the leader's. `lost` was never"
            " committed, so it may go; a committed entry never does.",
            ("n1 write 2 term=3 vote=none commit=4 [3@3 4@3]", "3@3 no-op", "4@3 kept"),
        ),
    ),
)

_PARTITION: Final = Step(
    "A partition, with a leader that does not know it was deposed",
    "check-quorum: thesis 6.2; reads: thesis 6.4",
    "Node 1 leads, and is cut off from the others. It cannot know yet.",
    (
        Move(
            (*_LEADER_1, "isolate 1", "quiet miss 3", "timeout 2", "settle"),
            "The others elect node 2. What they send to node 1 is lost.",
            ("n2 leader in term 3",),
        ),
        Move(
            ("status",),
            "Two leaders, in different terms. Only that of term 3 can commit anything.",
            (
                "n1 leader term=2 vote=n1 leader=n1 commit=2 durable=2 last=2@2",
                "n2 leader term=3 vote=n2 leader=n2 commit=3 durable=3 last=3@3",
            ),
        ),
        Move(
            ("propose 1 old", "propose 2 new", "read 1 7", "settle"),
            "Node 1 appends `old`, but commits nothing without a majority. Nor does it answer"
            " read 7: it would have to prove by a round of heartbeats that it still leads, so"
            " nobody reads stale data from it.",
            ("n1@2 -> n2 Heartbeat commit=2 round=1 (lost)", "n2 applies 4@3 new"),
        ),
        Move(
            ("timeout 1", "settle", "timeout 1", "settle"),
            "Without a majority for an election timeout a leader steps down, and says that the"
            " read has no answer. As it campaigns only by pre-vote, its term does not run away"
            " while it is cut off.",
            ("n1 follower in term 2", "n1 read 7 dropped"),
        ),
        Move(
            ("heal", "heartbeat 2", "settle", "log 1"),
            "One heartbeat interval after healing node 1 follows node 2, and `old` is overwritten.",
            ("3@3 no-op", "4@3 new"),
        ),
    ),
)

_MEMBERS: Final = Step(
    "Another machine takes the place of node 3",
    "joint consensus: paper 6, thesis 4.3; learners: thesis 4.2.1",
    "Members change by entries of the log, too, and the cluster serves all the while.",
    (
        Move(
            (*_LEADER_1, "empty 4", "add 1 4", "settle"),
            "Node 4 is a learner: it receives the log and counts nowhere, so that its empty disk"
            " holds up nobody. A configuration is in force as soon as it is appended.",
            ("n1 appends 3@2 voters=n1,n2,n3 learners=n4", "n4 applies 2@2 no-op"),
        ),
        Move(
            ("quiet heartbeat 1", "quiet settle", "swap 1 3 4", "ready 1", "settle"),
            "4@2 is the joint configuration: voters=n1,n2,n4 outgoing=n1,n2,n3. While it is in"
            " force every decision needs a majority of the old voters and one of the new, so"
            " there is no moment at which two majorities do not meet. Once it is committed the"
            " leader appends 5@2, which ends it.",
            (
                "n1 configuration voters=n1,n2,n4 outgoing=n1,n2,n3",
                "n1 configuration voters=n1,n2,n4 removed=n3",
            ),
        ),
        Move(
            ("status", "removed"),
            "Node 3 knows that it left. Its id is never a member again: a disk that comes back"
            " from the past could vote twice.",
            ("removed: n3",),
        ),
    ),
)

_SNAPSHOT: Final = Step(
    "A snapshot for a follower that is too far behind",
    "paper 7, thesis 5",
    "A log cannot grow for ever: what is applied is kept as a snapshot, and its entries go.",
    (
        Move(
            (
                *_LEADER_1,
                "isolate 3",
                "propose 1 a",
                "propose 1 b",
                "quiet settle",
                "snapshot 1",
                "compact 1 4",
                "log 1",
            ),
            "Node 3 missed 3@2 and 4@2, and the leader does not have them any more: its log is"
            " empty, all of it is in the snapshot.",
            ("n1 has a snapshot of 4@2",),
        ),
        Move(
            ("heal", "quiet heartbeat 1", "quiet settle", "heartbeat 1", "settle"),
            "Node 3 answers that its log ends at 2@2. The entry after it is gone, so the leader"
            " sends its snapshot, which replaces node 3's log. Entries follow as usual.",
            ("n1@2 -> n3 InstallSnapshot last=4@2 config=1",),
        ),
        Move(
            ("propose 1 c", "settle", "status"),
            "All three are equal again.",
            ("n3 applies 5@2 c",),
        ),
    ),
)

#: In the order in which they are told.
TOUR: Final = (_ELECTION, _SPLIT_VOTE, _CRASH, _PARTITION, _MEMBERS, _SNAPSHOT)
