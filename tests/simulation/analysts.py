"""Clients that use everything else: transactions, counters, ranges, history, compaction.

Every command has bytes of its own, and every answer goes to the `Oracle`, which knows the right
one. Some commands are sent once and never again, whatever comes of them; the others go under an
idempotency key from node to node until they are answered.
"""

from collections import Counter
from functools import partial
from random import Random

from raftkv.kv.commands import (
    Append,
    ClientCommand,
    Compact,
    Compare,
    Comparison,
    DeleteRange,
    Increment,
    Once,
    Put,
    ReadKey,
    ReturnPrevious,
    Target,
    Txn,
    encode_command,
)
from raftkv.kv.ranges import Range
from raftkv.node.events import Answer, Consistency, Get, ReadRequest, WriteRequest
from raftkv.node.messages import Failure, FailureCode
from tests.simulation.cluster import Cluster, Machine, Process
from tests.simulation.oracle import Oracle

TIMEOUT_SECONDS = 1.0
KEEP_MS = 3_600_000  # longer than any run
KEEP_SHORTLY_MS = 300
KEYS = [b"x/%d" % number for number in range(6)]
VALUE_BYTES_MAX = 1 << 20


class Analysts:
    """All of them."""

    def __init__(self, cluster: Cluster, oracle: Oracle, count: int) -> None:
        self.cluster, self.world = cluster, cluster.world
        self.oracle = oracle
        self.random = Random(cluster.world.seed + 2)  # their own: they draw no weather
        self.is_stopping = False
        self.done_count = 0
        self.reached: Counter[str] = Counter()
        self._count = count
        self._idle_count = 0
        self._made = 0

    def start(self) -> None:
        """Let everyone begin."""
        for _ in range(self._count):
            self.pause()

    @property
    def are_done(self) -> bool:
        """Whether all have stopped, as they do once ``is_stopping`` is set."""
        return self._idle_count == self._count

    def pause(self) -> None:
        """Do the next thing after some time."""
        seconds = self.random.uniform(0.0, self.random.choice((0.05, 0.05, 2.0)))
        self.world.after(seconds, self._next)

    def _next(self) -> None:
        if self.is_stopping:
            self._idle_count += 1
            return
        _Task(self).send()

    def new(self) -> bytes:
        """Bytes that nobody used before."""
        self._made += 1
        return b"%d;" % self._made

    def make(self) -> tuple[ClientCommand | None, Get | Range | None, bool]:
        """What to ask next: a command or a query, and whether a command may be sent again."""
        roll = self.random.random()
        if roll < 0.4:
            return None, self._query(), True
        if roll < 0.45:
            return Compact(max(1, self.oracle.acknowledged - self._made % 97)), None, True
        command = self._command()
        if self.random.random() < 0.5:
            if isinstance(command, Increment | DeleteRange):
                command = Put(self.random.choice(KEYS), self.new())  # whose bytes are its own
            return command, None, False
        is_short = self.random.random() < 0.2
        key = b"analyst" + self.new()
        fingerprint = key.ljust(16, b".")
        keep_ms = KEEP_SHORTLY_MS if is_short else KEEP_MS
        once = Once(key, fingerprint, keep_ms, command)  # type: ignore[arg-type]
        return once, None, not is_short

    def _query(self) -> Get | Range:
        random = self.random
        at = 0
        if random.random() < 0.4 and self.oracle.acknowledged:
            at = random.randint(max(1, self.oracle.acknowledged - 60), self.oracle.acknowledged)
        if random.random() < 0.4:
            return Get(random.choice(KEYS), at)
        start, end = sorted((random.choice((b"", b"x/", b"x/2")), random.choice((b"x/4", b"x0"))))
        return Range(
            start,
            random.choice((end, None)),
            at,
            is_descending=random.random() < 0.3,
            limit=random.choice((2, 1000)),
            count_only=random.random() < 0.2,
        )

    def _command(self) -> ClientCommand:
        random, value = self.random, self.new()
        key, other = random.sample(KEYS, 2)
        match random.randrange(7):
            case 0:
                return Put(key, value, None, 0, random.choice((0, 200, 2000)))
            case 1:
                return ReturnPrevious(Put(key, value))
            case 2:
                return Append(key, value, random.choice((60, VALUE_BYTES_MAX)))
            case 3:
                return Increment(b"x/count", 1)
            case 4:
                return DeleteRange(b"x/", b"x/3", random.choice((2, 100)))
            case _:
                compare = Compare(
                    key, Target.VERSION, random.choice(list(Comparison)), random.randrange(4)
                )
                success = (Put(key, value), Increment(b"x/count", 1), ReadKey(other))
                failure = (Append(other, value, VALUE_BYTES_MAX), ReadKey(key))
                return Txn((compare,), success, failure, 10, VALUE_BYTES_MAX)


class _Task:
    """One command or query on its way."""

    def __init__(self, analysts: Analysts) -> None:
        self._analysts = analysts
        self._cluster, self._world, self._oracle = analysts.cluster, analysts.world, analysts.oracle
        command, self._query, self._is_repeated = analysts.make()
        self._command = None if command is None else encode_command(command)
        self._least = self._oracle.acknowledged
        self._try = 0  # answers to earlier ones come too late
        if self._command is not None and not self._is_repeated:
            self._oracle.sent_once(self._command)

    def send(self) -> None:
        """Ask any node."""
        self._try += 1
        alive = [machine for machine in self._cluster.machines if machine.process is not None]
        if not alive:
            if self._analysts.is_stopping:
                self._finish()
            else:
                self._world.after(0.05, self.send)
            return
        machine = self._analysts.random.choice(alive)
        process = machine.process
        assert process is not None
        answered = partial(self._answered, self._try, machine, process)
        until = self._cluster.clock(machine) + TIMEOUT_SECONDS
        command, query = self._command, self._query
        if command is not None:
            self._cluster.request(machine, lambda rid: WriteRequest(rid, command, until), answered)
        else:
            assert query is not None
            linearizable = Consistency.LINEARIZABLE
            self._cluster.request(
                machine, lambda rid: ReadRequest(rid, query, linearizable, 0, until), answered
            )
        self._world.after(TIMEOUT_SECONDS + 0.3, partial(self._give_up, self._try))

    def _answered(self, try_: int, machine: Machine, process: Process, answer: Answer) -> None:
        if try_ != self._try or machine.process is not process:
            return  # an answer that a dead process never sent, or that nobody waits for
        if self._command is not None:
            self._oracle.write_answered(self._command, self._least, answer)
        else:
            assert self._query is not None
            self._oracle.read_answered(self._query, self._least, answer)
        is_read_over = isinstance(answer, Failure) and answer.code in (
            FailureCode.COMPACTED,
            FailureCode.FUTURE_REVISION,
        )
        if isinstance(answer, Failure) and not is_read_over:
            self._give_up(try_)
        else:
            self._finish()

    def _give_up(self, try_: int) -> None:
        if try_ != self._try:
            return
        self._try += 1
        if self._is_repeated and not self._analysts.is_stopping:
            self._analysts.reached["asked another node again"] += 1
            self._world.after(self._analysts.random.uniform(0.0, 0.05), self.send)
        else:
            self._finish()

    def _finish(self) -> None:
        self._try += 1
        self._analysts.done_count += 1
        self._analysts.pause()
