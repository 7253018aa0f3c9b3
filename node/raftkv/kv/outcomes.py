"""What the state machine answers to commands: values with one encoding.

Every answer holds the store's revision after the command. "Nothing changed" means just that: no
revision was taken. The commands are in `raftkv.kv.commands`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec


class Written(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """The key was stored; ``revision`` is the store's and the key's new revision."""

    revision: int
    version: int  # how often the key was written since it was created; 1 when created

    @property
    def created(self) -> bool:
        """Whether the key did not exist before."""
        return self.version == 1


class Deleted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """``count`` keys were removed; ``revision`` is the store's after the command."""

    revision: int
    count: int


class ConditionFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Nothing changed. ``mod_revision`` is the key's present one, 0 if it does not exist."""

    revision: int
    mod_revision: int


class TooLarge(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Nothing changed: the value would have had ``value_bytes``, more than the limit."""

    revision: int
    value_bytes: int


class Incremented(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """The key was stored with the number ``value``; the others as in `Written`."""

    revision: int
    version: int
    value: int


class NotACounter(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """Nothing changed: the value is no decimal number of 64 bits with sign."""

    revision: int


class CounterOverflow(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """Nothing changed: the sum with ``value``, the present number, would not fit into 64 bits."""

    revision: int
    value: int


class TooManyKeys(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """Nothing changed: the range holds more keys than the command may remove."""

    revision: int


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key and all that is known of it."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Returned(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """`ReturnPrevious` was done. ``previous`` is None when the key did not exist."""

    outcome: Written | Deleted | Incremented
    previous: Item | None


class Got(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """What `ReadKey` found; None: no such key, or left out of a replayed answer."""

    item: Item | None


OpOutcome = Written | Deleted | Incremented | Got


class LeaseNotFound(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=13):
    """Nothing changed: there is no such lease, or no more."""

    revision: int


class LeaseFull(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=14):
    """Nothing changed: as many keys as it may have are attached to the lease already."""

    revision: int


class TxnDone(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The branch was done whose outcomes these are; ``succeeded``: the compares held."""

    revision: int
    succeeded: bool
    results: tuple[OpOutcome, ...]


#: Why an operation of a transaction cannot be done, and with it nothing of it.
TxnReason = (
    TooLarge
    | NotACounter
    | CounterOverflow
    | TooManyKeys
    | LeaseNotFound
    | LeaseFull
    | ConditionFailed  # of the operation's own condition
)


class TxnFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """Nothing changed: the operation ``op`` (from 0) of the chosen branch could not be done."""

    revision: int
    succeeded: bool
    op: int
    reason: TxnReason


class LeaseGranted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=15):
    """The lease was made, or its life renewed. Its id is the revision that made it."""

    revision: int
    lease: int
    ttl_ms: int


class LeaseRevoked(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=16):
    """The lease ended with ``count`` keys. Also what became of an `Expire`; 0 if not due."""

    revision: int
    count: int


class LeaseForbidden(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=17):
    """Nothing changed: some key of the lease lies outside the prefix."""

    revision: int


class LockHeld(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=18):
    """The lock is held under the fencing ``token``, which is also the id of its lease."""

    revision: int
    token: int
    ttl_ms: int


class LockQueued(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=19):
    """Another holds the lock; the asker waits in its queue under ``ticket``."""

    revision: int
    ticket: int


class LockBusy(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=20):
    """Nothing changed: another holds the lock, and the asker would or could not wait."""

    revision: int
    owner: bytes


class LockReleased(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=21):
    """The lock was given back, or the queue left."""

    revision: int


class LockLost(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=22):
    """Nothing changed: the lock is not, or no longer, held under that token."""

    revision: int


class Compacted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=23):
    """No history from before ``compacted_revision`` is left to be read."""

    revision: int
    compacted_revision: int


class NotYetReached(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=24):
    """Nothing changed: a compaction to a revision that the store has not reached."""

    revision: int


class Swept(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=25):
    """Of `Sweep` and `Stamp`: ``count`` records were removed."""

    revision: int
    count: int


class IdempotencyMismatch(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=26):
    """Nothing changed: the idempotency key belongs to another request."""

    revision: int


PlainOutcome = (
    Written
    | Deleted
    | ConditionFailed
    | TooLarge
    | Returned
    | Incremented
    | NotACounter
    | CounterOverflow
    | TooManyKeys
    | TxnDone
    | TxnFailed
    | LeaseNotFound
    | LeaseFull
    | LeaseGranted
    | LeaseRevoked
    | LeaseForbidden
    | LockHeld
    | LockQueued
    | LockBusy
    | LockReleased
    | LockLost
    | Compacted
    | NotYetReached
    | Swept
    | IdempotencyMismatch
)


class Replayed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=27):
    """The answer to an earlier request with the same idempotency key; nothing changed now."""

    revision: int
    outcome: PlainOutcome


Outcome = PlainOutcome | Replayed


class LockGrant(msgspec.Struct, frozen=True, gc=False):
    """Not an answer: the waiter with ``ticket`` got the lock by somebody else's command."""

    name: bytes
    ticket: int
    token: int
    ttl_ms: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_OUTCOME_DECODER: Final[msgspec.msgpack.Decoder[Outcome]] = msgspec.msgpack.Decoder(Outcome)


def encode_outcome(outcome: Outcome) -> bytes:
    """The bytes of an outcome, for the peer that forwarded the command."""
    return _ENCODER.encode(outcome)


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """The bytes of an entry's outcomes, for the chain hash (rule 23)."""
    return _ENCODER.encode(outcomes)


def decode_outcome(data: bytes) -> Outcome:
    """Inverse of `encode_outcome`. Raises ``ValueError`` on anything else."""
    return _OUTCOME_DECODER.decode(data)
