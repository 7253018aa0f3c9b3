"""The state machine as one would write it without any thought of speed: the reference."""

from raftkv.kv.commands import (
    Append,
    Command,
    Compact,
    Condition,
    Delete,
    DeleteRange,
    Increment,
    KeyCommand,
    Put,
    ReturnPrevious,
    Sweep,
)
from raftkv.kv.outcomes import (
    Compacted,
    ConditionFailed,
    CounterOverflow,
    Deleted,
    Incremented,
    Item,
    NotACounter,
    NotYetReached,
    Outcome,
    Returned,
    Swept,
    TooLarge,
    TooManyKeys,
    Written,
)


class Model:
    """A dictionary per revision."""

    def __init__(self) -> None:
        # The whole content after each revision; 0 is the empty store.
        self.states: list[dict[bytes, Item]] = [{}]
        self.compacted_revision = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def items(self) -> dict[bytes, Item]:
        return self.states[-1]

    def execute(self, command: Command) -> Outcome:
        if isinstance(command, ReturnPrevious):
            previous = self.items.get(command.command.key)
            outcome = self._write(command.command)
            if isinstance(outcome, Written | Deleted | Incremented):
                return Returned(outcome, previous)
            return outcome
        if isinstance(command, DeleteRange):
            start, end = command.start, command.end
            kept = {
                k: v for k, v in self.items.items() if k < start or (end is not None and k >= end)
            }
            removed = len(self.items) - len(kept)
            if removed > command.keys_max:
                return TooManyKeys(self.revision)
            if removed:
                self.states.append(kept)
            return Deleted(self.revision, removed)
        if isinstance(command, Compact):
            if command.revision > self.revision:
                return NotYetReached(self.revision)
            self.compacted_revision = max(self.compacted_revision, command.revision)
            return Compacted(self.revision, self.compacted_revision)
        if isinstance(command, Sweep):
            return Swept(self.revision, 0)  # the model has nothing that could be swept
        assert isinstance(command, KeyCommand)
        return self._write(command)

    def _write(self, command: KeyCommand) -> Outcome:
        old = self.items.get(command.key)
        mod_revision = old.mod_revision if old else 0
        if not self._is_met(command.condition, mod_revision):
            return ConditionFailed(self.revision, mod_revision)
        if isinstance(command, Delete):
            if old is None:
                return Deleted(self.revision, 0)
            self.states.append({k: v for k, v in self.items.items() if k != command.key})
            return Deleted(self.revision, 1)
        if isinstance(command, Increment):
            return self._increment(command, old)
        value = self._new_value(command, old)
        if isinstance(command, Append) and len(value) > command.value_bytes_max:
            return TooLarge(self.revision, len(value))
        return self._store(command.key, value, old)

    def _increment(self, command: Increment, old: Item | None) -> Outcome:
        text = old.value.decode("latin-1") if old else "0"
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            return NotACounter(self.revision)
        if not -(2**63) <= int(text) < 2**63:
            return NotACounter(self.revision)
        total = int(text) + command.by
        if not -(2**63) <= total < 2**63:
            return CounterOverflow(self.revision, int(text))
        written = self._store(command.key, b"%d" % total, old)
        return Incremented(written.revision, written.version, total)

    def _store(self, key: bytes, value: bytes, old: Item | None) -> Written:
        revision = self.revision + 1
        new = Item(
            key=key,
            value=value,
            create_revision=old.create_revision if old else revision,
            mod_revision=revision,
            version=old.version + 1 if old else 1,
        )
        self.states.append({**self.items, key: new})
        return Written(revision, new.version)

    @staticmethod
    def _new_value(command: Put | Append, old: Item | None) -> bytes:
        if isinstance(command, Put):
            return command.value
        return (old.value if old else b"") + command.suffix

    @staticmethod
    def _is_met(condition: Condition | None, mod_revision: int) -> bool:
        if condition is None:
            return True
        is_as_wished = condition.exists in (None, mod_revision > 0)
        is_listed = condition.revisions is None or (
            mod_revision > 0 and mod_revision in condition.revisions
        )
        return is_as_wished and is_listed
