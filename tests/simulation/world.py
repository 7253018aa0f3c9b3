"""Virtual time: a clock, an agenda of what happens next, and one source of randomness.

Everything that a simulated run does is an action on the agenda; equal times happen in the order
they were scheduled. So a run is a function of its seed, whatever the machine and the hash seed.
"""

import hashlib
import heapq
from collections.abc import Callable
from random import Random


class World:
    """One run: its time, its randomness and its trace."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0.0  # seconds
        self.events = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._digest = hashlib.blake2b(digest_size=16)
        # The end of the trace, for a person who looks at a failure.
        self.recent: list[str] = []

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do ``action`` when ``seconds`` have passed."""
        self._scheduled += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._scheduled, action))

    def step(self) -> bool:
        """Do what comes next; False when nothing does."""
        if not self._agenda:
            return False
        self.now, _, action = heapq.heappop(self._agenda)
        self.events += 1
        action()
        return True

    def run_until(self, time: float) -> None:
        """Do all that comes before ``time``, and what comes first at it or behind it."""
        agenda, pop = self._agenda, heapq.heappop
        while self.now < time and agenda:
            self.now, _, action = pop(agenda)
            self.events += 1
            action()

    def trace(self, line: str) -> None:
        """Note what happened. Two runs of one seed have the same trace, byte for byte."""
        stamped = f"{self.now:12.6f} {line}"
        self._digest.update(stamped.encode())
        self.recent.append(stamped)
        if len(self.recent) > 400:
            del self.recent[:200]

    def digest(self) -> str:
        """A fingerprint of the whole trace so far."""
        return self._digest.hexdigest()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability
