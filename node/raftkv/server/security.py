"""Certificates and tokens of one process: loaded at the start, watched while it runs.

Called by `raftkv.server.process`. What the files mean is the business of `raftkv.server.tls` and
`raftkv.server.tokens`; that they may change, of `raftkv.server.reload`.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from raftkv.server.http.authorisation import Authenticate
from raftkv.server.metrics import Metrics
from raftkv.server.reload import LOOK_SECONDS, Reloader, WatchedFiles
from raftkv.server.settings import ServerSettings
from raftkv.server.tls import PeerTls, ServerTls
from raftkv.server.tokens import Tokens

_LOG: Final = logging.getLogger(__name__)

# Who is refused usually tries for ever.
TELL_AGAIN_SECONDS: Final = 30.0


class SecurityError(Exception):
    """A file that was asked for cannot be used; one sentence for a person."""


class Security:
    """How the listeners and links of a process are protected. Each part is None without files."""

    def __init__(
        self,
        settings: ServerSettings,
        metrics: Metrics,
        on_peer_refused: Callable[[str], None],
    ) -> None:
        """``on_peer_refused`` hears why somebody was not let in at the peer port."""
        tls, peer_tls = settings.tls, settings.peer_tls
        self._metrics = metrics
        self._told_at = float("-inf")  # when a refused client was logged last
        self.clients: Final = None if tls is None else ServerTls(tls, self._on_client_refused)
        self.peers: Final = None if peer_tls is None else PeerTls(peer_tls, on_peer_refused)
        self._tokens = None if settings.token_file is None else Tokens(settings.token_file)
        self._reloader = Reloader(metrics)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def authenticate(self) -> Authenticate | None:
        """Who sent a request; None: nobody is asked."""
        return None if self._tokens is None else self._tokens.authenticate

    def load(self) -> None:
        """Load all files. Raises SecurityError."""
        watched: list[WatchedFiles] = []
        if self.clients is not None:
            watched.append(WatchedFiles("tls", self.clients.files.paths, self.clients.load))
        if self.peers is not None:
            watched.append(WatchedFiles("peer_tls", self.peers.files.paths, self.peers.load))
        if self._tokens is not None:
            watched.append(WatchedFiles("tokens", (self._tokens.path,), self._tokens.load))
        for files in watched:
            try:
                self._reloader.add(files)
            except (OSError, ValueError) as error:
                raise SecurityError(str(error)) from None

    def watch(self) -> None:
        """Look at the files from now on. Call with the event loop running."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            self._timer = loop.call_later(LOOK_SECONDS, look)
            self._reloader.look()

        self._timer = loop.call_later(LOOK_SECONDS, look)

    def warnings(self) -> tuple[str, ...]:
        """What `/v1/status` tells: files that changed and cannot be used."""
        return self._reloader.warnings()

    def _on_client_refused(self, reason: str) -> None:
        """Count it, and not too often tell why: the client sees a closed connection, no more."""
        self._metrics.count_handshake_failed()
        now = time.monotonic()
        if now - self._told_at >= TELL_AGAIN_SECONDS:
            self._told_at = now
            _LOG.warning("TLS with a client failed: %s", reason)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
