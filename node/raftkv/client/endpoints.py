"""Which endpoint to ask next. No I/O and no clock: the caller passes the time."""

from random import Random
from typing import Final

from yarl import URL

_BACKOFF_SECONDS: Final = 0.05
_BACKOFF_SECONDS_MAX: Final = 1.0


class Endpoint:
    """A node's address, and how it has been doing."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.failures = 0  # since its last good answer
        self.not_before = 0.0  # it is left alone until then, if it can be helped


class EndpointPool:
    """Endpoints in turn: one that answers is kept, one that fails is left alone for a while.

    Back-off is exponential with full jitter: after n failures an endpoint rests for a random
    time up to 50 ms * 2^n, at most 1 s, and at least as long as its Retry-After said.
    """

    def __init__(self, urls: tuple[URL, ...], random: Random) -> None:
        self._endpoints = [Endpoint(url) for url in urls]
        self._random = random
        self._preferred = 0  # index of the endpoint that answered last
        # Where writes go first, when it is known; not always one of the configured endpoints.
        self.leader: Endpoint | None = None

    def __len__(self) -> int:
        return len(self._endpoints)

    def pick(self, now: float, *, for_write: bool = False) -> tuple[Endpoint, float]:
        """The endpoint to ask, and the seconds to wait before."""
        if for_write and self.leader is not None and self.leader.not_before <= now:
            return self.leader, 0.0
        count = len(self._endpoints)
        in_turn = [self._endpoints[(self._preferred + step) % count] for step in range(count)]
        first = min(in_turn, key=lambda endpoint: max(endpoint.not_before, now))
        return first, max(0.0, first.not_before - now)

    def succeeded(self, endpoint: Endpoint) -> None:
        """``endpoint`` answered: stay with it."""
        endpoint.failures = 0
        endpoint.not_before = 0.0
        if endpoint in self._endpoints:
            self._preferred = self._endpoints.index(endpoint)

    def failed(self, endpoint: Endpoint, now: float, retry_after_seconds: float = 0.0) -> None:
        """``endpoint`` could not serve: ask the others first."""
        endpoint.failures += 1
        most = min(_BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2 ** min(endpoint.failures, 10))
        endpoint.not_before = now + max(retry_after_seconds, self._random.uniform(0, most))
        if endpoint is self.leader:
            self.leader = None
        if endpoint in self._endpoints:
            self._preferred = (self._endpoints.index(endpoint) + 1) % len(self._endpoints)

    def learned_leader(self, url: URL | None) -> None:
        """Send writes to ``url`` first; None: wherever reads go."""
        if url is None:
            self.leader = None
            return
        origin = url.origin()
        known = (each for each in self._endpoints if each.url.origin() == origin)
        self.leader = next(known, None) or Endpoint(origin)
