"""What the tests of the state machine share: entries, engines, dumps, strategies."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Command,
    Compact,
    Compare,
    Comparison,
    Condition,
    Delete,
    DeleteRange,
    Expire,
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
    Stamp,
    Sweep,
    Target,
    Txn,
    encode_command,
    join_batch,
)
from raftkv.kv.engine import Engine, Pair, Table
from raftkv.kv.lmdb_engine import LmdbEngine
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import Outcome
from raftkv.kv.store import Store
from raftkv.raft.messages import Entry, EntryType

DETERMINISTIC = settings(derandomize=True, deadline=None, database=None)


def entry(index: int, *commands: Command, term: int = 1) -> Entry:
    """The log entry that holds ``commands``."""
    return Entry(term, index, EntryType.NORMAL, join_batch([encode_command(c) for c in commands]))


def run(store: Store, *wanted: Command) -> list[Outcome]:
    """Apply ``wanted`` as one entry."""
    (applied,) = store.apply([entry(store.applied_index + 1, *wanted)])
    assert applied.outcomes is not None
    return list(applied.outcomes)


def one(store: Store, wanted: Command) -> Outcome:
    """Apply ``wanted`` alone."""
    (outcome,) = run(store, wanted)
    return outcome


COUNTED_TABLES = tuple(table for table in Table if table not in (Table.META, Table.CUR))


def counted_bytes(engine: Engine, tables: Sequence[Table] = COUNTED_TABLES) -> int:
    """What `Store.logical_bytes` should be, counted afresh."""
    with engine.read() as reader:
        scans = (reader.scan(table, b"", None) for table in tables)
        return sum(len(key) + len(value) for scan in scans for key, value in scan)


@contextmanager
def open_engine(kind: str) -> Iterator[Engine]:
    """An empty engine: "memory", or "lmdb" in a directory of its own."""
    if kind == "memory":
        yield MemoryEngine()
        return
    with TemporaryDirectory() as directory:
        engine = LmdbEngine(str(Path(directory) / "env"))
        yield engine
        engine.close()


def dump(engine: Engine, keys: Sequence[bytes]) -> tuple[list[list[Pair]], list[list[bytes]]]:
    """All that an engine holds: its tables, and the histories of ``keys``, latest first."""
    with engine.read() as reader:
        tables = [list(reader.scan(table, b"", None)) for table in Table]
        histories = []
        for key in keys:
            history: list[bytes] = []
            value = reader.hist_floor(key, b"\xff" * 10)
            while value is not None and len(history) < 1000:
                history.append(value)
                below = (int.from_bytes(value, "big") - 1).to_bytes(10, "big")
                value = reader.hist_floor(key, below)
            histories.append(history)
    return tables, histories


KEYS = (b"a", b"b", b"\x00", b"a\x00", b"\xff" * 511)

conditions = st.none() | st.builds(
    Condition,
    revisions=st.none() | st.lists(st.integers(0, 12), max_size=4).map(tuple),
    exists=st.none() | st.booleans(),
)

# Values that are counters, close to being one, or about to overflow.
values = st.binary(max_size=6) | st.sampled_from(
    (b"0", b"-7", b"+7", b" 7", b"7\n", b"-", b"007", b"%d" % (2**63 - 1), b"%d" % 2**63)
)
steps = st.sampled_from((1, -1, 5, 2**63 - 1, -(2**63)))
bounds = st.sampled_from((b"", *KEYS))

key_commands = st.one_of(
    st.builds(Put, st.sampled_from(KEYS), values, conditions),
    st.builds(Increment, st.sampled_from(KEYS), steps, conditions),
    st.builds(Delete, st.sampled_from(KEYS), conditions),
    st.builds(Append, st.sampled_from(KEYS), st.binary(max_size=6), st.integers(0, 14), conditions),
)

# Revisions, and with them the ids of leases, tokens and tickets, of short logs.
numbers = st.integers(0, 14)
times = st.integers(0, 60)
lifetimes = st.integers(1, 60)
some_keys = st.sampled_from(KEYS)
puts_with_lease = st.one_of(
    st.builds(Put, some_keys, values, conditions, numbers),
    st.builds(Put, some_keys, values, conditions, st.just(0), lifetimes),
)
range_deletes = st.builds(DeleteRange, bounds, st.none() | bounds, st.integers(0, 4))

compares = st.one_of(
    st.builds(Compare, some_keys, st.just(Target.VALUE), st.sampled_from(Comparison), values),
    st.builds(Compare, some_keys, st.sampled_from(Target), st.sampled_from(Comparison), numbers),
)
ops = st.one_of(key_commands, puts_with_lease, range_deletes, st.builds(ReadKey, some_keys))
txns = st.builds(
    Txn,
    st.lists(compares, max_size=2).map(tuple),
    st.lists(ops, max_size=4).map(tuple),
    st.lists(ops, max_size=4).map(tuple),
    st.integers(0, 6),
    st.integers(0, 1000),
)

write_commands = st.one_of(
    key_commands,
    puts_with_lease,
    st.builds(ReturnPrevious, key_commands | puts_with_lease),
    range_deletes,
    txns,
)
lease_commands = st.one_of(
    st.builds(GrantLease, lifetimes, st.integers(0, 4)),
    st.builds(KeepLeaseAlive, numbers),
    st.builds(RevokeLease, numbers, st.sampled_from((b"", b"a", b"\xff"))),
)
lock_names = st.sampled_from((b"l", b"a"))
queue_commands = st.one_of(
    st.builds(
        AcquireLock,
        lock_names,
        st.sampled_from((b"x", b"y", b"z")),
        lifetimes,
        times,
        st.integers(0, 2),
    ),
    st.builds(KeepLockAlive, lock_names, numbers),
    st.builds(ReleaseLock, lock_names, numbers),
)
fenced = st.builds(Fenced, lock_names, numbers, write_commands | lease_commands)
once = st.builds(
    Once,
    st.sampled_from((b"1", b"2", b"3")),
    st.sampled_from((b"f" * 16, b"f" * 16, b"g" * 16)),
    times,
    st.one_of(write_commands, lease_commands, queue_commands, fenced),
)
stamps = st.builds(Stamp, times)

#: All but those that forget the past.
commands = st.one_of(
    write_commands,
    lease_commands,
    queue_commands,
    st.builds(LeaveLock, lock_names, numbers, st.booleans()),
    fenced,
    once,
    st.builds(Expire, numbers),
    stamps,
)
all_commands = st.one_of(
    commands,
    st.builds(Compact, numbers),
    st.builds(Sweep, st.integers(-1, 4)),
)
