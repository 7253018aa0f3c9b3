"""The orderly end of a node: when it may stop serving (operator design, rule 15).

    serving    From the first moment the node says that it is not ready and every answer closes
               its connection, but its listeners stay open, because endpoints need time to forget
               it; a leader hands leadership on. Ends when that time has passed and the node leads
               nobody any more (or hand-over turned out to be impossible).
    finishing  The listeners are closed, so clients that come back go elsewhere; whoever is
               connected is still answered. Ends when nothing is in flight.

Called by `raftkv.server.process`, which closes everything else when `drain` returns. Both phases
end in bounded time, before Kubernetes would kill the pod.
"""

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, Protocol

from raftkv.node.events import Drained
from raftkv.node.messages import Failure
from raftkv.node.status import ClusterStatus, Status

_LOG: Final = logging.getLogger(__name__)

# Kubernetes kills after 60 s (terminationGracePeriodSeconds): whatever is in flight, end before.
DRAIN_SECONDS_LIMIT: Final = 50.0
# How long a leader keeps trying to find a successor once everything else is done.
HAND_OVER_SECONDS_MAX: Final = 3.0
# How long requests in flight are waited for after somebody asked twice.
HURRY_SECONDS_MAX: Final = 2.0
# What connected just before the listeners closed gets so long to say what it wants.
FINISH_SECONDS_MIN: Final = 0.1
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to know when it is asked whether the node may stop serving."""

    told_seconds: float  # since the process was told to end
    # Since the drain began: before the process was told, if an administrator asked for it.
    drained_seconds: float
    finishing_seconds: float | None  # since the listeners were closed; None: they are open
    hurried_seconds: float | None  # since a second signal came; None: none did
    in_flight: int  # requests and answers that have not left
    is_leader: bool
    has_peers: bool  # other voters, one of which could lead


def may_stop_listening(moment: Moment, drain_seconds: float) -> bool:
    """Whether the node may close its listeners now."""
    if moment.hurried_seconds is not None or moment.told_seconds >= DRAIN_SECONDS_LIMIT:
        return True
    if moment.drained_seconds < drain_seconds:
        return False
    leads_others = moment.is_leader and moment.has_peers
    return not leads_others or moment.drained_seconds >= drain_seconds + HAND_OVER_SECONDS_MAX


def may_end(moment: Moment) -> bool:
    """Whether the node may close its connections now."""
    if moment.finishing_seconds is None:
        return False
    if moment.told_seconds >= DRAIN_SECONDS_LIMIT:
        return True
    if moment.hurried_seconds is not None and moment.hurried_seconds >= HURRY_SECONDS_MAX:
        return True
    return moment.in_flight == 0 and moment.finishing_seconds >= FINISH_SECONDS_MIN


class DrainingNode(Protocol):
    """What a drain needs of the driver."""

    @property
    def draining_since(self) -> float | None:
        """Loop time at which the drain began; None: the node is not draining."""
        ...

    @property
    def pending_count(self) -> int:
        """Requests that wait for the node's answer."""
        ...

    @property
    def stopped(self) -> asyncio.Future[str]:
        """Done when the node can no longer go on."""
        ...

    def drain(self, *, draining: bool) -> Awaitable[Drained | Failure]:
        """Start the drain."""
        ...

    def status(self) -> Status:
        """The node, now."""
        ...

    def cluster(self) -> ClusterStatus:
        """The configuration, now."""
        ...


class Hurry:
    """Remembers since when somebody does not want to wait any longer."""

    def __init__(self) -> None:
        self.since: float | None = None

    def begin(self) -> None:
        """Called at the second signal."""
        if self.since is None:
            self.since = asyncio.get_running_loop().time()


class Listeners(Protocol):
    """What a drain needs of the HTTP listeners."""

    def in_flight(self) -> int:
        """Requests, and answers that have not left this process."""
        ...

    def close(self) -> None:
        """Accept no further connection; those that exist go on."""
        ...


async def drain(
    node: DrainingNode, listeners: Listeners, drain_seconds: float, hurry: Hurry
) -> None:
    """Take the node out of service; returns when its connections may be closed.

    ``drain_seconds`` counts from an earlier start of the drain, if an administrator asked for
    one. A node that never was ready does not wait: nobody was ever sent to it.
    """
    clock = asyncio.get_running_loop().time
    told_at = clock()
    finishing_at: float | None = None
    if not node.status().caught_up:
        drain_seconds = 0.0
    _LOG.info("draining for %g s", drain_seconds)
    while not node.stopped.done():
        if node.draining_since is None:  # also when somebody undoes it meanwhile
            await node.drain(draining=True)
        now = clock()
        moment = Moment(
            told_seconds=now - told_at,
            drained_seconds=now - (node.draining_since or now),
            finishing_seconds=None if finishing_at is None else now - finishing_at,
            hurried_seconds=None if hurry.since is None else now - hurry.since,
            in_flight=listeners.in_flight() + node.pending_count,
            is_leader=node.status().role == "leader",
            has_peers=len(node.cluster().voters) > 1,
        )
        if finishing_at is None and may_stop_listening(moment, drain_seconds):
            listeners.close()
            finishing_at = now
        elif may_end(moment):
            return
        await asyncio.sleep(POLL_SECONDS)
