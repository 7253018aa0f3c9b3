"""One line of stable text for each value: in traces, logs and error messages alike.

Called by tests and by the host's debug log. The form is toydb's: ``n1@3`` is node 1 in term 3,
``7@3`` is the entry at index 7 of term 3. Ids are hexadecimal, as everywhere else.
"""

from typing import assert_never

from raftkv.raft.durability import Write
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
    NodeId,
    PreVote,
    PreVoteResp,
    ReadIndex,
    ReadIndexResp,
    Term,
    TimeoutNow,
    Vote,
    VoteResp,
    decode_conf_state,
)
from raftkv.raft.roles import Role, SoftState


def describe_id(node: NodeId | None) -> str:
    """``n2a``, or ``none``."""
    return "none" if node is None else f"n{node:x}"


def describe_position(index: Index, term: Term) -> str:
    """``index@term``."""
    return f"{index}@{term}"


def describe_entry_id(entry_id: EntryId) -> str:
    """``index@term``."""
    return describe_position(entry_id.index, entry_id.term)


def describe_entry(entry: Entry) -> str:
    """``index@term`` and what the entry holds."""
    position = describe_position(entry.index, entry.term)
    match entry.type:
        case EntryType.NORMAL:
            return f"{position} {entry.data.decode('ascii', 'backslashreplace')}"
        case EntryType.NOOP:
            return f"{position} no-op"
        case EntryType.CONFIG:
            return f"{position} {describe_conf_state(decode_conf_state(entry.data))}"


def describe_entry_ids(entries: tuple[Entry, ...]) -> str:
    """``[2@1 3@1]``; a long run of one term is shortened to ``[2@1..9@1]``."""
    ids = [describe_entry_id(entry.id) for entry in entries]
    if len(ids) > 4 and entries[0].term == entries[-1].term:
        ids = [f"{ids[0]}..{ids[-1]}"]
    return f"[{' '.join(ids)}]"


def describe_conf_state(conf: ConfState) -> str:
    """``voters=n1,n2 outgoing=n1 learners=n3``, leaving out what is empty."""
    parts = [
        f"{name}={','.join(map(describe_id, ids))}"
        for name, ids in (
            ("voters", conf.voters),
            ("outgoing", conf.voters_outgoing),
            ("learners", conf.learners),
            ("learners_next", conf.learners_next),
            ("auto_promote", conf.auto_promote),
            ("removed", conf.removed),
        )
        if ids
    ]
    return " ".join(parts) or "empty"


def describe_hard_state(state: HardState) -> str:
    """``term=3 vote=n1 commit=7``."""
    return f"term={state.term} vote={describe_id(state.vote)} commit={state.commit}"


def describe_soft_state(state: SoftState) -> str:
    """``leader in term 3``, ``follower in term 3`` or ``follower in term 3 under n1``."""
    if state.leader_id is None or state.role is Role.LEADER:
        return f"{state.role} in term {state.term}"
    return f"{state.role} in term {state.term} under {describe_id(state.leader_id)}"


def describe_write(write: Write) -> str:
    """What goes to disk, and how many messages wait for it."""
    parts = [f"write {write.number}"]
    if write.snapshot is not None:
        parts.append(f"snapshot {describe_entry_id(write.snapshot.last)}")
    if write.hard_state is not None:
        parts.append(describe_hard_state(write.hard_state))
    if write.entries:
        parts.append(describe_entry_ids(write.entries))
    return " ".join(parts)


def describe_message(message: Input) -> str:
    """``n1@1 -> n2 Append base=1@1 [2@1] commit=1``."""
    ends = f"{describe_id(message.sender)}@{message.term} -> {describe_id(message.receiver)}"
    return f"{ends} {type(message).__name__}{_details(message)}"


def _details(message: Input) -> str:
    match message:
        case Append():
            base = describe_position(message.prev_index, message.prev_term)
            entries = describe_entry_ids(message.entries)
            return f" base={base} {entries} commit={message.commit}"
        case AppendResp(rejected_index=None):
            return f" match={message.match}"
        case AppendResp():
            hint = describe_position(message.hint_index, message.hint_term)
            return f" rejected={message.rejected_index} hint={hint}"
        case Heartbeat():
            return f" commit={message.commit} round={message.round}"
        case HeartbeatResp():
            return f" round={message.round}"
        case Vote() | PreVote():
            last = describe_position(message.last_index, message.last_term)
            is_transfer = isinstance(message, Vote) and message.transfer
            return f" last={last}{' transfer' if is_transfer else ''}"
        case VoteResp() | PreVoteResp():
            return " granted" if message.granted else " refused"
        case TimeoutNow():
            return ""
        case InstallSnapshot():
            return f" last={describe_entry_id(message.last)} config={message.config_index}"
        case ReadIndex():
            return f" context={message.context}"
        case ReadIndexResp():
            index = "unknown" if message.index is None else message.index
            return f" context={message.context} index={index}"
        case _:
            assert_never(message)
