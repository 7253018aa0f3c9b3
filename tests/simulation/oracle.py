"""The applied list, and what it means: a dumb model is given every committed command, once.

The checkers hand over each entry as soon as any node knows it to be committed. So the model says,
apart from the nodes' code, what each command was answered, what the store held at each revision,
and what watchers were to be told. Clients note what they asked and were told, and `check` compares:

- an answer is the model's to the same bytes; of a request that was refused for good, or that was
  sent once and never again, the list holds none, or one
- a read shows exactly what there was at the revision that it names
- real time: an answer's revision is not below one that some client knew before it asked
- the store of a node is the model's, key for key (I5, I8, I12)
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import msgspec

from raftkv.kv.changes import Change
from raftkv.kv.commands import Sweep, decode_batch, encode_command
from raftkv.kv.engine import Table
from raftkv.kv.outcomes import Item, Outcome, Returned
from raftkv.kv.ranges import Page, Range
from raftkv.kv.store import Store
from raftkv.node.events import Answer, Get, ReadResult
from raftkv.node.messages import Failure, FailureCode
from raftkv.raft.messages import Entry, EntryType, Index
from tests.kv.model import Model


class Oracle:
    """The model, and what clients were told."""

    def __init__(self) -> None:
        self.model = Model()
        self.applied_index: Index = 0
        self.acknowledged = 0  # the greatest revision that some client was told
        self.reached: Counter[str] = Counter()
        self._outcomes: defaultdict[bytes, list[Outcome]] = defaultdict(list)
        self._answers: list[tuple[bytes, Outcome]] = []
        self._single: dict[bytes, bool] = {}  # sent once; True: and was refused for good
        self._reads: list[tuple[Get | Range, ReadResult | Page]] = []

    def feed(self, entry: Entry) -> None:
        """The next committed entry."""
        assert entry.index == self.applied_index + 1
        self.applied_index = entry.index
        if entry.type is not EntryType.NORMAL:
            return
        for command in decode_batch(entry.data):
            once_count = len(self.model.once)
            outcome = self.model.execute(command)
            self._outcomes[encode_command(command)].append(outcome)
            if isinstance(command, Sweep) and len(self.model.once) < once_count:
                self.reached["idempotency record expired"] += 1

    # ---- what clients did -------------------------------------------------------------------

    def sent_once(self, command: bytes) -> None:
        """These bytes go to a node once, and to no other."""
        assert command not in self._single, "no other request has the same bytes"
        self._single[command] = False

    def write_answered(self, command: bytes, least: int, answer: Answer) -> None:
        """What a client was told of a write; ``least``: `acknowledged` when it asked."""
        if isinstance(answer, Failure):
            if answer.code is not FailureCode.UNKNOWN and command in self._single:
                self._single[command] = True
            return
        assert isinstance(answer, Outcome), answer
        self._answers.append((command, answer))
        self._acknowledge(answer, least)

    def read_answered(self, query: Get | Range, least: int, answer: Answer) -> None:
        """The same of a linearizable read."""
        if isinstance(answer, Failure):
            is_early = answer.code is FailureCode.FUTURE_REVISION and query.revision <= least
            assert not is_early, f"I6: revision {least} was known, and is the future: {answer}"
            if answer.code is FailureCode.COMPACTED:
                self.reached["history compacted"] += 1
                assert query.revision < answer.revision, answer
            return
        assert isinstance(answer, ReadResult | Page), answer
        self._reads.append((query, answer))
        if not query.revision:
            self._acknowledge(answer, least)
        else:
            self.reached["read of history"] += 1

    def _acknowledge(self, answer: Outcome | ReadResult | Page, least: int) -> None:
        revision = (answer.outcome if isinstance(answer, Returned) else answer).revision
        assert revision >= least, f"I6: {answer} after revision {least} was known"
        self.acknowledged = max(self.acknowledged, revision)

    # ---- judgement --------------------------------------------------------------------------

    def check(self) -> None:
        """Whether all answers were the model's.

        Raises:
            AssertionError: one was not.
        """
        for command, answer in self._answers:
            assert answer in self._outcomes[command], (
                f"I5: answered {answer}, and the applied list says {self._outcomes[command]}"
            )
        for command, is_refused in self._single.items():
            count = len(self._outcomes.get(command, ()))
            assert count <= 1, f"I8: {command!r} was sent once, and was done {count} times"
            assert not (is_refused and count), f"I6: {command!r} was refused, and was done"
        for query, found in self._reads:
            self._check_read(query, found)

    def _check_read(self, query: Get | Range, answer: ReadResult | Page) -> None:
        revision = query.revision or answer.revision
        assert revision <= self.model.revision, f"I7: {answer} shows what was never committed"
        state = self.model.states[revision]
        if isinstance(query, Get):
            assert isinstance(answer, ReadResult)
            known = state.get(query.key)
            assert answer.item == known, f"I6: read {answer}, and there was {known}"
            return
        assert isinstance(answer, Page)
        end = query.end
        keys = sorted(key for key in state if query.start <= key and (end is None or key < end))
        if query.is_descending:
            keys.reverse()
        if query.count_only:
            assert (answer.count, answer.resume) == (len(keys), None), f"I6: {answer}: {keys}"
            return
        items = tuple(state[key] for key in keys[: query.limit])
        assert answer.items == items, f"I6: a range shows {answer.items}, and there was {items}"
        assert (answer.resume is None) is (len(keys) <= query.limit), answer

    def check_store(self, store: Store) -> None:
        """Whether a node's store, that has applied as much, holds what the model does."""
        assert store.applied_index == self.applied_index
        assert store.revision == self.model.revision, "I12: another revision than the model's"
        assert store.log_time_ms == self.model.log_time_ms
        with store.engine.read() as reader:
            keys = [key for key, _ in reader.scan(Table.CUR, b"", None)]
        assert keys == sorted(self.model.items), "I12: other keys than the model's"
        for key in keys:
            found, known = store.get(key), self.model.items[key]
            assert found == known, f"I12: {found}, and the model has {known}"

    def check_told(
        self, told: Iterable[Change], start: int, end: int, first: bytes, last: bytes | None
    ) -> None:
        """Whether these were the changes of a range of keys after ``start`` up to ``end`` (I11).

        Ordered, unique, reliable and atomic; of what changed within one revision the last counts.
        """
        by_revision: dict[int, dict[bytes, Change]] = {}
        before = start
        for change in told:
            assert before <= change.revision <= end, f"I11: told {change} after {before}"
            before = change.revision
            by_revision.setdefault(change.revision, {})[change.key] = change
        for revision in range(start + 1, end + 1):
            old, new = self.model.states[revision - 1], self.model.states[revision]
            expected = {
                key: new.get(key)
                for key in old.keys() | new.keys()
                if old.get(key) is not new.get(key)
                and first <= key
                and (last is None or key < last)
            }
            found: dict[bytes, Item | None] = {}
            for key, change in by_revision.pop(revision, {}).items():
                found[key] = change.item
                assert change.previous == old.get(key), f"I11: {change} was {old.get(key)} before"
            assert found == expected, f"I11: at {revision} told {found}, and it was {expected}"
        assert not by_revision


def describe(command: bytes) -> str:
    """A command for a person."""
    return str(msgspec.msgpack.decode(command))
