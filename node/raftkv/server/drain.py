"""The orderly end of a node: when it may stop serving (operator design, rule 15).

From the first moment the node says that it is not ready, while its listeners stay open and every
answer closes its connection; a leader hands leadership on. `drain` returns when the process may
close its sockets: the time that endpoints need to forget this node has passed, nothing is in
flight, and it leads nobody any more (or hand-over turned out to be impossible).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from raftkv.node.events import Drained, Failure
from raftkv.node.status import ClusterStatus, Status

# Kubernetes kills after 60 s (terminationGracePeriodSeconds): whatever is in flight, end before.
DRAIN_SECONDS_LIMIT: Final = 50.0
# How long a leader keeps trying to find a successor once everything else is done.
HAND_OVER_SECONDS_MAX: Final = 3.0
# How long requests in flight are waited for after somebody asked twice.
HURRY_SECONDS_MAX: Final = 2.0
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to know when it is asked whether the node may stop serving."""

    drained_seconds: float  # since the drain began
    hurried_seconds: float | None  # since a second signal came; None: none did
    in_flight: int  # requests and answers that have not left
    is_leader: bool
    has_peers: bool  # other voters, one of which could lead


def may_end(moment: Moment, drain_seconds: float) -> bool:
    """Whether the node may close its listeners now."""
    if moment.drained_seconds >= DRAIN_SECONDS_LIMIT:
        return True
    if moment.hurried_seconds is not None:
        return moment.in_flight == 0 or moment.hurried_seconds >= HURRY_SECONDS_MAX
    if moment.drained_seconds < drain_seconds or moment.in_flight:
        return False
    leads_others = moment.is_leader and moment.has_peers
    return not leads_others or moment.drained_seconds >= drain_seconds + HAND_OVER_SECONDS_MAX


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


async def drain(
    node: DrainingNode, in_flight: Callable[[], int], drain_seconds: float, hurry: Hurry
) -> None:
    """Take the node out of service; returns when its listeners may be closed.

    ``in_flight`` counts what the HTTP listeners still owe. The time counts from an earlier start
    of the drain, if an administrator asked for one.
    """
    clock = asyncio.get_running_loop().time
    started_at = clock()
    await node.drain(draining=True)
    if node.draining_since is not None:
        started_at = node.draining_since
    while not node.stopped.done():
        now = clock()
        moment = Moment(
            drained_seconds=now - started_at,
            hurried_seconds=None if hurry.since is None else now - hurry.since,
            in_flight=in_flight() + node.pending_count,
            is_leader=node.status().role == "leader",
            has_peers=len(node.cluster().voters) > 1,
        )
        if may_end(moment, drain_seconds):
            return
        await asyncio.sleep(POLL_SECONDS)
