"""What the consensus core refuses, as an exception tree.

    RaftError
    ├── ProposalDropped      nothing was appended: retry, here or at the leader
    ├── ReadDropped          nothing was asked: retry when there is a leader
    ├── BootstrapRefused     the node or the configuration is not fit to found a cluster
    └── ConfigChangeRefused  nothing was changed: ``reason`` says why, ``detail`` to a person

Raised to the host only, synchronously, and only for the host's own calls. What a peer sends never
raises: it is dropped and counted. An AssertionError is a bug of ours (or a disk that lost what it
had acknowledged): the process must end, because going on could break a promise.
"""

from enum import StrEnum


class DropReason(StrEnum):
    """Why a proposal was not appended."""

    NOT_LEADER = "not_leader"
    TRANSFERRING = "transferring"  # leadership is being handed over (thesis 3.10)
    FOUNDING = "founding"  # the first configuration is not committed yet
    OVERLOADED = "overloaded"  # too many bytes are appended and not committed


class RaftError(Exception):
    """Base of everything the core raises on purpose."""


class ProposalDropped(RaftError):  # noqa: N818 - says what happened, as in etcd
    """The proposal was not appended and never will be."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(f"the proposal was dropped: {reason}")
        self.reason = reason


class ReadDropped(RaftError):  # noqa: N818 - says what happened, as in etcd
    """There is no known leader to ask for a read index."""


class BootstrapRefused(RaftError):  # noqa: N818 - says what happened, as in etcd
    """Founding needs an empty node and a simple configuration that lists it as voter."""


class RefusalReason(StrEnum):
    """Why a change of the configuration was not begun."""

    NOT_LEADER = "not_leader"
    NOT_READY = "not_ready"  # the leader is new, founding, or handing over: retry
    CHANGE_IN_PROGRESS = "change_in_progress"  # one at a time: retry
    UNKNOWN_MEMBER = "unknown_member"
    ALREADY_MEMBER = "already_member"  # the id, or the name or address of a living member
    ID_REUSED = "id_reused"  # the id of a removed member
    INVALID_MEMBER = "invalid_member"  # no id, name or address at all
    NOT_A_LEARNER = "not_a_learner"
    NOT_A_VOTER = "not_a_voter"
    NOT_JOINT = "not_joint"  # there is nothing to leave
    LEARNER_LAGS = "learner_lags"  # it has not caught up, or is silent: retry
    WOULD_LOSE_QUORUM = "would_lose_quorum"
    LEADER_ITSELF = "leader_itself"  # transfer leadership first
    TOO_MANY_MEMBERS = "too_many_members"


class ConfigChangeRefused(RaftError):  # noqa: N818 - says what happened, as in etcd
    """The configuration is as it was; ``detail`` is a sentence for people."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
