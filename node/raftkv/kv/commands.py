"""What a client may ask of the state machine, and what it answers: values with one encoding.

A command is encoded once, by the node that received the request; the same bytes go to the
leader, the write-ahead log, the peers and apply (node design, rule 27). Apply depends on nothing
but these bytes and the state, so every limit that apply must enforce is inside the command
(rule 19).

An entry's data is a *batch*: the commands that one turn of the leader's loop gathered, in order.
Each keeps its own outcome and its own revision; the batch only amortises the cost of an entry.
"""

from collections.abc import Sequence
from typing import Annotated, Final

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
    """Store ``value`` under ``key``."""

    key: Key
    value: bytes
    condition: Condition | None = None


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


KeyCommand = Put | Delete | Append | Increment
Command = KeyCommand | ReturnPrevious | DeleteRange


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


Outcome = (
    Written
    | Deleted
    | ConditionFailed
    | TooLarge
    | Returned
    | Incremented
    | NotACounter
    | CounterOverflow
    | TooManyKeys
)


_ENCODER: Final = msgspec.msgpack.Encoder()
_COMMAND_DECODER: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command)
_BATCH_DECODER: Final[msgspec.msgpack.Decoder[tuple[Command, ...]]] = msgspec.msgpack.Decoder(
    tuple[Command, ...]
)
_OUTCOME_DECODER: Final[msgspec.msgpack.Decoder[Outcome]] = msgspec.msgpack.Decoder(Outcome)


def encode_command(command: Command) -> bytes:
    """The bytes of one command, as they go into a batch and to the leader."""
    return _ENCODER.encode(command)


def decode_command(data: bytes) -> Command:
    """Inverse of `encode_command`. Raises ``msgspec.DecodeError`` on anything else."""
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
    """Inverse of `join_batch`. Raises ``msgspec.DecodeError`` on anything else."""
    return _BATCH_DECODER.decode(data)


def encode_outcome(outcome: Outcome) -> bytes:
    """The bytes of an outcome, for the peer that forwarded the command."""
    return _ENCODER.encode(outcome)


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """The bytes of an entry's outcomes, for the chain hash (rule 23)."""
    return _ENCODER.encode(outcomes)


def decode_outcome(data: bytes) -> Outcome:
    """Inverse of `encode_outcome`. Raises ``msgspec.DecodeError`` on anything else."""
    return _OUTCOME_DECODER.decode(data)
