"""Elections: who may campaign, who gets a vote, who has won (paper 5.2, 5.4.1; thesis 9.6).

Free functions called by `raftkv.raft.raft.Raft`, which they change through its methods only.

A campaign has two rounds. The pre-vote asks "would you vote for me?" without touching any term,
so that a node that cannot win (cut off, or behind) disturbs nobody. The vote itself enters a new
term. Safety rests on the second round alone: one durable vote per term and node, and only for a
candidate whose log is at least as up to date as the voter's.
"""

from typing import TYPE_CHECKING

from raftkv.raft.messages import (
    EntryId,
    PreVote,
    PreVoteResp,
    TimeoutNow,
    Vote,
    VoteResp,
)
from raftkv.raft.quorum import VoteResult
from raftkv.raft.roles import Candidate, PreCandidate

if TYPE_CHECKING:
    from raftkv.raft.raft import Raft


def campaign(raft: "Raft", *, transfer: bool = False) -> None:
    """Begin a campaign; a ``transfer`` was asked for by the leader and skips the pre-vote."""
    if transfer:
        _ask_for_votes(raft, transfer=True)
        return
    raft.become_pre_candidate()
    last_term, last_index = raft.log.last_term, raft.log.last_index
    for voter in raft.quorum.voters:
        if voter != raft.id:
            raft.send(PreVote(raft.id, voter, raft.term + 1, last_term, last_index))
    _count_votes(raft)


def _ask_for_votes(raft: "Raft", *, transfer: bool = False) -> None:
    # The requests wait for the disk like every message of a term that is not durable: they
    # stand for the own vote, and a restart must not have forgotten it.
    raft.become_candidate()
    last_term, last_index = raft.log.last_term, raft.log.last_index
    for voter in raft.quorum.voters:
        if voter != raft.id:
            raft.send(Vote(raft.id, voter, raft.term, last_term, last_index, transfer))
    _count_votes(raft)


def _count_votes(raft: "Raft") -> None:
    role = raft.role
    assert isinstance(role, PreCandidate | Candidate)
    match raft.quorum.vote_result(role.votes):
        case VoteResult.PENDING:
            pass
        case VoteResult.LOST:
            raft.become_follower(raft.term, None)
        case VoteResult.WON if isinstance(role, PreCandidate):
            _ask_for_votes(raft)
        case VoteResult.WON:
            raft.become_leader()


def _may_vote_for(raft: "Raft", request: Vote | PreVote) -> bool:
    # This is a repeat of the vote cast, or none is cast and nobody won this term yet, or it is
    # about a later term. The own configuration is not asked: it may be older than the sender's.
    is_free = raft.vote is None and raft.leader_id is None
    may_vote = raft.vote == request.sender or is_free or request.term > raft.term
    return may_vote and _is_log_up_to_date(raft, request)


def _is_log_up_to_date(raft: "Raft", request: Vote | PreVote) -> bool:
    return raft.log.is_up_to_date(EntryId(request.last_term, request.last_index))


def on_pre_vote(raft: "Raft", request: PreVote) -> None:
    """Answer without any change of state; ignore it while a leader is active."""
    if raft.hears_leader:
        return
    granted = _may_vote_for(raft, request)
    if not _is_log_up_to_date(raft, request):
        raft.refuse_older_log()
    # The term asked about if granted, as the own one may be far behind it; else the own one.
    term = request.term if granted else raft.term
    raft.send(PreVoteResp(raft.id, request.sender, term, granted))


def on_pre_vote_resp(raft: "Raft", answer: PreVoteResp) -> None:
    """Count it, if it is about the campaign under way."""
    role = raft.role
    about_term = raft.term + 1 if answer.granted else raft.term
    if isinstance(role, PreCandidate) and answer.term == about_term:
        role.votes.setdefault(answer.sender, answer.granted)
        _count_votes(raft)


def on_vote(raft: "Raft", request: Vote) -> None:
    """Vote at most once in a term; the granting answer waits until the vote is on disk."""
    granted = _may_vote_for(raft, request)
    if granted:
        raft.cast_vote(request.sender)
    raft.send(VoteResp(raft.id, request.sender, raft.term, granted))


def on_vote_resp(raft: "Raft", answer: VoteResp) -> None:
    """Count it; the term is the present one, else the funnel had dropped it."""
    role = raft.role
    if isinstance(role, Candidate):
        role.votes.setdefault(answer.sender, answer.granted)
        _count_votes(raft)


def on_timeout_now(raft: "Raft", order: TimeoutNow) -> None:
    """The leader hands over: campaign at once, without pre-vote (thesis 3.10)."""
    if raft.may_campaign and raft.leader_id == order.sender:
        campaign(raft, transfer=True)
