"""Simulated clients: each does one operation after the other, on any node, and notes it down."""

from functools import partial

from raftkv.kv.commands import Append, Command, Condition, Delete, Put, encode_command
from raftkv.kv.outcomes import ConditionFailed, Deleted, TooLarge, Written
from raftkv.node.events import Answer, Consistency, Get, ReadRequest, ReadResult, WriteRequest
from raftkv.node.messages import Failure, FailureCode
from tests.linearizability.history import Certainty, Kind, Operation
from tests.simulation.cluster import Cluster, Machine, Process
from tests.simulation.oracle import Oracle

KEYS = ("a", "b", "c", "d", "e")
VALUE_BYTES_MAX = 1 << 20
PAUSE_SECONDS_MAX = 2.5  # between two bursts


class Clients:
    """All clients of a run, and the history they make together."""

    def __init__(self, cluster: Cluster, oracle: Oracle, count: int) -> None:
        self._cluster = cluster
        self.oracle = oracle
        self._world = cluster.world
        self.history: list[Operation] = []
        self.is_stopping = False
        self.idle_count = 0
        self._count = count
        self._last_revision: dict[str, int] = {}
        self._values_made = 0

    def start(self) -> None:
        """Let every client begin."""
        for client in range(self._count):
            self._world.after(self._world.rng.uniform(0.0, 0.5), partial(self._next, client))

    @property
    def are_done(self) -> bool:
        """Whether all have stopped, as they do once ``is_stopping`` is set."""
        return self.idle_count == self._count

    def _next(self, client: int) -> None:
        if self.is_stopping:
            self.idle_count += 1
            return
        world = self._world
        alive = [m for m in self._cluster.machines if m.process is not None]
        if not alive:
            world.after(0.05, lambda: self._next(client))
            return
        machine = world.rng.choice(alive)
        kind = world.rng.choices(
            (Kind.PUT, Kind.GET, Kind.DELETE, Kind.APPEND, Kind.CAS), (30, 40, 5, 15, 10)
        )[0]
        _Request(self, client, machine, world.rng.choice(KEYS), kind).send()

    def finish(self, operation: Operation) -> None:
        """Note an operation and let its client go on after a think time."""
        self.history.append(operation)
        if operation.mod_revision:
            self._last_revision[operation.key] = operation.mod_revision
        elif operation.revision and operation.is_effective_write:
            self._last_revision[operation.key] = operation.revision
        # In bursts, so that much happens at once in a run that lasts long.
        pause_max = 0.02 if self._world.chance(0.9) else PAUSE_SECONDS_MAX
        pause = self._world.rng.uniform(0.0, pause_max)
        self._world.after(pause, lambda: self._next(operation.client))

    def new_value(self) -> str:
        """A value that no other write of the run has."""
        self._values_made += 1
        return f"v{self._values_made};"

    def guess_revision(self, key: str) -> int:
        """A revision that the key may well have now; 0 for 'it does not exist'."""
        return self._last_revision.get(key, 0)


class _Request:
    """One operation of one client."""

    def __init__(
        self, clients: Clients, client: int, machine: Machine, key: str, kind: Kind
    ) -> None:
        self._clients = clients
        self._cluster = clients._cluster
        self._world = clients._cluster.world
        self._machine = machine
        self._process: Process | None = machine.process
        self._is_over = False
        self._call_ns = self._now_ns()
        self._client, self._key, self._kind = client, key, kind
        self._argument = "" if kind in (Kind.GET, Kind.DELETE) else clients.new_value()
        self._expected = clients.guess_revision(key) if kind is Kind.CAS else 0
        self._sent = b""  # the command
        self._least = clients.oracle.acknowledged

    def _now_ns(self) -> int:
        return round(self._world.now * 1e9)

    def send(self) -> None:
        timeout = self._world.rng.choice((0.5, 1.0, 3.0))
        deadline = self._cluster.clock(self._machine) + timeout
        if self._kind is Kind.GET:
            query = Get(self._key.encode())
            self._cluster.request(
                self._machine,
                lambda rid: ReadRequest(rid, query, Consistency.LINEARIZABLE, 0, deadline),
                self._answered,
            )
        else:
            command = self._sent = encode_command(self._command())
            if self._argument:
                self._clients.oracle.sent_once(command)
            self._cluster.request(
                self._machine, lambda rid: WriteRequest(rid, command, deadline), self._answered
            )
        self._world.after(timeout + 0.3, self._give_up)
        self._watch()

    def _watch(self) -> None:
        """The client sees its connection reset when the process dies."""
        if self._is_over:
            return
        if self._machine.process is not self._process:
            self._give_up()
            return
        self._world.after(0.05, self._watch)

    def _command(self) -> Command:
        key, argument = self._key.encode(), self._argument.encode()
        match self._kind:
            case Kind.PUT:
                return Put(key, argument)
            case Kind.DELETE:
                return Delete(key)
            case Kind.APPEND:
                return Append(key, argument, VALUE_BYTES_MAX)
            case _:
                if self._expected == 0:
                    return Put(key, argument, Condition(exists=False))
                return Put(key, argument, Condition(revisions=(self._expected,)))

    def _give_up(self) -> None:
        if not self._is_over:
            certainty = Certainty.NOT_COMMITTED if self._kind is Kind.GET else Certainty.UNKNOWN
            self._finish(certainty=certainty)

    def _answered(self, answer: Answer) -> None:
        if self._is_over or self._machine.process is not self._process:
            return  # an answer that a dead process never sent
        oracle = self._clients.oracle
        if self._sent:
            oracle.write_answered(self._sent, self._least, answer)
        else:
            oracle.read_answered(Get(self._key.encode()), self._least, answer)
        match answer:
            case Failure(code=FailureCode.UNKNOWN):
                self._finish(certainty=Certainty.UNKNOWN)
            case Failure():
                self._finish(certainty=Certainty.NOT_COMMITTED)
            case ReadResult(item=item, revision=revision):
                value = None if item is None else item.value.decode()
                mod = 0 if item is None else item.mod_revision
                self._known(value=value, mod_revision=mod, revision=revision)
            case Written(revision=revision, version=version):
                self._known(existed=version > 1, revision=revision)
            case Deleted(revision=revision, count=count):
                self._known(existed=count > 0, revision=revision)
            case ConditionFailed(revision=revision, mod_revision=mod):
                self._known(succeeded=False, mod_revision=mod, revision=revision)
            case TooLarge():
                raise AssertionError("no value of this workload is too large")
            case _:
                raise AssertionError(f"unexpected answer {answer!r}")

    def _known(
        self,
        *,
        succeeded: bool = True,
        existed: bool | None = None,
        value: str | None = None,
        mod_revision: int | None = None,
        revision: int | None = None,
    ) -> None:
        self._is_over = True
        self._clients.finish(
            Operation(
                client=self._client,
                key=self._key,
                kind=self._kind,
                call_ns=self._call_ns,
                return_ns=self._now_ns(),
                argument=self._argument,
                expected_revision=self._expected,
                succeeded=succeeded,
                existed=existed,
                value=value,
                mod_revision=mod_revision,
                revision=revision,
            )
        )

    def _finish(self, certainty: Certainty) -> None:
        self._is_over = True
        self._clients.finish(
            Operation(
                client=self._client,
                key=self._key,
                kind=self._kind,
                call_ns=self._call_ns,
                certainty=certainty,
                argument=self._argument,
                expected_revision=self._expected,
            )
        )
