"""A leader changes the configuration, and looks after members that come and go (paper 6, thesis 4).

Free functions called by `raftkv.raft.raft.Raft`, which they change through its methods only. What
a change does is `raftkv.raft.confchange`; when it may begin is decided here:

    the leader has committed an entry of its own term    or it might build on a configuration that
                                                         another leader's is about to replace: two
                                                         majorities that do not overlap (the bug
                                                         of 2015, reference/faults.md 2, rule 1)
    the configuration in force is committed, not joint   so that adjacent ones overlap (rule 2)

A configuration is in force as soon as it is appended (`raftkv.raft.configurations`), on the leader
as everywhere; `sync_progress` keeps the leader's books in step.

A member that was removed is sent its removal once that is committed, and is served for an election
timeout more: so it usually learns that it is out, and stays quiet. Should it not learn it, pre-vote
and the lease of the leader keep it from disturbing (thesis 4.2.3).
"""

from typing import TYPE_CHECKING

from raftkv.raft.confchange import (
    ConfigChange,
    LeaveJoint,
    Outlook,
    PromoteLearner,
    check_change,
    next_conf_state,
)
from raftkv.raft.errors import ConfigChangeRefused, RefusalReason
from raftkv.raft.messages import (
    ConfState,
    EntryId,
    EntryType,
    NodeId,
    TimeoutNow,
    encode_conf_state,
)
from raftkv.raft.progress import Inflights, Progress, ProgressState
from raftkv.raft.roles import Leader

if TYPE_CHECKING:
    from raftkv.raft.raft import Raft


# ---- changes --------------------------------------------------------------------------------


def propose(raft: "Raft", change: ConfigChange) -> EntryId:
    """Append the configuration after ``change``. Raises `ConfigChangeRefused`."""
    leader = raft.role
    if not isinstance(leader, Leader):
        raise ConfigChangeRefused(RefusalReason.NOT_LEADER, "this node does not lead")
    _check_ready(raft, leader, change)
    check_change(raft.log.conf_state, change, outlook(raft, leader))
    return _append(raft, leader, change)


def _check_ready(raft: "Raft", leader: Leader, change: ConfigChange) -> None:
    if leader.transfer is not None or not raft.is_voter:
        raise ConfigChangeRefused(RefusalReason.NOT_READY, "leadership is being handed over")
    if leader.is_founding or not raft.has_committed_in_term:
        detail = "the leader has not committed anything in its term yet"
        raise ConfigChangeRefused(RefusalReason.NOT_READY, detail)
    if raft.log.config_index > raft.log.commit:
        detail = f"the configuration of index {raft.log.config_index} is not committed yet"
        raise ConfigChangeRefused(RefusalReason.CHANGE_IN_PROGRESS, detail)
    if raft.log.conf_state.is_joint and not isinstance(change, LeaveJoint):
        detail = "a replacement is under way"
        raise ConfigChangeRefused(RefusalReason.CHANGE_IN_PROGRESS, detail)


def _append(raft: "Raft", leader: Leader, change: ConfigChange) -> EntryId:
    conf = next_conf_state(raft.log.conf_state, change, raft.log.last_index + 1)
    return raft.append_own(leader, EntryType.CONFIG, encode_conf_state(conf))


def leave_joint(raft: "Raft", leader: Leader) -> None:
    """Leave a joint configuration as soon as it is committed, whoever's change it was."""
    log = raft.log
    if (
        log.conf_state.is_joint
        and log.conf_state.auto_leave
        and log.config_index <= log.commit
        and raft.has_committed_in_term
        and leader.transfer is None
        and not leader.is_founding
    ):
        _append(raft, leader, LeaveJoint())


def outlook(raft: "Raft", leader: Leader) -> Outlook:
    """Who answers, and who has caught up."""
    ticks_max = raft.config.election_ticks
    match_min = raft.log.last_index - raft.config.promote_lag_entries_max
    members = [(peer, leader.progress[peer]) for peer in leader.peers]
    # A peer that answers and is not known to hold anything may be a founding member that the
    # founder never reached: it does not vote yet, and no quorum may rest on it.
    healthy = frozenset(
        peer for peer, progress in members if progress.is_heard(ticks_max) and progress.match
    )
    silent = frozenset(peer for peer, progress in members if progress.silent_ticks >= ticks_max)
    caught_up = frozenset(
        peer
        for peer, progress in members
        if peer in healthy
        and progress.state is ProgressState.REPLICATE
        and progress.match >= match_min
    )
    return Outlook(raft.id, healthy | {raft.id}, silent, caught_up)


def learners_to_promote(raft: "Raft") -> list[NodeId]:
    """Those learners that asked for it and may be promoted now, ascending; only on a leader."""
    promotable = []
    leader, conf = raft.role, raft.log.conf_state
    if not isinstance(leader, Leader) or not conf.auto_promote:
        return []
    for learner in conf.auto_promote:
        change = PromoteLearner(learner)
        try:
            _check_ready(raft, leader, change)
            check_change(conf, change, outlook(raft, leader))
        except ConfigChangeRefused:
            continue
        promotable.append(learner)
    return promotable


# ---- the leader's books ---------------------------------------------------------------------


def make_progress(raft: "Raft", conf: ConfState, member: NodeId) -> Progress:
    """What a leader knows of a member that it begins to serve: nothing."""
    return Progress(
        next=raft.log.last_index + 1,
        inflights=Inflights(raft.config.inflight_appends_max),
        session=dict(conf.sessions).get(member, 0),
        is_learner=not conf.has_voter(member),
    )


def sync_progress(raft: "Raft", leader: Leader) -> None:
    """The configuration in force is another one: serve its members, let the others go."""
    conf = raft.log.conf_state
    sessions = dict(conf.sessions)
    for member in conf.ids:
        known = leader.progress.get(member)
        # Of another session: it was removed and added again, and what it said before is void.
        is_rejoining = known is not None and known.session != sessions.get(member, 0)
        if known is None or (is_rejoining and member != raft.id):
            leader.progress[member] = make_progress(raft, conf, member)
            leader.has_news = True
        else:
            known.is_learner = not conf.has_voter(member)
            known.leaves_at = None
    for member, progress in leader.progress.items():
        if member not in conf.ids and progress.leaves_at is None:
            progress.leaves_at = raft.log.config_index
    _list_peers(raft, leader)


def tick_leaving(raft: "Raft", leader: Leader) -> None:
    """Stop serving those whose removal has been committed for an election timeout."""
    gone = []
    for peer in leader.peers:
        progress = leader.progress[peer]
        if progress.leaves_at is not None and progress.leaves_at <= raft.log.commit:
            progress.leaving_ticks += 1
            if progress.leaving_ticks >= raft.config.election_ticks:
                gone.append(peer)
    for peer in gone:
        del leader.progress[peer]
    if gone:
        _list_peers(raft, leader)


def _list_peers(raft: "Raft", leader: Leader) -> None:
    leader.progress = dict(sorted(leader.progress.items()))
    leader.peers = tuple(member for member in leader.progress if member != raft.id)
    raft.contacts_may_have_changed()


def step_down_if_no_voter(raft: "Raft", leader: Leader) -> None:
    """A leader that is no voter by its own committed configuration hands over (thesis 4.2.2).

    That happens to a voter that leaves, if it was elected while the change was under way, and to
    a learner that was elected as nobody else could be (`Raft.may_campaign`). What they were
    elected for is done when an entry of their term is committed. Called when all peers were just
    sent the commit index.
    """
    if raft.is_voter or raft.log.config_index > raft.log.commit or not raft.has_committed_in_term:
        return
    ticks_max, last_index = raft.config.election_ticks, raft.log.last_index
    for voter in raft.quorum.voters:
        progress = leader.progress[voter]
        if progress.match == last_index and progress.is_heard(ticks_max):
            raft.send(TimeoutNow(raft.id, voter, raft.term))
            break
    raft.become_follower(raft.term, None)


def is_removed(raft: "Raft") -> bool:
    """Whether a committed configuration says that this node is out."""
    confs = raft.log.configurations_to(raft.log.commit)
    if not confs or raft.id in confs[-1].ids:
        return False
    return raft.id in confs[-1].removed or any(raft.id in conf.ids for conf in confs)
