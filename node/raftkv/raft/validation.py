"""Whether a peer's message can have been sent by a correct node, judged by itself alone.

Called by `raftkv.raft.raft.Raft.step` before anything else looks at the message. Raft trusts its
members, so this is no defence against a malicious one; it keeps a damaged or misdirected message
from being adopted blindly or from ending the process. Dropping a message is always safe in Raft.
"""

from typing import assert_never

from raftkv.raft.messages import (
    Append,
    AppendResp,
    Entry,
    EntryType,
    Heartbeat,
    HeartbeatResp,
    Index,
    Input,
    InstallSnapshot,
    NodeId,
    PreVote,
    PreVoteResp,
    ReadIndex,
    ReadIndexResp,
    TimeoutNow,
    Vote,
    VoteResp,
    decode_conf_state,
)

# No cluster gets there, even with an election a microsecond; a term beyond is garbage that would
# exhaust the encoding, and all nodes would follow it.
NUMBER_MAX = 1 << 62


def is_plausible(message: Input, receiver: NodeId) -> bool:
    """Whether ``message`` is meant for ``receiver`` and does not contradict itself."""
    if message.receiver != receiver or message.sender == receiver:
        return False
    if not 0 <= message.term < NUMBER_MAX:
        return False
    match message:
        case Append():
            return _is_plausible_append(message)
        case AppendResp():
            rejected = message.rejected_index
            return _are_indexes(message.match, message.hint_index, message.hint_term) and (
                rejected is None or _are_indexes(rejected)
            )
        case Vote() | PreVote():
            return _are_indexes(message.last_index) and 0 <= message.last_term < message.term
        case InstallSnapshot():
            return _is_plausible_snapshot(message)
        case Heartbeat():
            return message.term > 0 and _are_indexes(message.commit)
        case ReadIndexResp():
            return message.index is None or _are_indexes(message.index)
        case VoteResp() | PreVoteResp() | HeartbeatResp() | TimeoutNow() | ReadIndex():
            return True
        case _:
            assert_never(message)


def _are_indexes(*numbers: Index) -> bool:
    return min(numbers) >= 0 and max(numbers) < NUMBER_MAX


def _is_plausible_append(message: Append) -> bool:
    if not _are_indexes(message.prev_index, message.prev_term, message.commit):
        return False
    if message.term == 0 or (message.prev_index == 0) != (message.prev_term == 0):
        return False
    index, term = message.prev_index, message.prev_term
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term or not entry.term:
            return False
        if entry.type is EntryType.CONFIG and not _is_configuration(entry):
            return False
        term = entry.term
    return term <= message.term


def _is_plausible_snapshot(message: InstallSnapshot) -> bool:
    last = message.last
    return (
        _are_indexes(last.index, last.term)
        and 0 < last.term <= message.term
        and 0 < message.config_index <= last.index
        and bool(message.conf.voters)
    )


def _is_configuration(entry: Entry) -> bool:
    try:
        return bool(decode_conf_state(entry.data).voters)
    except ValueError:
        return False
