"""What a leader lets in when room is short (node design, rules 19 and 22)."""

import pytest

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    ClientCommand,
    Compact,
    Delete,
    DeleteRange,
    Fenced,
    GrantLease,
    Increment,
    KeepLeaseAlive,
    KeepLockAlive,
    LeaveLock,
    Once,
    Put,
    ReadKey,
    ReleaseLock,
    ReturnPrevious,
    RevokeLease,
    Txn,
    encode_command,
    join_batch,
)
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.store import Store
from raftkv.node.admission import Admission
from raftkv.node.messages import FailureCode
from raftkv.node.settings import NodeSettings
from raftkv.raft import Entry, EntryType

PUT, DELETE = Put(b"k", b"v"), Delete(b"k")
FINGERPRINT = bytes(16)

NEED_ROOM: list[ClientCommand] = [
    PUT,
    Append(b"k", b"v", 100),
    Increment(b"k", 1),
    ReturnPrevious(PUT),
    Txn((), (ReadKey(b"k"),), (PUT,), 10, 10),
    GrantLease(1000, 10),
    AcquireLock(b"l", b"me", 1000, 0, 10),
    Fenced(b"l", 1, PUT),
    Once(b"id", FINGERPRINT, 1000, PUT),
    Once(b"id", FINGERPRINT, 1000, Fenced(b"l", 1, Increment(b"k", 1))),
]
MAKE_ROOM: list[ClientCommand] = [
    DELETE,
    ReturnPrevious(DELETE),
    DeleteRange(b"", None, 100),
    Txn((), (DELETE, DeleteRange(b"a", b"b", 9)), (ReadKey(b"k"),), 10, 10),
    KeepLeaseAlive(1),
    RevokeLease(1),
    KeepLockAlive(b"l", 1),
    ReleaseLock(b"l", 1),
    LeaveLock(b"l", 1, releases=True),
    Compact(1),
    Fenced(b"l", 1, DELETE),
    Once(b"id", FINGERPRINT, 1000, DELETE),
]


def _admission(**changes: int) -> Admission:
    return Admission(NodeSettings("n1", "n1:1", "http://n1", "test", **changes))  # type: ignore[arg-type]


def _apply(store: Store, command: ClientCommand) -> None:
    data = join_batch([encode_command(command)])
    store.apply([Entry(1, store.applied_index + 1, EntryType.NORMAL, data)])


def _name(command: ClientCommand) -> str:
    return type(command).__name__


@pytest.mark.parametrize("command", NEED_ROOM, ids=_name)
def test_rule_19_beyond_the_quota_nothing_that_needs_room_is_let_in(command: ClientCommand) -> None:
    store = Store(MemoryEngine())
    data = encode_command(command)
    admission = _admission(quota_bytes=100)
    assert admission.is_open(store, 100)
    assert not admission.is_open(store, 101)
    assert admission.refuse(store, 100, data) is None
    assert admission.refuse(store, 101, data) is FailureCode.QUOTA


@pytest.mark.parametrize("command", MAKE_ROOM, ids=_name)
def test_rule_19_what_makes_room_or_holds_on_is_always_let_in(command: ClientCommand) -> None:
    store = Store(MemoryEngine())
    assert _admission(quota_bytes=100).refuse(store, 101, encode_command(command)) is None


def test_rule_19_the_quota_counts_what_is_stored_and_what_is_proposed() -> None:
    store = Store(MemoryEngine())
    _apply(store, Put(b"k", bytes(1000)))
    used = store.logical_bytes
    assert _admission(quota_bytes=used + 10).is_open(store, 10)
    assert not _admission(quota_bytes=used + 10).is_open(store, 11)


@pytest.mark.parametrize("limits", [{"once_count_max": 1}, {"once_bytes_max": 10}])
def test_rule_22_when_records_are_full_only_new_keys_are_refused(limits: dict[str, int]) -> None:
    store = Store(MemoryEngine())
    admission = _admission(**limits)
    known = Once(b"known", FINGERPRINT, 1000, PUT)
    assert admission.is_open(store, 0)
    _apply(store, known)
    assert not admission.is_open(store, 0)
    # The retry of a request that has its record is told what came of it.
    assert admission.refuse(store, 0, encode_command(known)) is None
    new = Once(b"new", FINGERPRINT, 1000, DELETE)
    assert admission.refuse(store, 0, encode_command(new)) is FailureCode.IDEMPOTENCY_FULL
    assert admission.refuse(store, 0, encode_command(PUT)) is None
