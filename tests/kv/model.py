"""The state machine as one would write it without any thought of speed: the reference."""

from copy import deepcopy
from dataclasses import dataclass, field

import msgspec

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
    KeyCommand,
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
    TxnOp,
)
from raftkv.kv.outcomes import (
    Compacted,
    ConditionFailed,
    CounterOverflow,
    Deleted,
    Got,
    IdempotencyMismatch,
    Incremented,
    Item,
    LeaseForbidden,
    LeaseFull,
    LeaseGranted,
    LeaseNotFound,
    LeaseRevoked,
    LockBusy,
    LockGrant,
    LockHeld,
    LockLost,
    LockQueued,
    LockReleased,
    NotACounter,
    NotYetReached,
    Outcome,
    PlainOutcome,
    Replayed,
    Returned,
    Swept,
    TooLarge,
    TooManyKeys,
    TxnDone,
    TxnFailed,
    Written,
)


@dataclass
class ModelLease:
    ttl_ms: int
    ends_at_ms: int
    keys_max: int
    is_private: bool = False
    lock: bytes = b""


@dataclass
class ModelWaiter:
    ticket: int
    owner: bytes
    ttl_ms: int
    until_ms: int


@dataclass
class ModelLock:
    token: int
    owner: bytes
    ttl_ms: int
    ticket: int = 0
    waiters: list[ModelWaiter] = field(default_factory=list)


@dataclass
class ModelOnce:
    fingerprint: bytes
    ends_at_ms: int
    outcome: PlainOutcome


class Model:
    """A dictionary per revision, and what there is beside the keys now."""

    def __init__(self) -> None:
        # The whole content after each revision; 0 is the empty store.
        self.states: list[dict[bytes, Item]] = [{}]
        self.compacted_revision = 0
        self.log_time_ms = 0
        self.leases: dict[int, ModelLease] = {}
        self.locks: dict[bytes, ModelLock] = {}
        self.once: dict[bytes, ModelOnce] = {}
        self.grants: list[LockGrant] = []
        self._has_changed = False
        self._leases_made = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def items(self) -> dict[bytes, Item]:
        return self.states[-1]

    def execute(self, command: Command) -> Outcome:
        self._has_changed = False
        self._leases_made = 0
        if not isinstance(command, Once):
            return self._do(command)
        known = self.once.get(command.key)
        if known is not None:
            if known.fingerprint != command.fingerprint:
                return IdempotencyMismatch(self.revision)
            return Replayed(self.revision, known.outcome)
        outcome = self._do(command.command)
        if not isinstance(outcome, LockQueued):
            ends_at_ms = self.log_time_ms + command.keep_ms
            self.once[command.key] = ModelOnce(
                command.fingerprint, ends_at_ms, self._without_values(outcome)
            )
        return outcome

    @staticmethod
    def _without_values(outcome: PlainOutcome) -> PlainOutcome:
        if isinstance(outcome, Returned):
            return outcome.outcome
        if isinstance(outcome, TxnDone):
            results = (Got(None) if isinstance(r, Got) else r for r in outcome.results)
            return TxnDone(outcome.revision, outcome.succeeded, tuple(results))
        return outcome

    def _change(self) -> int:
        """Begin the revision of the present command, if it has not."""
        if not self._has_changed:
            self.states.append(dict(self.items))
            self._has_changed = True
        return self.revision

    def _do(self, command: Command) -> PlainOutcome:
        match command:
            case Txn():
                return self._transact(command)
            case Fenced():
                is_held = self._is_held(command.name, command.token)
                return self._do(command.command) if is_held else LockLost(self.revision)
            case ReturnPrevious():
                return self._return_previous(command)
            case DeleteRange():
                return self._delete_range(command, command.keys_max)
            case Compact() | Stamp() | Sweep():
                return self._keep_house(command)
            case GrantLease() | KeepLeaseAlive() | RevokeLease() | Expire():
                return self._lease_command(command)
            case AcquireLock() | KeepLockAlive() | ReleaseLock() | LeaveLock():
                return self._lock_command(command)
            case Put() | Delete() | Append() | Increment():
                return self._write(command)
            case Once():
                raise AssertionError

    def _keep_house(self, command: Compact | Stamp | Sweep) -> PlainOutcome:
        """A sweep counts idempotency records: of the history there is nothing to sweep."""
        if isinstance(command, Compact):
            if command.revision > self.revision:
                return NotYetReached(self.revision)
            self.compacted_revision = max(self.compacted_revision, command.revision)
            return Compacted(self.revision, self.compacted_revision)
        if isinstance(command, Stamp):
            self.log_time_ms += command.elapsed_ms
            return Swept(self.revision, 0)
        over = [(o.ends_at_ms, key) for key, o in self.once.items()]
        over = sorted(pair for pair in over if pair[0] <= self.log_time_ms)
        over = over[: max(command.records_max, 0)]
        for _, key in over:
            del self.once[key]
        return Swept(self.revision, len(over))

    # ---- keys -------------------------------------------------------------------------------

    def _return_previous(self, wanted: ReturnPrevious) -> PlainOutcome:
        previous = self.items.get(wanted.command.key)
        outcome = self._write(wanted.command)
        if isinstance(outcome, Written | Deleted | Incremented):
            return Returned(outcome, previous)
        return outcome

    def _write(
        self, command: KeyCommand
    ) -> (
        Written
        | Deleted
        | Incremented
        | ConditionFailed
        | TooLarge
        | NotACounter
        | CounterOverflow
        | LeaseNotFound
        | LeaseFull
    ):
        old = self.items.get(command.key)
        mod_revision = old.mod_revision if old else 0
        if not self._is_met(command.condition, mod_revision):
            return ConditionFailed(self.revision, mod_revision)
        match command:
            case Delete():
                if old is None:
                    return Deleted(self.revision, 0)
                self._remove([command.key])
                return Deleted(self.revision, 1)
            case Increment():
                return self._increment(command, old)
            case Append():
                value = (old.value if old else b"") + command.suffix
                if len(value) > command.value_bytes_max:
                    return TooLarge(self.revision, len(value))
                return self._store(command.key, value, old, old.lease if old else 0)
            case Put():
                return self._put(command, old)

    def _put(self, command: Put, old: Item | None) -> Written | LeaseNotFound | LeaseFull:
        lease = command.lease
        if lease:
            if lease not in self.leases:
                return LeaseNotFound(self.revision)
            keys = self._attached(lease)
            if command.key not in keys and len(keys) >= self.leases[lease].keys_max:
                return LeaseFull(self.revision)
        elif command.ttl_ms:
            lease = self._add_lease(command.ttl_ms, 1, is_private=True)
        return self._store(command.key, command.value, old, lease)

    def _delete_range(self, command: DeleteRange, keys_max: int) -> Deleted | TooManyKeys:
        start, end = command.start, command.end
        keys = [k for k in self.items if start <= k and (end is None or k < end)]
        if len(keys) > keys_max:
            return TooManyKeys(self.revision)
        self._remove(keys)
        return Deleted(self.revision, len(keys))

    def _remove(self, keys: list[bytes]) -> None:
        if keys:
            self._change()
        for key in keys:
            del self.items[key]
        self._end_private_leases()

    def _increment(
        self, command: Increment, old: Item | None
    ) -> Incremented | NotACounter | CounterOverflow:
        text = old.value.decode("latin-1") if old else "0"
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            return NotACounter(self.revision)
        if not -(2**63) <= int(text) < 2**63:
            return NotACounter(self.revision)
        total = int(text) + command.by
        if not -(2**63) <= total < 2**63:
            return CounterOverflow(self.revision, int(text))
        written = self._store(command.key, b"%d" % total, old, old.lease if old else 0)
        return Incremented(written.revision, written.version, total)

    def _store(self, key: bytes, value: bytes, old: Item | None, lease: int) -> Written:
        revision = self._change()
        new = Item(
            key=key,
            value=value,
            create_revision=old.create_revision if old else revision,
            mod_revision=revision,
            version=old.version + 1 if old else 1,
            lease=lease,
        )
        self.items[key] = new
        self._end_private_leases()
        return Written(revision, new.version)

    @staticmethod
    def _is_met(condition: Condition | None, mod_revision: int) -> bool:
        if condition is None:
            return True
        is_as_wished = condition.exists in (None, mod_revision > 0)
        is_listed = condition.revisions is None or (
            mod_revision > 0 and mod_revision in condition.revisions
        )
        return is_as_wished and is_listed

    # ---- transactions -----------------------------------------------------------------------

    def _transact(self, txn: Txn) -> TxnDone | TxnFailed:
        succeeded = all(self._compares(compare) for compare in txn.compares)
        states, leases = list(self.states), deepcopy(self.leases)
        results: list[Written | Deleted | Incremented | Got] = []
        changes = size = 0
        for number, op in enumerate(txn.success if succeeded else txn.failure):
            before = self.items.get(op.key) if not isinstance(op, DeleteRange) else None
            outcome: object = self._op(op, txn.keys_max - changes)
            if isinstance(outcome, Got) and outcome.item:
                size += len(outcome.item.key) + len(outcome.item.value)
            if isinstance(outcome, Got) and size > txn.result_bytes_max:
                outcome = TooLarge(0, size)
            if isinstance(outcome, Deleted):
                changes += outcome.count
            elif isinstance(outcome, Written | Incremented):
                assert before is None or before.version < outcome.version
                changes += 1
            if changes > txn.keys_max and not isinstance(outcome, Got | TooLarge):
                outcome = TooManyKeys(0)
            if not isinstance(outcome, Written | Deleted | Incremented | Got):
                assert isinstance(outcome, msgspec.Struct)
                self.states, self.leases = states, leases
                reason = msgspec.structs.replace(outcome, revision=self.revision)
                if isinstance(reason, ConditionFailed) and not isinstance(op, DeleteRange):
                    item = self.items.get(op.key)
                    mod_revision = item.mod_revision if item else 0
                    reason = ConditionFailed(self.revision, mod_revision)
                return TxnFailed(self.revision, succeeded, number, reason)  # type: ignore[arg-type]
            results.append(outcome)
        return TxnDone(self.revision, succeeded, tuple(results))

    def _op(self, op: TxnOp, keys_left: int) -> object:
        if isinstance(op, ReadKey):
            return Got(self.items.get(op.key))
        if isinstance(op, DeleteRange):
            return self._delete_range(op, min(op.keys_max, keys_left))
        return self._write(op)

    def _compares(self, compare: Compare) -> bool:
        item = self.items.get(compare.key)
        found: bytes | int
        if compare.target is Target.VALUE:
            if item is None:
                return compare.comparison is Comparison.NOT_EQUAL
            found = item.value
        else:
            found = getattr(item, compare.target.name.lower()) if item else 0
        if isinstance(found, int) != isinstance(compare.value, int):
            return False
        sign = (found > compare.value) - (found < compare.value)  # type: ignore[operator]
        return {
            Comparison.EQUAL: sign == 0,
            Comparison.NOT_EQUAL: sign != 0,
            Comparison.LESS: sign < 0,
            Comparison.GREATER: sign > 0,
        }[compare.comparison]

    # ---- leases -----------------------------------------------------------------------------

    def _attached(self, lease: int) -> list[bytes]:
        return [key for key, item in self.items.items() if item.lease == lease]

    def _add_lease(
        self, ttl_ms: int, keys_max: int, *, is_private: bool = False, lock: bytes = b""
    ) -> int:
        lease = self._change() + (self._leases_made << 46)
        self._leases_made += 1
        ends_at_ms = self.log_time_ms + ttl_ms
        self.leases[lease] = ModelLease(ttl_ms, ends_at_ms, keys_max, is_private, lock)
        return lease

    def _end_private_leases(self) -> None:
        for lease, known in list(self.leases.items()):
            if known.is_private and not self._attached(lease):
                del self.leases[lease]

    def _end_lease(self, lease: int) -> LeaseRevoked:
        keys = self._attached(lease)
        self._change()
        ended = self.leases.pop(lease)
        self._remove(keys)
        if ended.lock:
            self._pass_on(ended.lock)
        return LeaseRevoked(self.revision, len(keys))

    def _renew(self, lease: int) -> int:
        known = self.leases[lease]
        known.ends_at_ms = self.log_time_ms + known.ttl_ms
        return known.ttl_ms

    def _lease_command(
        self, command: GrantLease | KeepLeaseAlive | RevokeLease | Expire
    ) -> PlainOutcome:
        if isinstance(command, GrantLease):
            lease = self._add_lease(command.ttl_ms, command.keys_max)
            return LeaseGranted(self.revision, lease, command.ttl_ms)
        lease = command.lease
        known = self.leases.get(lease)
        if isinstance(command, Expire):
            if known is None or known.ends_at_ms > self.log_time_ms:
                return LeaseRevoked(self.revision, 0)
            return self._end_lease(lease)
        if known is None:
            return LeaseNotFound(self.revision)
        if isinstance(command, KeepLeaseAlive):
            return LeaseGranted(self.revision, lease, self._renew(lease))
        names = self._attached(lease) + ([known.lock] if known.lock else [])
        if not all(name.startswith(command.prefix) for name in names):
            return LeaseForbidden(self.revision)
        return self._end_lease(lease)

    # ---- locks ------------------------------------------------------------------------------

    def _lock_command(
        self, command: AcquireLock | KeepLockAlive | ReleaseLock | LeaveLock
    ) -> PlainOutcome:
        lock = self.locks.get(command.name)
        if isinstance(command, AcquireLock):
            return self._acquire(command, lock)
        if isinstance(command, LeaveLock):
            if lock is not None and lock.ticket == command.ticket != 0:
                if not command.releases:
                    return LockHeld(self.revision, lock.token, lock.ttl_ms)
                self._end_lease(lock.token)
            elif lock is not None and command.ticket in [w.ticket for w in lock.waiters]:
                self._change()
                lock.waiters = [w for w in lock.waiters if w.ticket != command.ticket]
            return LockReleased(self.revision)
        if lock is None or lock.token != command.token:
            return LockLost(self.revision)
        if isinstance(command, KeepLockAlive):
            return LockHeld(self.revision, lock.token, self._renew(lock.token))
        self._end_lease(lock.token)
        return LockReleased(self.revision)

    def _is_held(self, name: bytes, token: int) -> bool:
        lock = self.locks.get(name)
        return lock is not None and lock.token == token

    def _acquire(self, command: AcquireLock, lock: ModelLock | None) -> PlainOutcome:
        if lock is None:
            token = self._add_lease(command.ttl_ms, 10_000, lock=command.name)
            self.locks[command.name] = ModelLock(token, command.owner, command.ttl_ms, token)
            return LockHeld(self.revision, token, command.ttl_ms)
        if lock.owner == command.owner:
            lock.ticket = 0
            return LockHeld(self.revision, lock.token, self._renew(lock.token))
        until_ms = self.log_time_ms + command.wait_ms
        waiting = [w for w in lock.waiters if w.until_ms > self.log_time_ms]
        for waiter in waiting:
            if waiter.owner == command.owner:
                waiter.ticket = self._change()
                waiter.until_ms = max(waiter.until_ms, until_ms)
                lock.waiters = waiting
                return LockQueued(self.revision, waiter.ticket)
        if command.wait_ms == 0 or len(waiting) >= command.waiters_max:
            return LockBusy(self.revision, lock.owner)
        ticket = self._change()
        lock.waiters = [*waiting, ModelWaiter(ticket, command.owner, command.ttl_ms, until_ms)]
        return LockQueued(self.revision, ticket)

    def _pass_on(self, name: bytes) -> None:
        lock = self.locks.pop(name)
        waiting = [w for w in lock.waiters if w.until_ms > self.log_time_ms]
        if waiting:
            first = waiting.pop(0)
            token = self._add_lease(first.ttl_ms, 10_000, lock=name)
            ticket = first.ticket
            self.locks[name] = ModelLock(token, first.owner, first.ttl_ms, ticket, waiting)
            self.grants.append(LockGrant(name, ticket, token, first.ttl_ms))
