"""What the consensus core refuses, as an exception tree.

    RaftError
    ├── ProposalDropped      nothing was appended: retry, here or at the leader
    ├── ReadDropped          nothing was asked: retry when there is a leader
    └── BootstrapRefused     the node or the configuration is not fit to found a cluster

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
