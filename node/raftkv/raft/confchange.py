"""What may be asked of the membership of a cluster: values with one encoding.

A follower sends the encoded change to the leader, whose `RawNode.propose_config` decides.
"""

from enum import StrEnum
from typing import Final

import msgspec

from raftkv.raft.messages import Member, NodeId


class AddLearner(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Add a member that receives the log and does not vote."""

    member: Member
    promote_when_caught_up: bool = False


class PromoteLearner(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Let a learner that has caught up vote."""

    id: NodeId


class RemoveMember(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Remove a voter or learner; its id is never used again."""

    id: NodeId


class ReplaceMember(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Let the learner ``new`` vote in the place of the voter ``old``, in one joint change."""

    old: NodeId
    new: NodeId


class LeaveJoint(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """End a joint change; proposed by the leader itself."""


ConfigChange = AddLearner | PromoteLearner | RemoveMember | ReplaceMember | LeaveJoint


class Reason(StrEnum):
    """Why a change is refused."""

    NOT_LEADER = "not_leader"
    NOT_READY = "not_ready"
    CHANGE_IN_PROGRESS = "change_in_progress"
    UNKNOWN_MEMBER = "unknown_member"
    ALREADY_MEMBER = "already_member"
    ID_REUSED = "id_reused"
    NOT_A_LEARNER = "not_a_learner"
    LEARNER_LAGS = "learner_lags"
    WOULD_LOSE_QUORUM = "would_lose_quorum"
    LEADER_ITSELF = "leader_itself"
    TOO_MANY_MEMBERS = "too_many_members"


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[ConfigChange]] = msgspec.msgpack.Decoder(ConfigChange)


def encode_config_change(change: ConfigChange) -> bytes:
    """The bytes of a change, for the leader."""
    return _ENCODER.encode(change)


def decode_config_change(data: bytes) -> ConfigChange:
    """Inverse of `encode_config_change`. Raises ``msgspec.DecodeError`` on anything else."""
    return _DECODER.decode(data)
