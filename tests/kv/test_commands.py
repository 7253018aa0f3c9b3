"""Commands and outcomes keep their bytes, and nothing else is taken for one of them."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.kv.commands import (
    EFFORT_MAX,
    Append,
    Command,
    Condition,
    Delete,
    DeleteRange,
    Fenced,
    Increment,
    Once,
    Put,
    ReturnPrevious,
    Txn,
    decode_batch,
    decode_command,
    effort_of,
    encode_command,
    join_batch,
)
from raftkv.kv.outcomes import (
    ConditionFailed,
    CounterOverflow,
    Deleted,
    Incremented,
    Item,
    NotACounter,
    Outcome,
    Returned,
    TooLarge,
    TooManyKeys,
    Written,
    decode_outcome,
    encode_outcome,
)
from tests.kv.support import DETERMINISTIC

u64 = st.integers(0, 2**64 - 1)
keys = st.binary(min_size=1, max_size=511)
any_condition = st.none() | st.builds(
    Condition,
    revisions=st.none() | st.lists(u64).map(tuple),
    exists=st.none() | st.booleans(),
)
any_key_command = st.one_of(
    st.builds(Put, keys, st.binary(), any_condition),
    st.builds(Delete, keys, any_condition),
    st.builds(Append, keys, st.binary(), u64, any_condition),
    st.builds(Increment, keys, st.integers(-(2**63), 2**63 - 1), any_condition),
)
bounds = st.binary(max_size=511)
i64 = st.integers(-(2**63), 2**63 - 1)
any_command = st.one_of(
    any_key_command,
    st.builds(ReturnPrevious, any_key_command),
    st.builds(DeleteRange, bounds, st.none() | bounds, st.integers(0, 65535)),
)
any_item = st.builds(Item, keys, st.binary(), u64, u64, u64, u64)
any_done = st.one_of(st.builds(Written, u64, u64), st.builds(Deleted, u64, u64))
any_outcome = st.one_of(
    any_done,
    st.builds(Incremented, u64, u64, i64),
    st.builds(NotACounter, u64),
    st.builds(CounterOverflow, u64, i64),
    st.builds(TooManyKeys, u64),
    st.builds(Returned, any_done, st.none() | any_item),
    st.builds(ConditionFailed, u64, u64),
    st.builds(TooLarge, u64, u64),
)


@DETERMINISTIC
@given(any_command)
def test_a_command_survives_its_encoding(command: Command) -> None:
    assert decode_command(encode_command(command)) == command


@DETERMINISTIC
@given(any_outcome)
def test_an_outcome_survives_its_encoding(outcome: Outcome) -> None:
    assert decode_outcome(encode_outcome(outcome)) == outcome


@DETERMINISTIC
@given(st.lists(any_command, max_size=20))
def test_rule_27_a_batch_is_its_commands_joined(commands: list[Command]) -> None:
    encoded = [encode_command(command) for command in commands]
    data = join_batch(encoded)
    assert decode_batch(data) == tuple(commands)
    assert data.endswith(b"".join(encoded))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 65535])
def test_a_batch_of_every_header_size(count: int) -> None:
    command = Put(b"k", b"v")
    data = join_batch([encode_command(command)] * count)
    assert data == msgspec.msgpack.encode([command] * count)
    assert decode_batch(data) == (command,) * count


def test_a_batch_beyond_65535_commands_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 65535"):
        join_batch([b"\xc0"] * 65536)


@DETERMINISTIC
@given(st.binary(max_size=64))
def test_garbage_raises_decode_errors_only(garbage: bytes) -> None:
    for decode in (decode_command, decode_batch, decode_outcome):
        with suppress(msgspec.DecodeError):
            decode(garbage)


@DETERMINISTIC
@given(any_command, st.data())
def test_a_truncated_or_changed_command_never_raises_anything_else(
    command: Command, data: st.DataObject
) -> None:
    encoded = bytearray(encode_command(command))
    with pytest.raises(msgspec.DecodeError):
        decode_command(bytes(encoded[: data.draw(st.integers(0, len(encoded) - 1))]))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(msgspec.DecodeError):
        decode_command(bytes(encoded))


@pytest.mark.parametrize("key", [b"", b"k" * 512])
@pytest.mark.parametrize("make", [lambda k: Put(k, b""), Delete, lambda k: Append(k, b"", 1)])
def test_a_key_that_no_engine_could_store_does_not_decode(key: bytes, make: type[Delete]) -> None:
    with pytest.raises(msgspec.ValidationError, match="length"):
        decode_command(encode_command(make(key)))


@pytest.mark.parametrize(
    ("command", "encoded"),
    [
        (Put(b"k", b"v"), "9601c4016bc40176c00000"),
        (Delete(b"k", Condition(exists=True)), "9302c4016b92c0c3"),
        (Append(b"k", b"v", 9), "9503c4016bc4017609c0"),
        (ReturnPrevious(Delete(b"k")), "92049302c4016bc0"),
        (DeleteRange(b"", None, 10_000), "9405c400c0cd2710"),
        (Increment(b"k", -1), "9406c4016bffc0"),
    ],
)
def test_rule_27_the_bytes_of_a_command_stay_as_they_are(command: Command, encoded: str) -> None:
    """They are in logs: a command changes by getting another tag, never another layout."""
    assert encode_command(command).hex() == encoded
    assert decode_command(bytes.fromhex(encoded)) == command


@pytest.mark.parametrize(
    ("outcome", "encoded"),
    [
        (Written(7, 2), "93010702"),
        (Deleted(7, 1), "93020701"),
        (ConditionFailed(7, 5), "93030705"),
        (TooLarge(7, 9), "93040709"),
        (Incremented(7, 2, -1), "94060702ff"),
        (NotACounter(7), "920707"),
        (CounterOverflow(7, 5), "93080705"),
        (TooManyKeys(7), "920907"),
        (Returned(Written(7, 2), None), "930593010702c0"),
    ],
)
def test_the_bytes_of_an_outcome_stay_as_they_are(outcome: Outcome, encoded: str) -> None:
    """They are in the chain hash, and go between nodes of two versions."""
    assert encode_outcome(outcome).hex() == encoded
    assert decode_outcome(bytes.fromhex(encoded)) == outcome


@pytest.mark.parametrize(
    ("command", "effort"),
    [
        (Put(b"k", b"v"), 1),
        (Delete(b"k"), 1),
        (Append(b"k", b"v", 9), 16),
        (ReturnPrevious(Delete(b"k")), 16),
        (DeleteRange(b"", None, 10_000), EFFORT_MAX + 1),
        (Fenced(b"l", 1, Put(b"k", b"v")), 1),
        (Fenced(b"l", 1, DeleteRange(b"", None, 9)), EFFORT_MAX + 1),
        (Once(b"i", bytes(16), 9, Put(b"k", b"v")), 1),
        (Once(b"i", bytes(16), 9, Fenced(b"l", 1, Append(b"k", b"v", 9))), 16),
        (Once(b"i", bytes(16), 9, Txn((), (), (), 9, 9)), EFFORT_MAX + 1),
    ],
)
def test_rule_26_effort_is_that_of_what_is_done(command: Command, effort: int) -> None:
    assert effort_of(encode_command(command)) == effort
