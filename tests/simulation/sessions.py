"""Simulated clients that never give up: idempotency keys, locks with fencing, leases.

Beside those of `tests.simulation.workload`, whose history is checked for linearizability, these
send a request again, to any node, until somebody answers it for good. What that is worth shows in
the store at the end: `Sessions.check` compares it with what each client was told.
"""

from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from random import Random

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    ClientCommand,
    Fenced,
    GrantLease,
    KeepLeaseAlive,
    KeepLockAlive,
    LeaveLock,
    Once,
    Put,
    ReadKey,
    ReleaseLock,
    RevokeLease,
    Txn,
    TxnOp,
    encode_command,
)
from raftkv.kv.engine import Table
from raftkv.kv.outcomes import (
    LeaseGranted,
    LeaseNotFound,
    LeaseRevoked,
    LockBusy,
    LockHeld,
    LockLost,
    LockQueued,
    LockReleased,
    Outcome,
    PlainOutcome,
    Replayed,
    TxnDone,
    TxnFailed,
    Written,
)
from raftkv.kv.records import decode_current, decode_lock, encode_number
from raftkv.kv.store import Store
from raftkv.node.events import Answer, CancelRequest, LockRequest, WriteRequest
from raftkv.node.messages import Failure, RequestId
from tests.simulation.cluster import Cluster, Machine, Process
from tests.simulation.oracle import Oracle

LOCKS = (b"lock/1", b"lock/2")
SUM_KEY = b"session/sum"
VALUE_BYTES_MAX = 1 << 20
KEEP_MS = 3_600_000  # longer than any run
TTL_MS = 400
TRY_SECONDS = 0.8
PAUSE_SECONDS_MAX = 2.0  # now and then, between two errands

# What a client does: it yields commands, and gets back what came of each; None: it is to stop.
Errand = Generator[ClientCommand, PlainOutcome | None, None]


class Sessions:
    """All clients of a run, and what they were told."""

    def __init__(self, cluster: Cluster, oracle: Oracle, count: int) -> None:
        self.cluster = cluster
        self.oracle = oracle
        self.world = cluster.world
        self.random = Random(cluster.world.seed)  # its own: these clients draw no weather
        self.is_stopping = False
        self._count = count
        self._idle_count = 0
        self._made = 0
        self.done_count = 0
        self.reached: Counter[str] = Counter()
        # As real time sees it, a lease may end so much earlier as its leader's clock was fast.
        self._ttl_ms_min = TTL_MS / (1 + cluster.climate.clock_skew)
        # Appended words: those that were acknowledged, with the revision; all that were sent.
        self._appended: dict[bytes, int] = {}
        self._sent: set[bytes] = set()
        self._holders: dict[tuple[bytes, int], bytes] = {}  # lock and token -> owner
        self._stolen: set[int] = set()  # tokens
        self._revoked_keys: set[bytes] = set()  # of leases that were revoked

    def start(self) -> None:
        """Let every client begin."""
        for client in range(self._count):
            self.world.after(self.random.uniform(0.0, 0.5), partial(self._next, client))

    @property
    def are_done(self) -> bool:
        """Whether all have stopped, as they do once ``is_stopping`` is set."""
        return self._idle_count == self._count

    def once(self, command: ClientCommand) -> Once:
        """``command`` under an idempotency key of its own."""
        key = self._new(b"once")
        fingerprint = key.ljust(16, b".")
        return Once(key, fingerprint, KEEP_MS, command)  # type: ignore[arg-type]

    def _new(self, kind: bytes) -> bytes:
        self._made += 1
        return b"%b%d" % (kind, self._made)

    def _next(self, client: int) -> None:
        if self.is_stopping:
            self._idle_count += 1
            return
        errands = (
            self._append,
            self._lock,
            self._lock,
            self._lock,
            self._lease,
            *[self._steal] * 2,
        )
        errand = self.random.choice(errands)()
        _Walk(self, errand, partial(self._pause, client)).go_on(next(errand))

    def _pause(self, client: int) -> None:
        self.done_count += 1
        pause_max = 0.1 if self.random.random() < 0.8 else PAUSE_SECONDS_MAX
        self.world.after(self.random.uniform(0.0, pause_max), lambda: self._next(client))

    # ---- errands ----------------------------------------------------------------------------

    def _append(self) -> Errand:
        """Append a word to a key that everybody appends to: once, however often it is asked."""
        word = self._new(b"word") + b";"
        self._sent.add(word)
        outcome = yield self.once(Append(SUM_KEY, word, VALUE_BYTES_MAX))
        if outcome is not None:
            assert isinstance(outcome, Written), outcome
            self._appended[word] = outcome.revision

    def _lock(self) -> Errand:
        """Take a lock, write under its protection, give it back, or die with it in the hand."""
        name, owner = self.random.choice(LOCKS), self._new(b"owner")
        acquire = AcquireLock(name, owner, TTL_MS, self.random.choice((0, 200, 1000)), 3)
        ticket = 0
        tries = self.random.randrange(1, 8)
        while True:
            kept_at = self.world.now  # or later: until when it may not be lost
            outcome = yield acquire
            tries -= 1
            if isinstance(outcome, LockQueued):
                ticket = outcome.ticket
            if not isinstance(outcome, LockQueued) or tries == 0:
                break
        if isinstance(outcome, LockQueued):
            outcome = yield LeaveLock(name, ticket, releases=self.random.random() < 0.5)
            assert outcome is None or isinstance(outcome, LockReleased | LockHeld), outcome
        if outcome is None or isinstance(outcome, LockBusy | LockReleased):
            return
        assert isinstance(outcome, LockHeld), outcome
        token = outcome.token
        self.reached["lock waited for"] += ticket > 0
        assert self._holders.setdefault((name, token), owner) == owner, "two owners, one token"
        for _ in range(self.random.randrange(8)):
            word = b"%d %b;" % (token, self._new(b"w"))
            append = Append(b"under/" + name, word, VALUE_BYTES_MAX)
            self._sent.add(word)
            outcome = yield self.once(Fenced(name, token, append))
            if outcome is None or isinstance(outcome, LockLost):
                self._note_loss(token, kept_at, outcome)
                return
            assert isinstance(outcome, Written), outcome
            self._appended[word] = outcome.revision
            if self.random.random() < 0.3:
                asked_at = self.world.now
                outcome = yield KeepLockAlive(name, token)
                if outcome is None or isinstance(outcome, LockLost):
                    self._note_loss(token, kept_at, outcome)
                    return
                assert isinstance(outcome, LockHeld), outcome
                kept_at = asked_at
        if self.random.random() < 0.8:
            outcome = yield ReleaseLock(name, token)
            assert outcome is None or isinstance(outcome, LockReleased | LockLost), outcome

    def _note_loss(self, token: int, kept_at: float, outcome: PlainOutcome | None) -> None:
        """Nobody loses a lock before its ttl is over (rule 21), unless it was stolen."""
        if outcome is None:
            return
        self.reached["lock lost"] += 1
        if token not in self._stolen:
            self.reached["lock expired"] += 1
            self._check_age("lock", kept_at)

    def _check_age(self, what: str, kept_at: float) -> None:
        age_ms = (self.world.now - kept_at) * 1000
        assert age_ms >= self._ttl_ms_min, (
            f"a {what} for {TTL_MS} ms was lost after {age_ms:.0f} ms"
        )

    def _steal(self) -> Errand:
        """As an operator would: end the lease of a lock, whose holder does not know it yet."""
        name = self.random.choice(LOCKS)
        tokens = [token for lock, token in self._holders if lock == name]
        if not tokens:
            outcome = yield KeepLockAlive(name, 1)
            assert outcome is None or isinstance(outcome, LockHeld | LockLost), outcome
            return
        self._stolen.add(max(tokens))
        outcome = yield RevokeLease(max(tokens))
        assert outcome is None or isinstance(outcome, LeaseRevoked | LeaseNotFound), outcome

    def _lease(self) -> Errand:
        """Make a lease and keys of it, which are gone when it is revoked or expired."""
        kept_at = self.world.now  # or later: until when it may not end
        outcome = yield self.once(GrantLease(TTL_MS, 10))
        if outcome is None:
            return
        assert isinstance(outcome, LeaseGranted), outcome
        lease = outcome.lease
        keys = [self._new(b"leased/") for _ in range(self.random.randrange(1, 4))]
        ops: list[TxnOp] = [Put(key, b"", None, lease) for key in keys]
        ops.append(ReadKey(keys[0]))
        outcome = yield self.once(Txn((), tuple(ops), (), 10, VALUE_BYTES_MAX))
        if outcome is None or isinstance(outcome, TxnFailed):
            return
        assert isinstance(outcome, TxnDone), outcome
        if self.random.random() < 0.5:
            asked_at = self.world.now
            outcome = yield KeepLeaseAlive(lease)
            assert outcome is None or isinstance(outcome, LeaseGranted | LeaseNotFound), outcome
            if isinstance(outcome, LeaseNotFound):
                self.reached["lease expired"] += 1
                self._check_age("lease", kept_at)
            elif outcome is not None:
                kept_at = asked_at
        if self.random.random() < 0.7:
            outcome = yield RevokeLease(lease)
            if outcome is not None:
                assert isinstance(outcome, LeaseRevoked | LeaseNotFound), outcome
                self._revoked_keys.update(keys)

    # ---- the end ----------------------------------------------------------------------------

    def check(self, store: Store) -> None:
        """Whether the store is what the clients were told.

        Raises:
            AssertionError: it is not.
        """
        check_tables(store)
        self._check_words(store, SUM_KEY)
        for name in LOCKS:
            words = self._check_words(store, b"under/" + name)
            tokens = [int(word.split()[0]) for word in words]
            assert tokens == sorted(tokens), f"a lost lock still wrote: {tokens}"
        for key in self._revoked_keys:
            assert store.get(key) is None, f"{key!r} outlived its lease"

    def _check_words(self, store: Store, key: bytes) -> list[bytes]:
        item = store.get(key)
        words = [] if item is None else [word + b";" for word in item.value.split(b";")[:-1]]
        assert len(words) == len(set(words)), f"a word was appended to {key!r} twice"
        assert set(words) <= self._sent, f"{key!r} has words that nobody sent"
        is_sum = key == SUM_KEY
        expected = {
            word
            for word in self._appended
            if word.startswith(b"word") == is_sum and (is_sum or self._lock_of(word) == key[6:])
        }
        assert expected <= set(words), f"an acknowledged word is missing in {key!r}"
        places = [self._appended[word] for word in words if word in expected]
        assert places == sorted(places), f"the revisions in {key!r} are not its order"
        return words

    def _lock_of(self, word: bytes) -> bytes:
        token = int(word.split()[0])
        (name,) = (name for name, held in self._holders if held == token)
        return name


class _Walk:
    """One errand on its way: the present command is sent again until somebody answers it."""

    def __init__(self, sessions: Sessions, errand: Errand, is_over: Callable[[], None]) -> None:
        self._sessions = sessions
        self._cluster, self._world = sessions.cluster, sessions.world
        self._errand = errand
        self._is_over = is_over
        self._command: ClientCommand | None = None
        self._machine: Machine | None = None  # that is asked
        self._least = 0  # the revision that was known when it was asked first
        self._try = 0  # answers to earlier ones come too late

    def go_on(self, command: ClientCommand) -> None:
        """Begin to ask for the next command."""
        self._command = command
        self._least = self._sessions.oracle.acknowledged
        self._send()

    def _send(self) -> None:
        self._try += 1
        if self._sessions.is_stopping:
            self._continue(None)
            return
        alive = [m for m in self._cluster.machines if m.process is not None]
        if not alive:
            self._again()
            return
        machine = self._machine = self._sessions.random.choice(alive)
        process = machine.process
        assert process is not None
        answered = partial(self._answered, self._try, machine, process)
        cancel = CancelRequest(self._cluster.request(machine, self._request, answered))
        # A paused or killed node never answers; a client may also be too hasty.
        patience = self._sessions.random.choice((0.05, TRY_SECONDS + 0.2))
        self._world.after(patience, partial(self._give_up, self._try, machine, process, cancel))

    def _request(self, request_id: RequestId) -> WriteRequest | LockRequest:
        """The present command; for a lock the node waits, or the client itself, by asking again."""
        assert self._command is not None
        machine = self._machine
        assert machine is not None
        now = self._cluster.clock(machine)
        data, deadline = encode_command(self._command), now + TRY_SECONDS
        command = self._command
        if isinstance(command, AcquireLock) and self._sessions.random.random() < 0.7:
            wait_deadline = now + command.wait_ms / 1000
            until = max(deadline, wait_deadline)
            return LockRequest(request_id, data, command.name, wait_deadline, until)
        return WriteRequest(request_id, data, deadline)

    def _give_up(
        self, try_: int, machine: Machine, process: Process, cancel: CancelRequest
    ) -> None:
        if try_ != self._try:
            return
        if self._sessions.random.random() < 0.5:
            # At once or late: the node notices that the connection is gone when it does.
            pause = self._sessions.random.choice((0.0, 0.0, 0.5))
            self._world.after(pause, partial(self._cancel, machine, process, cancel))
        self._again()

    def _cancel(self, machine: Machine, process: Process, cancel: CancelRequest) -> None:
        if machine.process is process:
            self._cluster.deliver(machine, process, cancel)

    def _again(self) -> None:
        self._try += 1
        self._world.after(self._sessions.random.uniform(0.0, 0.05), self._send)

    def _answered(
        self, try_: int, machine: Machine, process: Process | None, answer: Answer
    ) -> None:
        if try_ != self._try or machine.process is not process:
            return
        if isinstance(answer, Failure):
            self._again()
            return
        self._try += 1
        assert isinstance(answer, Outcome), answer
        command = self._command
        # A lock that was waited for is granted by somebody else's command.
        if not isinstance(command, AcquireLock):
            assert command is not None
            self._sessions.oracle.write_answered(encode_command(command), self._least, answer)
        if isinstance(answer, Replayed):
            self._sessions.reached["idempotent replay"] += 1
            answer = answer.outcome
        self._continue(answer)

    def _continue(self, outcome: PlainOutcome | None) -> None:
        try:
            command = self._errand.send(outcome)
        except StopIteration:
            self._is_over()
            return
        pause = self._sessions.random.choice((0.0, 0.02, 0.3))
        self._world.after(pause, partial(self.go_on, command))


def check_tables(store: Store) -> None:
    """Whether the tables of a store agree with each other.

    Raises:
        AssertionError: they do not.
    """
    with store.engine.read() as reader:
        tables = {table: dict(reader.scan(table, b"", None)) for table in Table}
    keys = {key: decode_current(data) for key, data in tables[Table.CUR].items()}
    assert store.key_count == len(keys)
    attached = {
        encode_number(current.lease) + current.rev_key: key
        for key, current in keys.items()
        if current.lease
    }
    assert tables[Table.ATTACHED] == attached
    assert {place[:8] for place in attached} <= set(tables[Table.LEASE])
    assert store.lease_count == len(tables[Table.LEASE]) == len(tables[Table.DEADLINE])
    assert {place[8:] for place in tables[Table.DEADLINE]} == set(tables[Table.LEASE])
    tokens = {encode_number(decode_lock(data).token) for data in tables[Table.LOCK].values()}
    assert tokens <= set(tables[Table.LEASE])
    assert store.lock_count == len(tokens) == len(tables[Table.LOCK])
    records = len(tables[Table.ONCE]), len(tables[Table.ONCE_END])
    assert records == (store.once_count,) * 2, f"{store.once_count} answers kept: {records}"
    counted = sum(
        len(key) + len(value)
        for table in Table
        if table not in (Table.META, Table.CUR)
        for key, value in tables[table].items()
    )
    assert store.logical_bytes == counted
