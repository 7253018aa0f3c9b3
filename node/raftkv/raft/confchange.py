"""Changes of the configuration: what may be asked, what speaks against it, what comes out. Pure.

Used by `raftkv.raft.membership`, which decides when a leader may begin one, and by the node class,
which forwards them to the leader. All changes but one concern a single member, so that any majority
before and any after overlap (thesis 4.1). `ReplaceMember` swaps a voter in one joint change (paper
6): while it is under way, a majority of the old voters and one of the new must agree.

A node begins as learner. It is promoted, or takes a voter's place, once it has caught up (thesis
4.2.1). So no quorum ever counts on an empty disk.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

import msgspec

from raftkv.raft.errors import ConfigChangeRefused, RefusalReason
from raftkv.raft.messages import ConfState, Index, Member, NodeId
from raftkv.raft.quorum import Quorum

VOTERS_MAX = 9
LEARNERS_MAX = 9
REMOVED_MAX = 1024


class AddLearner(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A new member without a vote.

    It may have the name and the address of another member only if that one is silent: an empty
    node in the place of one that is lost, which it is then to replace.
    """

    member: Member
    promote_when_caught_up: bool = False  # by the caller, see `RawNode.learners_to_promote`
    # The id of a removed member, back on the very disk that it was removed with (adr 7).
    rejoins: bool = False


class PromoteLearner(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A learner that has caught up votes from now on."""

    id: NodeId


class RemoveMember(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A member leaves; its id is not used again, unless its own disk comes back (`rejoins`)."""

    id: NodeId


class ReplaceMember(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A learner that has caught up takes the vote of ``old``, which leaves for good."""

    old: NodeId
    new: NodeId


class LeaveJoint(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The second half of a joint change; the leader proposes it by itself."""


ConfigChange = AddLearner | PromoteLearner | RemoveMember | ReplaceMember | LeaveJoint

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[ConfigChange] = msgspec.msgpack.Decoder(ConfigChange)


def encode_config_change(change: ConfigChange) -> bytes:
    """The change as bytes, to be sent to the leader."""
    return _encoder.encode(change)


def decode_config_change(data: bytes) -> ConfigChange:
    """The change in ``data``. Raises ValueError if it is none."""
    return _decoder.decode(data)


# ---- what comes out -------------------------------------------------------------------------


def next_conf_state(conf: ConfState, change: ConfigChange, index: Index) -> ConfState:
    """The configuration after ``change``, which the entry at ``index`` holds.

    The caller made sure of `check_change`; AssertionError if the change does not fit at all.
    """
    assert conf.is_joint is isinstance(change, LeaveJoint), "one change at a time"
    match change:
        case AddLearner(member=member, promote_when_caught_up=is_auto):
            assert member.id not in conf.ids
            return msgspec.structs.replace(
                conf,
                learners=_with(conf.learners, member.id),
                members=tuple(sorted((*conf.members, member), key=lambda known: known.id)),
                sessions=tuple(sorted((*conf.sessions, (member.id, index)))),
                auto_promote=_with(conf.auto_promote, member.id) if is_auto else conf.auto_promote,
                removed=_without(conf.removed, member.id),
            )
        case PromoteLearner(id=node_id):
            assert node_id in conf.learners
            return msgspec.structs.replace(
                conf,
                voters=_with(conf.voters, node_id),
                learners=_without(conf.learners, node_id),
                auto_promote=_without(conf.auto_promote, node_id),
            )
        case RemoveMember(id=node_id):
            assert node_id in conf.ids
            return _drop_strangers(
                msgspec.structs.replace(
                    conf,
                    voters=_without(conf.voters, node_id),
                    learners=_without(conf.learners, node_id),
                )
            )
        case ReplaceMember(old=old, new=new):
            assert old in conf.voters
            assert new in conf.learners
            return msgspec.structs.replace(
                conf,
                voters=_with(_without(conf.voters, old), new),
                learners=_without(conf.learners, new),
                voters_outgoing=conf.voters,
                auto_leave=True,
                auto_promote=_without(conf.auto_promote, new),
            )
        case LeaveJoint():
            return _drop_strangers(
                msgspec.structs.replace(
                    conf,
                    learners=tuple(sorted({*conf.learners, *conf.learners_next})),
                    voters_outgoing=(),
                    learners_next=(),
                    auto_leave=False,
                )
            )
        case _:
            assert_never(change)


def _with(ids: Iterable[NodeId], node_id: NodeId) -> tuple[NodeId, ...]:
    return tuple(sorted({*ids, node_id}))


def _without(ids: Iterable[NodeId], node_id: NodeId) -> tuple[NodeId, ...]:
    return tuple(known for known in ids if known != node_id)


def _drop_strangers(conf: ConfState) -> ConfState:
    """Forget everything about members that are in no set any more, but their ids."""
    ids = set(conf.ids)
    known = {member for member, _ in conf.sessions} | {member.id for member in conf.members}
    gone = tuple(sorted(known - ids))
    return msgspec.structs.replace(
        conf,
        members=tuple(member for member in conf.members if member.id in ids),
        sessions=tuple(session for session in conf.sessions if session[0] in ids),
        auto_promote=tuple(learner for learner in conf.auto_promote if learner in ids),
        removed=(*conf.removed, *gone)[-REMOVED_MAX:],
    )


# ---- what speaks against it -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the leader knows of its members at this moment."""

    leader: NodeId
    # Heard of within an election timeout, and holding some of this log; the leader itself, too.
    healthy: frozenset[NodeId]
    silent: frozenset[NodeId]  # not heard of for an election timeout of this leader
    caught_up: frozenset[NodeId]  # healthy, and short of the log's end by little


def check_change(conf: ConfState, change: ConfigChange, outlook: Outlook) -> None:
    """Whether ``change`` may follow ``conf``. Raises `ConfigChangeRefused`.

    About the members only; whether the leader may change anything now is its own question.
    """
    match change:
        case LeaveJoint():
            if not conf.is_joint:
                raise _refused(RefusalReason.NOT_JOINT, "no replacement is under way")
            return
        case AddLearner(member=member):
            _check_not_removed(conf, change)
            _check_new(conf, member, outlook)
        case PromoteLearner(id=node_id):
            _check_learner(conf, node_id, outlook)
            _check_name_is_free(conf, node_id)
            if len(conf.voters) >= VOTERS_MAX:
                detail = f"a cluster has at most {VOTERS_MAX} voters"
                raise _refused(RefusalReason.TOO_MANY_MEMBERS, detail)
            _check_quorum((_with(conf.voters, node_id),), outlook)
        case RemoveMember(id=node_id):
            _check_member(conf, node_id)
            if node_id in conf.voters:
                _check_quorum((_without(conf.voters, node_id),), outlook)
            _check_not_leader(conf, node_id, outlook)
        case ReplaceMember(old=old, new=new):
            _check_member(conf, old)
            if old not in conf.voters:
                detail = f"{_name(conf, old)} is a learner: remove it and promote the other one"
                raise _refused(RefusalReason.NOT_A_VOTER, detail)
            _check_learner(conf, new, outlook)
            _check_quorum((conf.voters, _with(_without(conf.voters, old), new)), outlook)
            _check_not_leader(conf, old, outlook)
        case _:
            assert_never(change)


def _refused(reason: RefusalReason, detail: str) -> ConfigChangeRefused:
    return ConfigChangeRefused(reason, detail)


def _name(conf: ConfState, node_id: NodeId) -> str:
    name = next((member.name for member in conf.members if member.id == node_id), "")
    return f"member {name} ({node_id:016x})" if name else f"member {node_id:016x}"


def _check_new(conf: ConfState, member: Member, outlook: Outlook) -> None:
    if not 0 < member.id < 1 << 64 or not member.name or not member.peer_url:
        detail = "a member needs an id other than 0, a name and an address for its peers"
        raise _refused(RefusalReason.INVALID_MEMBER, detail)
    if member.id in conf.ids:
        detail = f"{_name(conf, member.id)} belongs to the cluster already"
        raise _refused(RefusalReason.ALREADY_MEMBER, detail)
    for known in conf.members:
        is_same_place = known.name == member.name or known.peer_url == member.peer_url
        if is_same_place and known.id not in outlook.silent:
            detail = f"{_name(conf, known.id)} at {known.peer_url} has this name or address"
            raise _refused(RefusalReason.ALREADY_MEMBER, detail)
    if len(conf.learners) >= LEARNERS_MAX:
        detail = f"a cluster has at most {LEARNERS_MAX} learners"
        raise _refused(RefusalReason.TOO_MANY_MEMBERS, detail)


def _check_not_removed(conf: ConfState, change: AddLearner) -> None:
    """Another disk under an old id would be believed for what it lost (faults 2, rules 4, 5)."""
    if change.member.id in conf.removed and not change.rejoins:
        detail = (
            f"member {change.member.id:016x} was removed, and an id is never used again: "
            "start the node with an empty data directory to give it another, "
            "or say that it rejoins with the data directory that it left with"
        )
        raise _refused(RefusalReason.ID_REUSED, detail)


def _check_member(conf: ConfState, node_id: NodeId) -> None:
    if node_id not in conf.ids:
        raise _refused(RefusalReason.UNKNOWN_MEMBER, f"no member has the id {node_id:016x}")


def _check_learner(conf: ConfState, node_id: NodeId, outlook: Outlook) -> None:
    _check_member(conf, node_id)
    if node_id not in conf.learners:
        detail = f"{_name(conf, node_id)} votes already"
        raise _refused(RefusalReason.NOT_A_LEARNER, detail)
    if node_id not in outlook.caught_up:
        detail = f"{_name(conf, node_id)} has not caught up with the log, or is silent"
        raise _refused(RefusalReason.LEARNER_LAGS, detail)


def _check_name_is_free(conf: ConfState, node_id: NodeId) -> None:
    """A learner in the place of a lost voter replaces it; it does not vote beside it."""
    own = next((member for member in conf.members if member.id == node_id), None)
    for known in conf.members:
        if own and known.id in conf.voters and own.name == known.name:
            detail = f"{_name(conf, known.id)} is a voter of the same name: replace it"
            raise _refused(RefusalReason.ALREADY_MEMBER, detail)


def _check_quorum(halves: tuple[tuple[NodeId, ...], ...], outlook: Outlook) -> None:
    if not all(halves):
        detail = "the last voter cannot leave: the cluster would be gone"
        raise _refused(RefusalReason.WOULD_LOSE_QUORUM, detail)
    if not Quorum(halves).is_reached(lambda voter: voter in outlook.healthy):
        silent = sorted({v for half in halves for v in half if v not in outlook.healthy})
        detail = (
            "afterwards the voters that answer would be no majority; silent or without data: "
            f"{', '.join(f'{voter:016x}' for voter in silent)}"
        )
        raise _refused(RefusalReason.WOULD_LOSE_QUORUM, detail)


def _check_not_leader(conf: ConfState, node_id: NodeId, outlook: Outlook) -> None:
    if node_id == outlook.leader:
        detail = f"{_name(conf, node_id)} leads: transfer leadership first"
        raise _refused(RefusalReason.LEADER_ITSELF, detail)
