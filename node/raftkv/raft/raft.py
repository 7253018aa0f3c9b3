"""One node's consensus state, and the only place that changes its term, vote, role and commit.

Owned and called by `raftkv.raft.rawnode.RawNode`. Inputs (`tick`, `step`, `propose`, ...) change
the state and leave what is to be done in ``messages``, ``durability``, ``read_states`` and
``reads_dropped``, where the host API collects it. The rules of each sub-problem are free
functions beside this module, which see the whole state but change it through methods here:

    election       pre-vote and votes
    replication    appends and heartbeats, both ends
    reading        read indexes, both ends
    membership     changes of the configuration
    snapshotting   snapshots, both ends

Every message passes one funnel (`step`): is it plausible, what does its term mean, then the
handler. Every role change goes through a ``become_*`` method.

Invariants: `raftkv.raft.invariants`. Source: paper fig. 2; the shape is etcd's ``raft.go``.
"""

from typing import assert_never

from raftkv.raft import election, membership, reading, replication, snapshotting
from raftkv.raft.config import Config, Rng
from raftkv.raft.durability import DurabilityQueue
from raftkv.raft.errors import BootstrapRefused, DropReason, ProposalDropped
from raftkv.raft.log import RaftLog
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
    Term,
    TimeoutNow,
    Vote,
    VoteResp,
    encode_conf_state,
)
from raftkv.raft.quorum import Quorum
from raftkv.raft.read_only import ReadState
from raftkv.raft.roles import Candidate, Follower, Leader, PreCandidate, RoleState, Transfer
from raftkv.raft.snapshotting import SnapshotWanted
from raftkv.raft.validation import is_plausible

# The first entry of every cluster: the configuration it was founded with.
FOUNDING_ENTRY = EntryId(term=1, index=1)


class Raft:
    """See the module docstring. Attributes may be read by all, assigned by nobody else."""

    def __init__(self, config: Config, hard_state: HardState, log: RaftLog, rng: Rng) -> None:
        self.config = config
        self.id: NodeId = config.id
        self.log = log
        self.term: Term = hard_state.term
        self.vote: NodeId | None = hard_state.vote  # in ``term``; None: not cast
        self.role: RoleState = Follower()
        # Of the configuration in force; kept here because every decision asks it.
        self.quorum = Quorum.of(log.conf_state)
        # Ticks since a leader was heard, a vote was granted or a campaign began.
        self.election_elapsed_ticks = 0
        # A candidate with an older log has asked for this node's vote since a leader was heard.
        self.is_counted_on = False
        # Drawn anew whenever a role begins.
        self.election_timeout_ticks = 0
        self.durability = DurabilityQueue(hard_state)
        self.messages: list[Message] = []  # that may leave at once
        self.read_states: list[ReadState] = []  # answered reads of this host
        self.reads_dropped: list[int] = []  # contexts that will not be answered
        self.snapshots_wanted: list[SnapshotWanted] = []
        # Whom this node may have to speak with: the other members, and on a leader those that
        # are leaving. The same object until it changes.
        self.contacts: tuple[Member, ...] = ()
        self.dropped_messages = 0  # implausible, misdirected or of an ended session
        self._rng = rng
        self._conf_state = log.conf_state  # that ``quorum`` was made of
        self._restart_election_timer()
        self.contacts_may_have_changed()
        assert log.last_term <= self.term, "the recovered term is older than the log"
        if self._was_founding():
            self._found()

    # ---- what others ask about it -----------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        """What a restart needs."""
        return HardState(self.term, self.vote, self.log.commit)

    @property
    def leader_id(self) -> NodeId | None:
        """The leader of the current term, as far as this node knows."""
        match self.role:
            case Leader():
                return self.id
            case Follower():
                return self.role.leader_id
            case PreCandidate() | Candidate():
                return None
            case _:
                assert_never(self.role)

    @property
    def is_voter(self) -> bool:
        """Whether the configuration in force lists this node as voter."""
        for half in self.quorum.halves:  # noqa: SIM110 - a generator costs more than this
            if self.id in half:
                return True
        return False

    @property
    def may_campaign(self) -> bool:
        """Whether this node is a voter, or perhaps one that nobody can be elected without.

        A configuration that removes this node may not be committed yet, and this node the only
        one left that holds it: nobody without it can win against this log, and only this node
        can bring it to the others (thesis 4.2.2, figure 4.6). Or a learner is a voter by the
        configuration of a candidate, which cannot win against its log. Elected, such a node leads
        without a vote of its own and hands over as soon as it has committed an entry.
        """
        log = self.log
        if self.is_voter or (self.is_counted_on and self.id in log.conf_state.learners):
            return True
        return log.config_index > log.commit and any(
            conf.has_voter(self.id) for conf in log.configurations_from(log.commit)
        )

    @property
    def hears_leader(self) -> bool:
        """Whether a leader was active within the minimum election timeout.

        Such a node ignores candidates: they can only disturb (thesis 4.2.3, 9.6). A leader
        hears itself, because check-quorum deposes it when that is not worth anything.
        """
        match self.role:
            case Leader():
                return not self.role.is_founding
            case Follower(leader_id=leader_id):
                is_recent = self.election_elapsed_ticks < self.config.election_ticks
                return leader_id is not None and is_recent
            case PreCandidate() | Candidate():
                return False
            case _:
                assert_never(self.role)

    @property
    def has_committed_in_term(self) -> bool:
        """Whether an entry of the current term is committed.

        Only then a leader's commit index covers all that earlier leaders committed (thesis 6.4).
        """
        return self.log.term_of(self.log.commit) == self.term

    def _was_founding(self) -> bool:
        """Whether this node was killed while founding: nothing but 1@1 was ever sent by it."""
        log = self.log
        return (
            log.last_id == FOUNDING_ENTRY
            and log.commit == 0
            and (self.term, self.vote) == (FOUNDING_ENTRY.term, self.id)
        )

    # ---- inputs: time -----------------------------------------------------------------------

    def tick(self) -> None:
        """One tick passed."""
        match self.role:
            case Leader():
                self._tick_leader(self.role)
            case Follower():
                self.reads_dropped += self.role.reads.tick(self.config.election_ticks)
                self._tick_election()
            case PreCandidate() | Candidate():
                self._tick_election()
            case _:
                assert_never(self.role)

    def _tick_election(self) -> None:
        self.election_elapsed_ticks += 1
        if self.election_elapsed_ticks < self.election_timeout_ticks:
            return
        if self.may_campaign:
            election.campaign(self)
        else:
            self.become_follower(self.term, None)

    def _tick_leader(self, leader: Leader) -> None:
        for peer in leader.peers:
            progress = leader.progress[peer]
            progress.silent_ticks += 1
            if progress.tick_snapshot(self.config.election_ticks):
                leader.has_news = True
        membership.tick_leaving(self, leader)
        if not leader.is_founding and not self._hears_quorum(leader):
            # Check-quorum (thesis 6.2): a leader cut off must not keep clients waiting, nor
            # keep those who hear it from electing another.
            self.become_follower(self.term, None)
            return
        if leader.transfer is not None:
            leader.transfer.elapsed_ticks += 1
            if leader.transfer.elapsed_ticks >= self.config.election_ticks:
                leader.transfer = None
                membership.leave_joint(self, leader)
        leader.heartbeat_elapsed_ticks += 1
        if leader.heartbeat_elapsed_ticks >= self.config.heartbeat_ticks:
            leader.heartbeat_elapsed_ticks = 0
            leader.is_heartbeat_due = True
            for peer in leader.peers:
                if leader.progress[peer].heartbeat_interval_passed():
                    leader.has_news = True

    def _hears_quorum(self, leader: Leader) -> bool:
        ticks_max = self.config.election_ticks
        return self.quorum.is_reached(
            lambda voter: voter == self.id or leader.progress[voter].silent_ticks < ticks_max
        )

    def _restart_election_timer(self) -> None:
        shortest = self.config.election_ticks
        longest = shortest + self.config.election_jitter_ticks
        self.election_elapsed_ticks = 0
        self.election_timeout_ticks = self._rng.randrange(shortest, longest + 1)

    # ---- inputs: messages -------------------------------------------------------------------

    def step(self, message: Input) -> None:
        """Take a peer's message. Drops what cannot be right, and counts it."""
        if not is_plausible(message, self.id):
            self.dropped_messages += 1
            return
        if self.log.is_empty and isinstance(message, PreVote | Vote):
            # Of no cluster yet: a vote of a node without memory could be its second one.
            return
        if message.term == self.term or self._settle_term(message):
            self._dispatch(message)

    def _dispatch(self, message: Input) -> None:  # noqa: C901 - one case for each kind
        match message:
            case Append():
                replication.on_append(self, message)
            case AppendResp():
                replication.on_append_resp(self, message)
            case Heartbeat():
                replication.on_heartbeat(self, message)
            case HeartbeatResp():
                replication.on_heartbeat_resp(self, message)
            case ReadIndex():
                reading.on_read_index(self, message)
            case ReadIndexResp():
                reading.on_read_index_resp(self, message)
            case Vote():
                election.on_vote(self, message)
            case VoteResp():
                election.on_vote_resp(self, message)
            case PreVote():
                election.on_pre_vote(self, message)
            case PreVoteResp():
                election.on_pre_vote_resp(self, message)
            case TimeoutNow():
                election.on_timeout_now(self, message)
            case InstallSnapshot():
                snapshotting.on_install_snapshot(self, message)
            case _:
                assert_never(message)

    def _settle_term(self, message: Input) -> bool:
        """Bring both ends to one term (paper 5.1). Returns whether to handle the message."""
        if message.term < self.term:
            self._answer_outdated(message)
            return False
        match message:
            case PreVote() | PreVoteResp(granted=True):
                pass  # speaks of a term that nobody has entered yet
            case Vote(transfer=False) if self.hears_leader:
                return False  # thesis 4.2.3: do not even take over the term
            case Append() | Heartbeat() | InstallSnapshot():
                self.become_follower(message.term, message.sender)
            case _:
                self.become_follower(message.term, None)
        return True

    def _answer_outdated(self, message: Input) -> None:
        """Tell a peer that its term is over; without it a node with a higher term stays stuck.

        Such a node ignores its leader's lower term, and its pre-votes are ignored by those who
        hear that leader. The answer deposes the leader, and the next one includes the node.
        """
        peer = message.sender
        match message:
            case Append(session=session, prev_index=prev):
                self.send(AppendResp(self.id, peer, self.term, session, 0, prev))
            case InstallSnapshot(session=session, last=last):
                self.send(AppendResp(self.id, peer, self.term, session, 0, last.index))
            case Heartbeat(session=session, round=number):
                self.send(HeartbeatResp(self.id, peer, self.term, session, number))
            case PreVote():
                self.send(PreVoteResp(self.id, peer, self.term, granted=False))
            case Vote():
                self.send(VoteResp(self.id, peer, self.term, granted=False))
            case ReadIndex(context=context):
                self.send(ReadIndexResp(self.id, peer, self.term, context, None))
            case _:
                pass  # an answer to, or an order from, a term that is over

    # ---- inputs: the host -------------------------------------------------------------------

    def propose(self, data: bytes) -> EntryId:
        """Append a NORMAL entry. Raises `ProposalDropped`."""
        leader = self.role
        if not isinstance(leader, Leader):
            raise ProposalDropped(DropReason.NOT_LEADER)
        if leader.is_founding:
            raise ProposalDropped(DropReason.FOUNDING)
        if leader.transfer is not None or not self.is_voter:
            raise ProposalDropped(DropReason.TRANSFERRING)
        held = leader.uncommitted_bytes
        if held and held + len(data) > self.config.uncommitted_bytes_max:
            raise ProposalDropped(DropReason.OVERLOADED)
        return self.append_own(leader, EntryType.NORMAL, data)

    def bootstrap(self, conf: ConfState) -> None:
        """Found a cluster of ``conf``. Raises `BootstrapRefused`."""
        if not self.log.is_empty or self.term != 0:
            raise BootstrapRefused("the node is not empty")
        if self.id not in conf.voters or conf.voters_outgoing:
            raise BootstrapRefused("the configuration is joint or does not list this node as voter")
        if any(dict(conf.sessions).get(voter) != FOUNDING_ENTRY.index for voter in conf.voters):
            raise BootstrapRefused("a voter's session is not that of the founding entry")
        self.term = FOUNDING_ENTRY.term
        self.vote = self.id
        term, index = FOUNDING_ENTRY.term, FOUNDING_ENTRY.index
        self.log.append([Entry(term, index, EntryType.CONFIG, encode_conf_state(conf))])
        self.configuration_may_have_changed()
        self._found()

    def _found(self) -> None:
        """Lead term 1 until 1@1 is committed: at once, if it is durable and this voter alone."""
        leader = self.become_leader(is_founding=True)
        self.advance_commit(leader)

    def transfer_leader(self, target: NodeId) -> None:
        """Hand leadership to ``target`` as soon as it holds the whole log (thesis 3.10)."""
        leader = self.role
        assert isinstance(leader, Leader), "only a leader transfers leadership"
        assert target != self.id, "leadership is transferred to another node"
        assert any(target in half for half in self.quorum.halves), "only a voter can lead"
        if leader.is_founding or (leader.transfer and leader.transfer.target == target):
            return
        leader.transfer = Transfer(target)
        replication.continue_transfer(self, leader)

    def persisted(self, number: int) -> None:
        """The write of that number is on disk."""
        self.durability.done(number, self.log)
        leader = self.role
        # Only now a leader counts itself (thesis 10.2.1).
        if isinstance(leader, Leader) and leader.progress[self.id].accepted(self.log.durable):
            self.advance_commit(leader)

    # ---- transitions ------------------------------------------------------------------------

    def become_follower(self, term: Term, leader_id: NodeId | None) -> None:
        """Follow ``leader_id``, or nobody yet, in ``term``."""
        self._leave_role()
        if term != self.term:
            self._enter_term(term, vote=None)
        self.role = Follower(leader_id)
        if leader_id is not None:
            self.is_counted_on = False
        self._restart_election_timer()
        self.contacts_may_have_changed()

    def become_pre_candidate(self) -> None:
        """Ask for pre-votes, in the present term and without binding anybody."""
        assert self.may_campaign
        self._leave_role()
        self.role = PreCandidate({self.id: True})
        self._restart_election_timer()

    def become_candidate(self) -> None:
        """Enter the next term with the own vote."""
        assert self.may_campaign
        self._leave_role()
        self._enter_term(self.term + 1, vote=self.id)
        self.role = Candidate({self.id: True})
        self._restart_election_timer()

    def become_leader(self, *, is_founding: bool = False) -> Leader:
        """Lead the present term, which was won (or, founding, is this node's by construction)."""
        assert is_founding or isinstance(self.role, Candidate)
        assert self.vote == self.id
        self._leave_role()
        log, conf = self.log, self.log.conf_state
        members = sorted({*conf.ids, self.id})  # this node may be on its way out
        progress = {member: membership.make_progress(self, conf, member) for member in members}
        peers = tuple(member for member in progress if member != self.id)
        if is_founding:
            for member in peers:  # they have nothing yet: offer 1@1 at once
                progress[member].become_probe(log.first_index)
        leader = Leader(progress, peers, is_founding, has_news=True)
        uncommitted = log.entries(log.commit + 1, log.last_index + 1)
        leader.uncommitted_bytes = sum(len(entry.data) for entry in uncommitted)
        self.role = leader
        progress[self.id].accepted(log.durable)
        if not is_founding:
            # Commits, with itself, what earlier leaders left (paper 5.4.2 and 8).
            self.append_own(leader, EntryType.NOOP, b"")
        return leader

    def refuse_older_log(self) -> None:
        """A candidate with an older log than this one asks for this node's vote.

        Candidates ask the voters of their configurations only, which may be newer than this
        node's, so it might be that they need this vote (see `may_campaign`).
        """
        self.is_counted_on = True

    def cast_vote(self, candidate: NodeId) -> None:
        """Vote for ``candidate`` in the present term; the answer must wait for the disk."""
        assert self.vote in (None, candidate), "a second vote in one term"
        self.vote = candidate
        self.election_elapsed_ticks = 0

    def follow(self, leader_id: NodeId) -> bool:
        """The present term's Append or Heartbeat came from ``leader_id``.

        False if another node is known to lead this term: somebody is wrong, and not listening
        is safe.
        """
        if self.leader_id == leader_id:
            self.election_elapsed_ticks = 0
            self.is_counted_on = False
            return True
        if self.leader_id is not None:
            self.dropped_messages += 1
            return False
        self.become_follower(self.term, leader_id)
        return True

    def commit_to(self, index: Index) -> None:
        """Followers: the leader says that ``index`` is committed."""
        self.log.commit_to(index)

    def advance_commit(self, leader: Leader) -> None:
        """Leaders: commit what a quorum holds durably, if it is of the present term.

        An entry of an older term is committed only along with one of the own term: held by a
        majority is not enough for it (paper 5.4.2, fig. 8).
        """
        log, progress = self.log, leader.progress
        index = self.quorum.agreed_value(lambda voter: progress[voter].match)
        if index <= log.commit or log.term_of(index) != self.term:
            return
        committed = log.entries(log.commit + 1, index + 1)
        leader.uncommitted_bytes -= sum(len(entry.data) for entry in committed)
        leader.has_news = True
        log.commit_to(index)
        if leader.is_founding:
            # Founded: from here on a cluster like any other. The campaign counts as a transfer
            # because all others have just heard from this leader.
            self.become_follower(self.term, None)
            election.campaign(self, transfer=True)
        else:
            membership.leave_joint(self, leader)

    def configuration_may_have_changed(self) -> None:
        """The log grew or shrank: take over the configuration now in force."""
        if self.log.conf_state is self._conf_state:
            return
        self._conf_state = self.log.conf_state
        self.quorum = Quorum.of(self._conf_state)
        if isinstance(self.role, Leader):
            membership.sync_progress(self, self.role)
        self.contacts_may_have_changed()

    def contacts_may_have_changed(self) -> None:
        """The configuration, or who is leaving, is another: list anew whom to speak with."""
        conf = self._conf_state
        known = {member.id: member for member in (*self.contacts, *conf.members)}
        ids = {member.id for member in conf.members}
        if isinstance(self.role, Leader):
            ids.update(self.role.peers)
        contacts = tuple(known[i] for i in sorted(ids) if i in known and i != self.id)
        if contacts != self.contacts:
            self.contacts = contacts

    def append_own(self, leader: Leader, kind: EntryType, data: bytes) -> EntryId:
        """Leaders: append an entry of the present term."""
        entry = Entry(self.term, self.log.last_index + 1, kind, data)
        self.log.append((entry,))
        leader.uncommitted_bytes += len(data)
        leader.has_news = True
        self.configuration_may_have_changed()
        return entry.id

    def _enter_term(self, term: Term, vote: NodeId | None) -> None:
        assert term > self.term, "terms never go back"
        self.term = term
        self.vote = vote
        self.durability.forget()

    def _leave_role(self) -> None:
        """Give up the reads that only the present role could have answered."""
        match self.role:
            case Follower():
                self.reads_dropped += self.role.reads.take_all()
            case Leader():
                # Other nodes' reads are dropped by themselves when they hear of the next term.
                for request in self.role.reads.take_all():
                    if request.requester is None:
                        self.reads_dropped.append(request.context)
            case PreCandidate() | Candidate():
                pass
            case _:
                assert_never(self.role)

    # ---- outputs ----------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send as soon as the present term and vote are on disk: usually now."""
        if self.durability.has(self.term, self.vote):
            self.messages.append(message)
        else:
            self.durability.wait(message)

    def send_when_durable(self, message: Message, index: Index) -> None:
        """Send as soon as also the log up to ``index`` is on disk."""
        self.durability.wait(message, index)

    def accept(self, message: Append | InstallSnapshot, match: Index) -> None:
        """Answer that the own log is the leader's up to ``match``, once it is so on disk."""
        answer = AppendResp(self.id, message.sender, self.term, message.session, match)
        self.send_when_durable(answer, match)
