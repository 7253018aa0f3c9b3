"""Ports for the processes of a test, each given out once.

They come from below the range that the kernel gives to outgoing connections: a node that is down
must find its port free when it comes back. Each worker of a parallel run has its own share, since
a port that was found free is taken only later, when its process has started.
"""

import os
import random
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

_PORTS = range(15_000, 30_000)


def share(worker: int, workers: int) -> range:
    """The ports of one of ``workers`` workers, counted from 0."""
    length = len(_PORTS) // workers
    return _PORTS[worker * length : (worker + 1) * length]


def cycle(ports: range, start: int) -> Iterator[int]:
    """Round and round through ``ports`` from place ``start``: none twice within a round."""
    while True:
        yield from ports[start:]
        yield from ports[:start]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_OWN = share(
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)
_next = cycle(_OWN, random.SystemRandom().randrange(len(_OWN)))


def free_port() -> int:
    """A port that nothing listens on and nobody was given."""
    return free_ports([0])


def free_ports(offsets: Sequence[int]) -> int:
    """A first port that is free like those at all ``offsets`` from it, and given to nobody."""
    for first in _next:
        wanted = [first + offset for offset in offsets]
        if wanted[-1] in _OWN and all(map(_is_free, wanted)):
            deque(islice(_next, wanted[-1] - first), maxlen=0)
            return first
    raise AssertionError("the ports go round without end")
