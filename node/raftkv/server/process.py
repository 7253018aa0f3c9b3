"""One node process, from settings to exit code.

Owns the order of things: listeners are bound before the data directory is touched (an occupied
port changes nothing), the node recovers, serves, and ends in one of two ways: in order, after a
signal (`raftkv.server.drain`), or at once with exit code 1, when it says that it cannot go on.
Called by `raftkv.cli.node_command`. Everything else is somebody else's business.
"""

import asyncio
import errno
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Final

from raftkv.kv.lmdb_environment import LmdbEngineFactory
from raftkv.node.events import RoleChanged
from raftkv.node.node import Node
from raftkv.raft.messages import NodeId
from raftkv.server.addresses import Address
from raftkv.server.drain import Hurry, drain
from raftkv.server.driver import Driver
from raftkv.server.formation import form_cluster
from raftkv.server.frames import ProbeReply
from raftkv.server.http.app import HttpServer, create_server
from raftkv.server.http.routes import Listener
from raftkv.server.logs import LogContext, configure_logging
from raftkv.server.metrics import Metrics
from raftkv.server.security import Security, SecurityError
from raftkv.server.settings import ServerSettings
from raftkv.server.timed_engine import TimedEngineFactory
from raftkv.server.tls import HANDSHAKE_SECONDS_MAX, SHUTDOWN_SECONDS_MAX, ServerTls
from raftkv.server.watchdog import BEAT_SECONDS, Watchdog
from raftkv.storage.errors import StorageError
from raftkv.storage.os_disk import OsDisk

_LOG: Final = logging.getLogger(__name__)

# A thread that comes back from a system call waits so long for the interpreter lock (rule 26).
SWITCH_INTERVAL_SECONDS: Final = 0.0005
# What is left alone by the collector for so long is rarely garbage: messages and entries are
# untracked or short-lived.
GC_THRESHOLDS: Final = (50_000, 20, 100)
LISTEN_BACKLOG: Final = 1024
CLOSE_SECONDS_MAX: Final = 2.0

try:
    import uvloop
except ImportError:  # not built for this system
    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_event_loop = uvloop.new_event_loop


class StartError(Exception):
    """The node cannot run as it was asked to; one sentence for a person."""


def run(settings: ServerSettings) -> int:
    """Run a node until it is told to end; returns the exit code. Raises StartError."""
    context = LogContext(settings.name)
    configure_logging(context, settings.log_format, settings.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(_run(settings, context))


async def _run(settings: ServerSettings, context: LogContext) -> int:
    return await NodeProcess(settings, context).run()


class NodeProcess:
    """The parts of one node process. Made with the loop running, to be run once."""

    def __init__(self, settings: ServerSettings, context: LogContext) -> None:
        self._settings = settings
        self._context = context
        self._rng = random.SystemRandom()
        node_version = version("raftkv")
        self._metrics = Metrics(node_version)
        self._disk = OsDisk(str(settings.data))
        node_settings = settings.node_settings(node_version)
        engine_factory = LmdbEngineFactory(
            str(settings.data / "store"),
            None if settings.runtime_dir is None else str(settings.runtime_dir),
            force_rebuild=settings.rebuild,
        )
        node = Node(
            node_settings,
            TimedEngineFactory(engine_factory, self._metrics.apply_seconds.observe),
            self._rng,
        )
        self._driver = driver = Driver(
            node,
            self._disk,
            self._metrics,
            self._rng,
            tick_seconds=node_settings.tick_seconds,
            pending_requests_max=node_settings.pending_requests_max,
            on_role=self._on_role,
        )
        self._metrics.watch_frames_dropped(
            {
                "not_sent": lambda: driver.transport.frames_dropped,
                "not_ours": lambda: node.frames_dropped,
            }
        )
        self._security = Security(settings, self._metrics, driver.transport.handshake_failed)
        self._stall_exit_seconds = node_settings.disk_stall_exit_seconds
        self._watchdog: Watchdog | None = None
        self._listeners = _HttpListeners()
        # Set by the first signal to the seconds that the drain is to take; the next one hurries.
        self._told_to_end: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._hurry = Hurry()

    async def run(self) -> int:
        """The exit code. Raises StartError."""
        self._handle_signals()
        stopped = self._driver.stopped
        try:
            self._secure()
            await self._listen()
            self._lock_data()
            async with asyncio.TaskGroup() as group:
                starting = group.create_task(self._start())
                await asyncio.wait(
                    (self._told_to_end, stopped), return_when=asyncio.FIRST_COMPLETED
                )
                if not stopped.done():
                    seconds = self._told_to_end.result()
                    await drain(self._driver, self._listeners, seconds, self._hurry)
                starting.cancel()
        finally:
            await self._close()
        if stopped.done():
            _LOG.error("the node cannot go on: %s", stopped.result())
            return 1
        _LOG.info("stopped")
        return 0

    # ---- start ------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal, self._settings.drain_seconds)
        # Somebody at a terminal: no endpoints to wait for.
        loop.add_signal_handler(signal.SIGINT, self._on_signal, 0.0)
        if self._settings.stop_at_eof:
            self._watch_stdin(sys.stdin.fileno())

    def _watch_stdin(self, descriptor: int) -> None:
        """Its writing end closes when whoever started this process is gone, even by SIGKILL."""
        loop = asyncio.get_running_loop()

        def on_readable() -> None:
            try:
                has_more = bool(os.read(descriptor, 4096))
            except OSError:
                has_more = False
            if not has_more:
                loop.remove_reader(descriptor)
                self._on_signal(0.0)

        loop.add_reader(descriptor, on_readable)

    def _on_signal(self, drain_seconds: float) -> None:
        if self._told_to_end.done():
            self._hurry.begin()
        else:
            self._told_to_end.set_result(drain_seconds)

    def _secure(self) -> None:
        """Load certificates and tokens, before anybody can connect."""
        try:
            self._security.load()
        except SecurityError as error:
            raise StartError(str(error)) from None
        self._driver.transport.tls = self._security.peers
        self._security.watch()

    async def _listen(self) -> None:
        settings = self._settings
        both = Listener.CLIENT if settings.admin_addr else Listener.CLIENT | Listener.ADMIN
        await self._listen_http("clients", settings.addr, both)
        if settings.admin_addr is not None:
            await self._listen_http("administrators", settings.admin_addr, Listener.ADMIN)
        if settings.metrics_addr is not None:
            await self._listen_http("metrics", settings.metrics_addr, Listener.METRICS)
        with _explain_bind("peers", settings.peer_addr):
            await self._driver.transport.listen(settings.peer_addr, self._describe)

    async def _listen_http(self, what: str, address: Address, listener: Listener) -> None:
        security = self._security
        settings = replace(self._settings.http_settings(), more_warnings=security.warnings)
        # Prometheus and the kubelet come without certificate and token.
        is_open = listener is Listener.METRICS
        server = create_server(
            listener,
            self._driver,
            settings,
            self._metrics,
            host=address.host,
            authenticate=None if is_open else security.authenticate,
        )
        with _explain_bind(what, address):
            await self._listeners.add(server, address, None if is_open else security.clients)

    def _lock_data(self) -> None:
        try:
            self._disk.lock()
        except StorageError as error:
            raise StartError(str(error)) from None

    async def _start(self) -> None:
        """Recover, then become part of a cluster if `--peers` says which."""
        for warning in self._settings.warnings:
            _LOG.warning(warning)
        started_at = time.monotonic()
        await self._driver.start()
        member_id = self._driver.member_id
        if member_id is None:
            return  # it has stopped instead
        self._watch_loop()
        self._tame_collector()
        _LOG.info(
            "member %016x serves clients at %s and peers at %s after %.2f s",
            member_id,
            self._settings.addr,
            self._settings.peer_addr,
            time.monotonic() - started_at,
        )
        if self._driver.cluster_id is not None:
            return
        if self._settings.peers is None:
            _LOG.info("waiting for a cluster: to be bootstrapped, or added to one")
            return
        tls = self._security.peers
        await form_cluster(
            self._driver,
            self._describe,
            self._settings.peers,
            self._rng,
            tls=None if tls is None else tls.client,
        )

    def _describe(self, sender: NodeId) -> ProbeReply | None:
        member_id = self._driver.member_id
        if member_id is None:
            return None
        members = self._driver.cluster().members
        return ProbeReply(
            name=self._settings.name,
            member_id=member_id,
            cluster_id=self._driver.cluster_id,
            state=str(self._driver.status().state),
            peer_url=str(self._settings.advertise_peer),
            client_url=self._settings.advertise_client,
            peers_digest=None if self._settings.peers is None else self._settings.peers.digest,
            lists_sender=any(member.id == sender for member in members) if members else None,
        )

    # ---- while it runs ----------------------------------------------------------------------

    def _on_role(self, change: RoleChanged) -> None:
        self._metrics.observe_role(change)
        self._context.term, self._context.role = change.term, change.role
        if change.leader is None:
            _LOG.info("%s in term %d, no leader known", change.role, change.term)
        else:
            leader = self._driver.status().leader_name or f"member {change.leader:016x}"
            _LOG.info("%s in term %d, led by %s", change.role, change.term, leader)

    def _watch_loop(self) -> None:
        """End the process if the loop does not come back here for long (rule 12)."""
        if self._watchdog is None:
            self._watchdog = Watchdog(self._stall_exit_seconds)
        self._watchdog.beat()
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._watch_loop)

    def _tame_collector(self) -> None:
        """What lives from the start on is never looked at again; pauses are measured."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        began_at = 0.0

        def observe(phase: str, _info: object) -> None:
            nonlocal began_at
            if phase == "start":
                began_at = time.perf_counter()
            else:
                self._metrics.gc_pause_seconds.observe(time.perf_counter() - began_at)

        gc.callbacks.append(observe)

    # ---- end --------------------------------------------------------------------------------

    async def _close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()  # to close the store may take its time
        self._security.close()
        self._listeners.close()
        # Whoever is still waiting gets an answer, while there are connections to send it on.
        self._driver.refuse_requests()
        await self._listeners.end_connections()
        if await self._driver.close():
            self._disk.close()  # else the lock goes with the process, and its last write


class _HttpListeners:
    """All HTTP listeners of the process, their sockets and their connections."""

    def __init__(self) -> None:
        self._servers: list[HttpServer] = []
        self._sockets: list[asyncio.Server] = []

    async def add(self, server: HttpServer, address: Address, tls: ServerTls | None) -> None:
        """Serve connections to ``address``. Raises OSError."""
        sockets = await asyncio.get_running_loop().create_server(
            server,
            address.host,
            address.port,
            backlog=LISTEN_BACKLOG,
            ssl=None if tls is None else tls.context,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_SECONDS_MAX,
            ssl_shutdown_timeout=None if tls is None else SHUTDOWN_SECONDS_MAX,
        )
        self._sockets.append(sockets)
        self._servers.append(server)

    def in_flight(self) -> int:
        """See `raftkv.server.drain.Listeners`."""
        return sum(server.in_flight for server in self._servers)

    def close(self) -> None:
        """See `raftkv.server.drain.Listeners`."""
        for sockets in self._sockets:
            sockets.close()
        for server in self._servers:
            server.end_watches()

    async def end_connections(self) -> None:
        """Close the idle connections at once and the others after their answer, or soon."""
        for server in self._servers:
            server.close_idle_connections()
        await asyncio.gather(*(server.shutdown(CLOSE_SECONDS_MAX) for server in self._servers))


@contextmanager
def _explain_bind(what: str, address: Address) -> Iterator[None]:
    """Turn the failure to listen at ``address`` into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "another process listens there"
        else:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise StartError(f"cannot listen for {what} at {address}: {why}") from None
