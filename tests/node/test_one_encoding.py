"""A client's command is encoded once, and then only carried (node design, rule 27)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from raftkv.kv import commands
from raftkv.kv.commands import Command, Put, encode_command
from raftkv.kv.outcomes import Written
from raftkv.kv.store import AppliedEntry, Store
from raftkv.node.events import Effect, Send, SubmitDisk, WriteRequest
from raftkv.node.messages import ForwardWrites
from raftkv.raft import Append, Entry
from raftkv.storage.disk import Pwrite
from tests.simulation.cluster import Machine
from tests.simulation.scenarios import STEP_SECONDS_MAX, Script

COMMAND = Put(b"the key", b"the value")


@dataclass
class Encoder:
    """Stands in for the encoder of all commands, and remembers what it was given."""

    inner: Any
    encoded: list[Command] = field(default_factory=list)

    def encode(self, command: Command) -> bytes:
        self.encoded.append(command)
        data: bytes = self.inner.encode(command)
        return data


@dataclass
class Trail:
    """Where the bytes of the command were seen, each time as what carried them."""

    marker: bytes
    forwarded: list[bytes] = field(default_factory=list)
    sent: list[Entry] = field(default_factory=list)
    written: dict[str, list[bytes]] = field(default_factory=dict)
    applied: list[Entry] = field(default_factory=list)

    def watch(self, machine: Machine, effects: list[Effect]) -> None:
        """A turn of a node."""
        for effect in effects:
            if isinstance(effect, SubmitDisk):
                chunks = [c for op in effect.ops if isinstance(op, Pwrite) for c in op.chunks]
                found = [chunk for chunk in chunks if self.marker in chunk]
                self.written.setdefault(machine.name, []).extend(found)
            elif isinstance(effect, Send):
                for message in effect.frame.messages:
                    if isinstance(message, ForwardWrites):
                        self.forwarded += [command for _, command in message.writes]
                    elif isinstance(message, Append):
                        self.sent += [e for e in message.entries if self.marker in e.data]


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    stand_in = Encoder(commands._ENCODER)
    monkeypatch.setattr(commands, "_ENCODER", stand_in)
    return stand_in


def test_rule_27_a_command_keeps_its_bytes_from_the_client_to_every_log_and_store(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(seed=1, size=3)
    leader = script.elected(script.voters)
    follower = next(machine for machine in script.voters if machine is not leader)
    trail = Trail(COMMAND.value)
    apply = Store.apply

    def watched_apply(store: Store, entries: Sequence[Entry]) -> list[AppliedEntry]:
        trail.applied += [entry for entry in entries if COMMAND.value in entry.data]
        return apply(store, entries)

    monkeypatch.setattr(Store, "apply", watched_apply)
    # In the place of the checkers, whose model of the store encodes commands for itself.
    script.cluster.on_turn = trail.watch
    encoder.encoded.clear()
    command = encode_command(COMMAND)
    deadline = script.world.now + STEP_SECONDS_MAX
    answer = script.answer(follower, lambda rid, _: WriteRequest(rid, command, deadline))
    assert isinstance(answer, Written)
    script.until(lambda: len(trail.applied) == 3, "all to apply it")

    # The follower hands on the very bytes that it was given, and the leader makes one entry of
    # them, which is the same object on its way to both peers and into its own store.
    assert [each is command for each in trail.forwarded] == [True]
    first, *others = trail.sent
    assert {entry.index for entry in trail.sent} == {first.index}
    assert first.data.endswith(command)
    assert others
    assert all(entry.data is first.data for entry in others)
    assert any(entry.data is first.data for entry in trail.applied)
    # Each of the three logs and stores holds these bytes, once.
    for machine in script.voters:
        (chunk,) = trail.written[machine.name]
        assert chunk.count(first.data) == 1
    assert [entry.data for entry in trail.applied] == [first.data] * 3
    # And nobody has encoded the command but its client.
    assert encoder.encoded.count(COMMAND) == 1
