"""When a node makes, sends, receives and installs snapshots, and what it may forget then.

Owned by the node class. Files are `raftkv.storage.snapshots`, transfers `snapshot_transfer`; which
follower needs a snapshot is decided by the consensus core (`Ready.snapshots_wanted`).

    make      copy of the engine -> file, durable -> record in the log, durable -> older files and
              segments go (rule 11)
    install   file, received and verified -> the core takes it -> record in the log, durable ->
              new engine from the file -> the write is reported durable (rule 10)

Two bounds are kept apart. The log on disk reaches back to the newest snapshot, because a restart
needs it. The log in memory is only for followers that are a little behind: it is cut to
`NodeSettings.log_bytes_max` however old the newest snapshot is, and a follower that is farther
behind waits for a fresh one.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from raftkv.kv.engine import Engine
from raftkv.kv.environment import EngineFactory
from raftkv.kv.records import FORMAT
from raftkv.kv.store import Store
from raftkv.node.backups import Backups
from raftkv.node.disk_tasks import DiskTasks, Refusal
from raftkv.node.events import (
    Answer,
    BackupRequest,
    SnapshotRequest,
    SnapshotTaken,
)
from raftkv.node.messages import (
    Failure,
    FailureCode,
    RequestId,
    SnapshotAck,
    SnapshotChunk,
    SnapshotMessage,
    SnapshotOffer,
)
from raftkv.node.settings import NodeSettings
from raftkv.node.snapshot_transfer import Incoming, Outgoing
from raftkv.node.wal_writes import WalWrites
from raftkv.raft import EntryId, InstallSnapshot, NodeId, RawNode, Role, SnapshotWanted, Write
from raftkv.storage.disk import Lane
from raftkv.storage.errors import CorruptionError
from raftkv.storage.identity import Identity
from raftkv.storage.snapshots import (
    SnapshotInfo,
    SnapshotMeta,
    load,
    remove,
    remove_older_than,
    verify_snapshot,
    write_snapshot,
)
from raftkv.storage.wal import Wal

# A snapshot is due when the log since the last one has half of its size: that is what a restart
# without its engine replays at most (docs/adr/0006-snapshot-threshold.md).
SNAPSHOT_SHARE: Final = 2
# After a snapshot could not be made for want of room: not with every tick again.
RETRY_SECONDS: Final = 30.0
# Before a follower that refused a snapshot is offered one again.
REFUSED_SECONDS: Final = 5.0
# So much longer may the log in memory be while a snapshot is on its way to a follower.
IN_TRANSFER_FACTOR: Final = 4


class Core(Protocol):
    """`raftkv.node.node.Core`, as far as snapshots need it."""

    identity: Identity
    wal: Wal
    raft: RawNode
    store: Store


class Rng(Protocol):
    """The node's randomness."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


class Snapshots:
    """See the module docstring."""

    def __init__(
        self,
        settings: NodeSettings,
        disk: DiskTasks,
        wal_writes: WalWrites,
        engines: EngineFactory,
        rng: Rng,
        *,
        clock: Callable[[], float],
        answer: Callable[[RequestId, Answer], None],
        send: Callable[[NodeId, SnapshotMessage], None],
    ) -> None:
        self.newest: SnapshotInfo | None = None
        # For status and metrics.
        self.taken_at: float | None = None  # when this process made or installed `newest`
        self.duration_seconds: float | None = None  # of making the last one
        self.last_refusal = ""  # why the last one was not made; "" if it was
        self.made_count = 0  # by this process
        self.installed_count = 0
        self.is_installing = False
        self._settings = settings
        self._disk = disk
        self._wal_writes = wal_writes
        self._engines = engines
        self._rng = rng
        self._clock = clock
        self._answer = answer
        self._send = send
        self._is_making = False
        self._is_dropping = False  # segments of the log
        self._not_before = float("-inf")
        # To be answered by the next one that is begun: it has all that was applied before them.
        self._requests: list[SnapshotRequest | BackupRequest] = []
        self._wanted: dict[NodeId, SnapshotWanted] = {}  # followers that wait for the next
        self.sending: dict[NodeId, Outgoing] = {}
        self._incoming: Incoming | None = None
        self._next_offer: tuple[NodeId, SnapshotOffer] | None = None  # when `_incoming` is gone
        # When to offer again to those that refused.
        self._retry_at: dict[NodeId, float] = {}
        self._is_verifying = False
        # Received, verified and durable, by their last entries; the core may take them.
        self._received: dict[EntryId, SnapshotInfo] = {}
        # (index, bytes of the log up to it), one mark for each slice that was applied.
        self._marks: deque[tuple[int, int]] = deque()
        self._applied_bytes = 0
        self.backups = Backups(disk, clock, answer)

    # ---- when ----------------------------------------------------------------------------------

    def tick(self, core: Core) -> None:
        """Make a snapshot if the log has grown enough, and end transfers that hang."""
        now = self._clock()
        grown_bytes = core.wal.bytes_since_snapshot
        newest_bytes = 0 if self.newest is None else self.newest.size_bytes
        if grown_bytes > max(self._settings.snapshot_bytes_min, newest_bytes // SNAPSHOT_SHARE):
            self._make(core)
        if core.raft.role is not Role.LEADER:
            self._wanted.clear()
        if self._wanted or self._requests:
            self._make(core)  # it was refused, or an installation came between
        for transfer in list(self.sending.values()):
            if core.raft.role is not Role.LEADER or not transfer.tick(now):
                self._end_outgoing(core, transfer)
        for peer, retry_at in list(self._retry_at.items()):
            if core.raft.role is not Role.LEADER or now >= retry_at:
                del self._retry_at[peer]
                core.raft.snapshot_failed(peer)
        self.backups.close_idle()

    def applied(self, core: Core, index: int, size_bytes: int) -> None:
        """Entries of ``size_bytes`` up to ``index`` were applied: keep the log in memory short."""
        self._applied_bytes += size_bytes
        marks = self._marks
        marks.append((index, self._applied_bytes))
        # A follower that is being sent a snapshot needs what comes after it.
        bytes_max = self._settings.log_bytes_max * (IN_TRANSFER_FACTOR if self.sending else 1)
        kept_from = self._applied_bytes - bytes_max
        cut = 0
        while len(marks) > 1 and marks[0][1] <= kept_from:
            cut = marks.popleft()[0]
        if cut:
            core.raft.compact(cut)

    def on_request(self, core: Core, request: SnapshotRequest | BackupRequest) -> None:
        """Make one now, whatever the log's size."""
        if not core.store.applied_index:
            detail = "the node has nothing to make a snapshot of: it belongs to no cluster yet"
            self._answer(request.id, Failure(FailureCode.UNINITIALISED, detail))
            return
        if isinstance(request, BackupRequest) and not self.backups.admit(request):
            return
        self._requests.append(request)
        self._not_before = float("-inf")
        self._make(core)

    # ---- making --------------------------------------------------------------------------------

    def _make(self, core: Core) -> None:
        now = self._clock()
        store, raft = core.store, core.raft
        # The core may have taken a snapshot whose write has not begun: this state is over.
        is_replaced = store.applied_index < raft.first_index - 1
        if self._is_making or self.is_installing or is_replaced or now < self._not_before:
            return
        newest = self.newest
        if newest is not None and newest.meta.last.index == store.applied_index:
            self._made(core, newest, self._take_requests())
            return
        term = raft.term_of(store.applied_index)
        assert term is not None, "the log reaches back to what is applied"
        config_index, conf = raft.conf_at(store.applied_index)
        meta = SnapshotMeta(
            cluster_id=core.identity.cluster_id or "",
            last=EntryId(term, store.applied_index),
            config_index=config_index,
            conf=conf,
            chain_hash=store.chain_hash,
            revision=store.revision,
            state_bytes=store.engine.size_bytes(),
            record_format=FORMAT,
        )
        self._is_making = True
        requests = self._take_requests()
        copy = store.engine.begin_copy()

        def written(info: SnapshotInfo) -> None:
            copy.close()
            if self._is_overtaken(info):
                self._is_making = False
                self._requests[:0] = requests
                return
            self._wal_writes.run(
                lambda: core.wal.append_snapshot(info, installs=False), lambda _: recorded(info)
            )

        def recorded(info: SnapshotInfo) -> None:
            self._is_making = False
            self.made_count += 1
            self.duration_seconds = self._clock() - now
            self.taken_at = self._clock()
            self._made(core, info, requests)
            self._forget_older(core, info)

        def refused(refusal: Refusal) -> None:
            copy.close()
            self._is_making = False
            self._not_before = self._clock() + RETRY_SECONDS
            self.last_refusal = str(refusal)
            failure = Failure(FailureCode.REFUSED, str(refusal), "no_snapshot")
            for request in (*requests, *self._take_requests()):
                if isinstance(request, BackupRequest):
                    self.backups.refuse(request, failure)
                else:
                    self._answer(request.id, failure)

        keep_free_bytes = self._settings.snapshot_keep_free_bytes
        self._disk.start(
            write_snapshot(meta, copy, keep_free_bytes=keep_free_bytes),
            written,
            lane=Lane.BULK,
            refused=refused,
        )

    def _is_overtaken(self, info: SnapshotInfo) -> bool:
        """Whether a snapshot was installed meanwhile that is newer than the one just made."""
        newest = self.newest
        return self.is_installing or (
            newest is not None and newest.meta.last.index >= info.meta.last.index
        )

    def _take_requests(self) -> list[SnapshotRequest | BackupRequest]:
        requests, self._requests = self._requests, []
        return requests

    def _made(
        self, core: Core, info: SnapshotInfo, requests: list[SnapshotRequest | BackupRequest]
    ) -> None:
        """``info`` is the newest: everybody who waited for it gets it."""
        self.newest = info
        self.last_refusal = ""
        for request in requests:
            if isinstance(request, SnapshotRequest):
                self._answer(request.id, _taken(info))
            else:
                self.backups.open(request, _taken(info))
        wanted, self._wanted = self._wanted, {}
        for each in wanted.values():
            self.wanted(core, each)

    def _forget_older(self, core: Core, info: SnapshotInfo) -> None:
        self._disk.start(remove_older_than(info.name), lambda _: None, lane=Lane.BULK)
        if not self._is_dropping:
            self._is_dropping = True

            def dropped(_: int) -> None:
                self._is_dropping = False

            self._disk.start(core.wal.drop_before(info.meta.last.index), dropped, lane=Lane.BULK)

    # ---- sending -------------------------------------------------------------------------------

    def wanted(self, core: Core, wanted: SnapshotWanted) -> None:
        """A follower needs a snapshot that reaches at least to ``wanted.min_index``."""
        before = self.sending.pop(wanted.peer, None)
        if before is not None:
            before.end()
        newest = self.newest
        if newest is None or newest.meta.last.index < wanted.min_index:
            self._wanted[wanted.peer] = wanted
            self._make(core)
            return
        offer = SnapshotOffer(self._rng.getrandbits(48), core.raft.term, wanted.session, newest)
        transfer = Outgoing(
            self._disk,
            lambda message: self._send(wanted.peer, message),
            peer=wanted.peer,
            offer=offer,
            now=self._clock(),
        )
        self.sending[wanted.peer] = transfer
        transfer.start(lambda _: self._end_outgoing(core, transfer))

    def on_ack(self, core: Core, sender: NodeId, ack: SnapshotAck) -> None:
        """A follower tells how far it is."""
        transfer = self.sending.get(sender)
        if transfer is None or transfer.offer.transfer != ack.transfer:
            return
        if ack.received_bytes is None:
            # No room there, or what it got was damaged: here, or on the way.
            del self.sending[sender]
            transfer.end()
            self._retry_at[sender] = self._clock() + REFUSED_SECONDS
            self._verify(transfer.offer.info)
            return
        transfer.acknowledged(ack.received_bytes, self._clock())
        if transfer.is_complete:
            del self.sending[sender]
            transfer.end()
            core.raft.snapshot_sent(sender, transfer.offer.info.meta.last.index)

    def on_peer_down(self, core: Core, peer: NodeId) -> None:
        """The link to ``peer`` broke: offer again once it is back, and go on where it stopped."""
        transfer = self.sending.get(peer)
        if transfer is not None:
            self._end_outgoing(core, transfer)

    def _verify(self, info: SnapshotInfo) -> None:
        """A follower refused it: let it not be for what happened to the file on this disk."""
        if self._is_verifying or info is not self.newest:
            return
        self._is_verifying = True

        def verified(_: SnapshotInfo) -> None:
            self._is_verifying = False

        def refused(refusal: Refusal) -> None:
            self._is_verifying = False
            self.last_refusal = str(refusal)
            if self.newest is info:
                self.newest = None  # the next that is wanted is made anew

        self._disk.start(verify_snapshot(info.name), verified, lane=Lane.BULK, refused=refused)

    def _end_outgoing(self, core: Core, transfer: Outgoing) -> None:
        if self.sending.get(transfer.peer) is transfer:
            del self.sending[transfer.peer]
        transfer.end()
        core.raft.snapshot_failed(transfer.peer)

    # ---- receiving -----------------------------------------------------------------------------

    def on_offer(self, core: Core, sender: NodeId, offer: SnapshotOffer) -> None:
        """A leader offers a snapshot: take it, unless it is of no use any more."""
        raft, meta = core.raft, offer.info.meta
        if offer.term < raft.term or meta.cluster_id != core.identity.cluster_id:
            return
        if meta.last.index <= raft.commit_index:
            # Overtaken; the core tells the leader how far this node is.
            self._step(core, sender, offer)
            return
        if meta.record_format not in (0, FORMAT):
            # Refused before it is fetched: to install it would end this node.
            self.last_refusal = (
                f"the leader's snapshot {offer.info.name} holds records of format "
                f"{meta.record_format}; this version has {FORMAT}"
            )
            self._send(sender, SnapshotAck(offer.transfer, None))
            return
        if self.is_installing:
            return  # the leader asks again
        incoming = self._incoming
        if incoming is None:
            self._begin_incoming(core, sender, offer)
        elif not incoming.renewed(sender, offer):
            self._next_offer = (sender, offer)
            incoming.give_up()

    def on_chunk(self, chunk: SnapshotChunk) -> None:
        """A piece of it."""
        if self._incoming is not None:
            self._incoming.take(chunk)

    def _begin_incoming(self, core: Core, sender: NodeId, offer: SnapshotOffer) -> None:
        self._incoming = Incoming(
            self._disk,
            self._send,
            lambda incoming, info: self._complete(core, incoming, info),
            lambda: self._incoming_ended(core),
            leader=sender,
            offer=offer,
            keep_free_bytes=self._settings.snapshot_keep_free_bytes,
        )
        self._incoming.start()

    def _incoming_ended(self, core: Core) -> None:
        self._incoming = None
        if self._next_offer is not None:
            (sender, offer), self._next_offer = self._next_offer, None
            self.on_offer(core, sender, offer)

    def _complete(self, core: Core, incoming: Incoming, info: SnapshotInfo) -> None:
        """The file is durable under its name: install it, if it is of use still."""
        last = info.meta.last
        if not incoming.is_given_up:
            self._received[last] = info
            self._step(core, incoming.leader, incoming.offer)
        if core.raft.installing == last:
            return
        # The log caught up meanwhile, or the leader is another. A file that the log never names
        # would stay for good; one of the same name may be the node's own, or about to be.
        self._received.pop(last, None)
        if not self._is_making and last.index != core.wal.base_index:
            self._disk.start(remove(info.name), lambda _: None, lane=Lane.BULK)

    def _step(self, core: Core, sender: NodeId, offer: SnapshotOffer) -> None:
        raft, meta = core.raft, offer.info.meta
        raft.step(
            InstallSnapshot(
                sender,
                raft.id,
                offer.term,
                offer.session,
                meta.last,
                meta.config_index,
                meta.conf,
            )
        )

    # ---- installing ----------------------------------------------------------------------------

    def install(self, core: Core, write: Write, done: Callable[[], None]) -> None:
        """Carry out a write that begins with a snapshot; ``done`` once all of it is true on disk.

        Between record and engine a crash is harmless: recovery finishes it from the file.
        """
        assert write.snapshot is not None
        info = self._received[write.snapshot.last]
        self._received.clear()
        self.is_installing = True

        def recorded(_: None) -> None:
            self.build(info, installed)

        def installed(engine: Engine) -> None:
            core.store = Store(engine)
            _check_installed(core.store, info)
            self.is_installing = False
            self.installed_count += 1
            self.newest = info
            self.taken_at = self._clock()
            self._marks.clear()
            done()
            self._forget_older(core, info)

        self._wal_writes.run(
            lambda: core.wal.append_snapshot(
                info, installs=True, hard_state=write.hard_state, entries=write.entries
            ),
            recorded,
        )

    def build(self, info: SnapshotInfo, done: Callable[[Engine], None]) -> None:
        """Make the engine from the file; at start, because it is lost or was never built."""
        building = self._engines.begin_install()
        self._disk.start(
            load(info.name, building), lambda _: done(building.finish()), lane=Lane.BULK
        )


def _taken(info: SnapshotInfo) -> SnapshotTaken:
    return SnapshotTaken(info.name, info.meta.last.index, info.meta.revision, info.size_bytes)


def _check_installed(store: Store, info: SnapshotInfo) -> None:
    """What came out of the file must be what went in on another node."""
    meta = info.meta
    found = (store.applied_index, store.revision, store.chain_hash)
    if found != (meta.last.index, meta.revision, meta.chain_hash):
        raise CorruptionError(
            f"snapshots/{info.name}", "the state in it is not the one that its header describes"
        )
