"""Long random lives of leases, locks and idempotency keys, against the model.

Hypothesis seldom guesses the id of a lease that exists. Here the model says which there are, and
commands name those, more often than not; the random numbers come from a fixed seed.
"""

from collections import Counter
from random import Random

import pytest

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Command,
    Compact,
    Compare,
    Comparison,
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
    decode_command,
    encode_command,
)
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import (
    LeaseRevoked,
    Outcome,
    Replayed,
    TxnFailed,
    decode_outcome,
    encode_outcome,
)
from raftkv.kv.store import Store
from tests.kv.against_model import check_against_model, entries_of, slices_of, state_of
from tests.kv.model import Model
from tests.kv.support import KEYS, open_engine

NAMES = (b"l", b"a")
OWNERS = (b"w", b"x", b"y", b"z")


class Life:
    """Draws commands that fit what there is, and lets the model do them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.model = Model()
        self.seen: Counter[str] = Counter()

    def log(self) -> list[list[Command] | None]:
        return [
            None if self.random.random() < 0.1 else [self.one() for _ in range(self.below(6))]
            for _ in range(30)
        ]

    def below(self, limit: int) -> int:
        return self.random.randrange(limit)

    def one(self) -> Command:
        kinds = [self.write] * 4 + [self.lease] * 3 + [self.lock] * 5 + [self.house] * 2
        around = self.below(10)
        command: Command
        if around < 2:
            inner = self.random.choice([self.write, self.lease, self.queue, self.fenced])()
            key, fingerprint = b"%d" % self.below(3), b"%016d" % (self.below(6) == 0)
            command = Once(key, fingerprint, self.below(120), inner)  # type: ignore[arg-type]
        elif around < 3:
            command = self.fenced()
        else:
            command = self.random.choice(kinds)()
        outcome = self.model.execute(command)
        self.note(command, outcome)
        return command

    def note(self, command: Command, outcome: Outcome) -> None:
        assert decode_command(encode_command(command)) == command
        assert decode_outcome(encode_outcome(outcome)) == outcome
        name = type(outcome).__name__
        if isinstance(outcome, TxnFailed):
            name += f" {type(outcome.reason).__name__}"
        if isinstance(outcome, Replayed):
            name += f" {type(outcome.outcome).__name__}"
        if isinstance(outcome, LeaseRevoked):
            name += " with keys" if outcome.count else ""
        self.seen[f"{type(command).__name__}: {name}"] += 1

    def a_lease(self) -> int:
        leases = sorted(self.model.leases)
        return self.random.choice(leases) if leases and self.below(5) else self.below(40)

    def a_token(self, name: bytes) -> int:
        lock = self.model.locks.get(name)
        return lock.token if lock and self.below(4) else self.a_lease()

    def write(self) -> Command:
        key, other = self.random.choice(KEYS), self.random.choice(KEYS)
        attached = Put(key, b"7", None, self.a_lease())
        private = Put(key, b"x", None, 0, 1 + self.below(90))
        plain: list[Put | Delete | Append | Increment] = [
            attached,
            attached,
            attached,
            private,
            private,
            Put(key, b"8"),
            Append(key, b"1", 3),
            Increment(key, 1),
            Delete(key),
        ]
        compare = Compare(other, Target.LEASE, Comparison.GREATER, 0)
        ops = tuple(self.random.choices([*plain, ReadKey(other)], k=self.below(5)))
        ranges = (DeleteRange(key, None, 4),) if self.below(3) == 0 else ()
        wanted: list[Command] = [
            *plain,
            *plain,
            ReturnPrevious(self.random.choice(plain)),
            DeleteRange(key, None, 4),
            Txn((compare,), (*ops, private, *ranges), (*ranges, *ops, attached), 6, 99),
            Txn((), (private, Put(other, b"y", None, 0, 5), *ops), (), 6, 99),
        ]
        return self.random.choice(wanted)

    def lease(self) -> Command:
        lease = self.a_lease()
        wanted: list[Command] = [
            GrantLease(1 + self.below(90), self.below(4)),
            GrantLease(1 + self.below(90), 3),
            KeepLeaseAlive(lease),
            RevokeLease(lease, self.random.choice((b"", b"", b"a"))),
        ]
        return self.random.choice(wanted)

    def queue(self) -> Command:
        name = self.random.choice(NAMES)
        owner, ttl_ms = self.random.choice(OWNERS), 1 + self.below(60)
        acquire = AcquireLock(name, owner, ttl_ms, self.below(3) * 40, 2)
        token = self.a_token(name)
        wanted: list[Command] = [
            acquire,
            acquire,
            KeepLockAlive(name, token),
            ReleaseLock(name, token),
        ]
        return self.random.choice(wanted)

    def lock(self) -> Command:
        if self.below(4):
            return self.queue()
        name = self.random.choice(NAMES)
        lock = self.model.locks.get(name)
        tickets = [lock.ticket, *(w.ticket for w in lock.waiters)] if lock else [0]
        return LeaveLock(name, self.random.choice([*tickets, 3]), self.below(2) == 0)

    def fenced(self) -> Command:
        name = self.random.choice(NAMES)
        inner = self.random.choice([self.write, self.write, self.lease])()
        return Fenced(name, self.a_token(name), inner)  # type: ignore[arg-type]

    def house(self) -> Command:
        wanted: list[Command] = [
            Stamp(self.below(40)),
            Stamp(self.below(40)),
            Expire(self.a_lease()),
            Expire(self.a_lease()),
            Sweep(self.below(4)),
            Compact(max(0, self.model.revision - self.below(20))),
        ]
        return self.random.choice(wanted)


def test_rule_21_leases_locks_and_records_live_as_in_the_model() -> None:
    seen: Counter[str] = Counter()
    grants = 0
    for seed in range(150):
        life = Life(seed)
        log = life.log()
        seen += life.seen
        grants += len(life.model.grants)
        sizes = [1 + life.below(4) for _ in range(life.below(20))]
        check_against_model(MemoryEngine(), log, sizes)
    assert grants > 50
    for kind in (
        "AcquireLock: LockHeld",
        "AcquireLock: LockQueued",
        "AcquireLock: LockBusy",
        "KeepLockAlive: LockHeld",
        "ReleaseLock: LockReleased",
        "LeaveLock: LockReleased",
        "LeaveLock: LockHeld",
        "RevokeLease: LeaseRevoked with keys",
        "RevokeLease: LeaseForbidden",
        "Expire: LeaseRevoked with keys",
        "KeepLeaseAlive: LeaseGranted",
        "Put: LeaseFull",
        "Fenced: Written",
        "Fenced: LockLost",
        "Fenced: TxnDone",
        "Txn: TxnFailed LeaseFull",
        "Txn: TxnFailed LeaseNotFound",
        "Once: IdempotencyMismatch",
        "Once: LockQueued",
        "Once: Replayed LockHeld",
        "Once: Replayed LeaseGranted",
        "Once: Replayed TxnDone",
        "Once: Replayed LockLost",
    ):
        assert seen[kind] >= 5, f"{kind} is too seldom to be tested"


@pytest.mark.parametrize("seed", range(20))
def test_rule_23_lives_leave_the_same_tables_and_hashes_however_they_are_sliced(seed: int) -> None:
    life = Life(1000 + seed)
    entries = entries_of(life.log())
    with open_engine("lmdb") as lmdb:
        one, two = Store(MemoryEngine()), Store(lmdb)
        at_once = one.apply(entries)
        sizes = [1 + life.below(4) for _ in range(20)]
        assert [a for slice_ in slices_of(entries, sizes) for a in two.apply(slice_)] == at_once
        assert state_of(one) == state_of(two)
