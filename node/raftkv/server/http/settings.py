"""What the HTTP listeners of a node need to know: limits, and what to say of the node."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What the listeners of a node need to know. Times in seconds, sizes in bytes."""

    node_name: str  # visible ASCII: stands in a header of every answer
    value_bytes_max: int = 1 << 20
    watchers_max: int = 10_000
    watch_progress_seconds: float = 8.0  # the API contract promises 10
    # For `/v1/status`, what an administrator should know: always, and since something happened.
    warnings: tuple[str, ...] = ()
    more_warnings: Callable[[], tuple[str, ...]] = tuple
    insecure_listeners: tuple[str, ...] = ()  # beyond loopback and without TLS: their names

    # Limits against slow and greedy clients, who may be hostile or just broken.
    head_seconds_max: float = 10.0  # from connecting, or a head's first byte, to its last
    body_seconds_max: float = 30.0
    unread_seconds_max: float = 30.0  # an answer that the client does not take
    # How long the rest of a refused body is discarded, so that the client sees the refusal.
    linger_seconds: float = 2.0
    # Above the 600 s that the longest-lived common proxies keep their connections.
    keepalive_seconds: float = 620.0
    connections_max: int = 16384

    def __post_init__(self) -> None:
        if not (self.node_name and self.node_name.isascii() and self.node_name.isprintable()):
            raise ValueError(f"a node's name is visible ASCII, not {self.node_name!r}")
