"""What a client may ask of the state machine, and what it answers: values with one encoding.

A command is encoded once, by the node that received the request; the same bytes go to the
leader, the write-ahead log, the peers and apply (node design, rule 27). Apply depends on nothing
but these bytes and the state, so every limit that apply must enforce is inside the command
(rule 19).

An entry's data is a *batch*: the commands that one turn of the leader's loop gathered, in order.
Each keeps its own outcome and its own revision; the batch only amortises the cost of an entry.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Final, get_args

import msgspec

# Decoding checks it, so that no entry holds a key that an engine could not store.
Key = Annotated[bytes, msgspec.Meta(min_length=1, max_length=511)]


Bound = Annotated[bytes, msgspec.Meta(max_length=511)]  # of a range: no engine seeks farther


class Condition(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A precondition on the addressed key, from If-Match and If-None-Match.

    Exactly one of the forms is set: ``revisions`` (the key's mod revision is one of these),
    ``exists`` True (If-Match: *) or ``exists`` False (If-None-Match: *).
    """

    revisions: tuple[int, ...] | None = None
    exists: bool | None = None


class Put(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Store ``value`` under ``key``; a lease it was attached to before lets it go.

    At most one of ``lease`` and ``ttl_ms`` is not 0: attach the key to that lease, or to a new
    one of its own, which ends with the key.
    """

    key: Key
    value: bytes
    condition: Condition | None = None
    lease: int = 0
    ttl_ms: Annotated[int, msgspec.Meta(ge=0)] = 0


class Delete(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Remove ``key``; removing a missing key is no error and takes no revision."""

    key: Key
    condition: Condition | None = None


class Append(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Append ``suffix`` to the value of ``key``, creating it; `TooLarge` beyond the limit."""

    key: Key
    suffix: bytes
    value_bytes_max: int
    condition: Condition | None = None


class Increment(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """Add ``by`` to the decimal number under ``key``, which is 0 if it is absent."""

    key: Key
    by: int
    condition: Condition | None = None


class ReturnPrevious(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Do ``command``; answered by `Returned` with the item as it was before, if it is done."""

    command: Put | Delete | Append | Increment


class DeleteRange(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """Remove the keys with ``start`` <= key < ``end`` (None: no end), all or none.

    They share one revision. `TooManyKeys` if there are more than ``keys_max``, which is at most
    65,535: their records are told apart by a sub-revision of two bytes.
    """

    start: Bound
    end: Bound | None
    keys_max: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class Target(IntEnum):
    """What of a key a `Compare` looks at; all numbers are 0 for a key that does not exist."""

    VALUE = 0  # bytes; a missing key has none, so that only "!=" holds
    VERSION = 1
    CREATE_REVISION = 2
    MOD_REVISION = 3
    LEASE = 4


class Comparison(IntEnum):
    """How a `Compare` compares what is there with what it holds."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    GREATER = 3


class Compare(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One condition of a `Txn`: present ``target`` of ``key``, ``comparison``, ``value``."""

    key: Key
    target: Target
    comparison: Comparison
    value: bytes | int  # bytes exactly for Target.VALUE


class ReadKey(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """In a `Txn` only: the item under ``key``, as the operations before left it. `Got`."""

    key: Key


TxnOp = Put | Delete | Append | Increment | DeleteRange | ReadKey


class Txn(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """If all ``compares`` hold do ``success``, else ``failure``, in order: all or nothing.

    All changes share one revision, and an operation sees those before it. If one cannot be done,
    nothing changes and the answer is `TxnFailed`. At most ``keys_max`` keys may be changed
    (`TooManyKeys`), and `ReadKey` may gather at most ``result_bytes_max`` (`TooLarge`).
    """

    compares: tuple[Compare, ...]
    success: tuple[TxnOp, ...]
    failure: tuple[TxnOp, ...]
    keys_max: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    result_bytes_max: int


class GrantLease(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """Make a lease that ends ``ttl_ms`` of log time after its grant or last keepalive.

    At most ``keys_max`` keys may be attached to it, so that its end is one bounded command.
    """

    ttl_ms: Annotated[int, msgspec.Meta(ge=1)]
    keys_max: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class KeepLeaseAlive(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=13):
    """Let the lease live for its whole ttl again. Takes no revision."""

    lease: int


class RevokeLease(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=14):
    """End the lease: its keys are deleted, its lock goes to the next waiter.

    With ``prefix``, only if all its keys begin with that (`LeaseForbidden`).
    """

    lease: int
    prefix: bytes = b""


class AcquireLock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=15):
    """Take the lock ``name`` for ``owner``, or queue for it if ``wait_ms`` is not 0.

    The same owner gets the lock, or its place in the queue, that it has already; the ticket for the
    place is a new one each time, and only the newest is any good. Nobody waits
    for longer than ``wait_ms`` of log time; at most ``waiters_max`` do at once (`LockBusy`).
    """

    name: Key
    owner: Annotated[bytes, msgspec.Meta(min_length=1, max_length=255)]
    ttl_ms: Annotated[int, msgspec.Meta(ge=1)]
    wait_ms: Annotated[int, msgspec.Meta(ge=0)]
    waiters_max: int


class KeepLockAlive(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=16):
    """As `KeepLeaseAlive`, by the fencing token."""

    name: Key
    token: int


class ReleaseLock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=17):
    """Give the lock to the next waiter, or nobody."""

    name: Key
    token: int


class LeaveLock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=18):
    """The waiter with ``ticket`` waits no longer; nothing if its owner asked again since.

    Who was granted the lock at once has its token for a ticket.

    If it got the lock meanwhile it keeps it (`LockHeld`), or gives it up if ``releases``.
    """

    name: Key
    ticket: int
    releases: bool


KeyCommand = Put | Delete | Append | Increment
#: What a fence may stand before.
Fenceable = (
    KeyCommand | ReturnPrevious | DeleteRange | Txn | GrantLease | KeepLeaseAlive | RevokeLease
)
#: What is about a lock itself, and may be asked for once.
LockCommand = AcquireLock | KeepLockAlive | ReleaseLock


class Fenced(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=19):
    """Do ``command`` if the lock ``name`` is still held under ``token``, else `LockLost`."""

    name: Key
    token: int
    command: Fenceable


class Compact(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=20):
    """Forget the history before ``revision``; it is gone at once, its room bit by bit."""

    revision: int


class Sweep(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=21):
    """By the leader: free the room of at most ``records_max`` compacted or expired records."""

    records_max: int


class Expire(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=22):
    """By the leader: end the lease if its time is over by log time, else nothing (rule 21)."""

    lease: int


class Stamp(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=23):
    """By the leader, first in a batch: log time advances by ``elapsed_ms`` (rule 21)."""

    elapsed_ms: Annotated[int, msgspec.Meta(ge=0)]


class Once(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=24):
    """Do ``command`` unless the idempotency ``key`` was used in the last ``keep_ms`` (rule 22).

    Used with the same ``fingerprint`` of the request: `Replayed` with what came of it then, less
    any values. Used with another: `IdempotencyMismatch`. Nothing changes in either case.
    """

    key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=128)]
    fingerprint: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    keep_ms: int
    command: Fenceable | LockCommand | Fenced


#: What clients may ask for, bare or inside `Fenced` and `Once`.
ClientCommand = Fenceable | LockCommand | LeaveLock | Fenced | Once | Compact
#: What only the leader adds to the log.
LeaderCommand = Sweep | Expire | Stamp
Command = ClientCommand | LeaderCommand


_ENCODER: Final = msgspec.msgpack.Encoder()
_COMMAND_DECODER: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command)
_BATCH_DECODER: Final[msgspec.msgpack.Decoder[tuple[Command, ...]]] = msgspec.msgpack.Decoder(
    tuple[Command, ...]
)


def encode_command(command: Command) -> bytes:
    """The bytes of one command, as they go into a batch and to the leader."""
    return _ENCODER.encode(command)


def decode_command(data: bytes) -> Command:
    """Inverse of `encode_command`. Raises ``ValueError`` on anything else."""
    return _COMMAND_DECODER.decode(data)


def join_batch(commands: Sequence[bytes]) -> bytes:
    """An entry's data from encoded commands, without encoding any of them again."""
    count = len(commands)
    if count < 16:
        header = bytes((0x90 | count,))  # msgpack fixarray
    elif count < 1 << 16:
        header = b"\xdc" + count.to_bytes(2, "big")  # msgpack array 16
    else:
        raise ValueError(f"a batch holds at most 65535 commands, not {count}")
    return header + b"".join(commands)


def count_commands(data: bytes) -> int:
    """How many commands a batch made by `join_batch` holds, without decoding any."""
    if data[0] == 0xDC:
        return int.from_bytes(data[1:3], "big")
    return data[0] & 0x0F


def decode_batch(data: bytes) -> tuple[Command, ...]:
    """Inverse of `join_batch`. Raises ``ValueError`` on anything else."""
    return _BATCH_DECODER.decode(data)


#: What a batch may hold of `effort_of` its commands, unless it is a single one.
EFFORT_MAX: Final = 256
# By a command's tag. One that may touch thousands of keys stands alone; one that may read or write
# a whole value for a few bytes counts as some that do not.
_ALONE: Final = EFFORT_MAX + 1
_LARGE: Final = 16


def _tag(kind: type[msgspec.Struct]) -> int:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def _tag_of(command: bytes) -> int:
    return command[1]  # behind the head of a short array


def is_once(command: bytes) -> bool:
    """Whether an encoded command is a `Once`, without decoding it."""
    return _tag_of(command) == _ONCE_TAG


_ONCE_TAG: Final = _tag(Once)
_EFFORTS: Final = {
    **{_tag(kind): 1 for kind in get_args(Command)},
    **{_tag(kind): _LARGE for kind in (Append, ReturnPrevious)},
    **{_tag(kind): _ALONE for kind in (DeleteRange, Txn, RevokeLease)},
}
_WRAPPERS: Final = (_tag(Fenced), _ONCE_TAG)


def effort_of(command: bytes) -> int:
    """How much of the loop's time an encoded command may take, where 1 is a write of one key.

    What is gathered into one entry is applied at once (rule 26), so it is bounded by effort.
    """
    tag = _tag_of(command)
    if tag in _WRAPPERS:
        decoded = decode_command(command)
        while isinstance(decoded, Fenced | Once):
            decoded = decoded.command
        tag = _tag(type(decoded))
    return _EFFORTS.get(tag, _ALONE)
