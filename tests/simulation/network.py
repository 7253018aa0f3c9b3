"""The simulated network: frames that are late, lost, doubled, reordered or cut off.

Frames cross it as bytes, through the real codec. A link is directed, so that a cut may be
one-sided. Like TCP, a link tells its sender when it broke, sooner or later, and when it is back.

Consensus messages get worse weather than TCP ever makes: they may be doubled, and arrive after
the link broke, even in the receiver's next life, or long after they were sent. What is forwarded
relies on what TCP promises: once at most, and only over the connection it was sent on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from raftkv.node.events import Event, FrameReceived, PeerDown, PeerUp
from raftkv.node.messages import ForwardOrder, ForwardReplies, ForwardWrites, OrderReply, PeerFrame
from raftkv.raft.messages import NodeId
from tests.simulation.world import World

_ONCE = ForwardWrites | ForwardReplies | ForwardOrder | OrderReply

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[PeerFrame] = msgspec.msgpack.Decoder(PeerFrame)


_KEPT_MAX = 40  # frames that may come again


@dataclass(frozen=True)
class Weather:
    """How bad the network is: probabilities for each frame, delays in seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_min_seconds: float = 0.0001
    delay_max_seconds: float = 0.002
    clog: float = 0.0  # a frame that takes up to a second
    ancient: float = 0.0  # with a frame comes another one, from any time before


class Network:
    """Carries frames between members, by id."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self.weather = weather
        self._deliver: dict[NodeId, Callable[[Event], None]] = {}
        self._cut: set[tuple[NodeId, NodeId]] = set()
        self._links: dict[tuple[NodeId, NodeId], int] = {}  # links that are up: generation
        self._clogged_until: dict[tuple[NodeId, NodeId], float] = {}
        self._is_cleared = False
        self._slow: NodeId | None = None
        self._thin_bytes_per_second: dict[NodeId, float] = {}
        self._busy_until: dict[tuple[NodeId, NodeId], float] = {}  # links of a thin pipe
        # What a member sent until then and is not there yet went with its machine.
        self._lost_until: dict[NodeId, float] = {}
        self._kept: list[tuple[tuple[NodeId, NodeId], bytes]] = []
        self.ancient_count = 0  # frames that came again, however old
        self._generation = 0

    def attach(self, member: NodeId, deliver: Callable[[Event], None]) -> None:
        """A process came up under this id."""
        self._deliver[member] = deliver
        for other in sorted(self._deliver):
            if other != member:
                self._connect(member, other)
                self._connect(other, member)

    def detach(self, member: NodeId) -> None:
        """The process is gone, perhaps with what it had sent; connections to it are reset."""
        if self._deliver.pop(member, None) is None:
            return  # it never got so far as to be attached
        if self._world.chance(0.5):
            self._lost_until[member] = self._world.now
        for link in sorted(self._links):
            if member in link:
                self._break(link)

    def forget(self, member: NodeId) -> None:
        """What it sent went with its machine, which is lost for good."""
        self._lost_until[member] = self._world.now
        self._kept = [kept for kept in self._kept if kept[0][0] != member]

    def cut(self, pairs: set[tuple[NodeId, NodeId]]) -> None:
        """Let exactly these directed pairs be unable to talk, and heal all others."""
        self._cut = set(pairs)
        for link in sorted(self._links):
            if link in self._cut:
                self._break(link)
        for sender in sorted(self._deliver):
            for receiver in sorted(self._deliver):
                if sender != receiver:
                    self._connect(sender, receiver)

    def clog(self, link: tuple[NodeId, NodeId], seconds: float) -> None:
        """Hold back what this directed pair says, for so long; not once all was cleared."""
        if self._is_cleared:
            return
        self._clogged_until[link] = self._world.now + seconds

    def slow_down(self, member: NodeId | None) -> None:
        """Let all frames from and to one member (None: nobody) take 25 to 125 ms longer."""
        self._slow = member

    def narrow(self, member: NodeId, bytes_per_second: float | None) -> None:
        """Bound what each link of a member carries; None: not any more."""
        if bytes_per_second is None:
            self._thin_bytes_per_second.pop(member, None)
        else:
            self._thin_bytes_per_second[member] = bytes_per_second

    def clear(self, weather: Weather) -> None:
        """End all cuts, clogs and bottlenecks, and forget what could come again."""
        self.weather = weather
        self._is_cleared = True
        self._clogged_until.clear()
        self._thin_bytes_per_second.clear()
        self._busy_until.clear()
        self._kept.clear()
        self._slow = None
        self.cut(set())

    def send(self, frame: PeerFrame) -> None:
        """Carry a frame, or lose it."""
        link = (frame.sender, frame.receiver)
        generation = self._links.get(link)
        if generation is None:
            return
        weather, world = self.weather, self._world
        data = _ENCODER.encode(frame)
        is_once = any(isinstance(m, _ONCE) for m in frame.messages)
        connection = generation if is_once else None
        copies = 2 if world.chance(weather.duplicate) and not is_once else 1
        for _ in range(copies):
            if world.chance(weather.loss):
                continue
            delay = self._delay(link, len(data))
            world.after(delay, partial(self._arrive, link, connection, data, world.now))
        if weather.ancient and not is_once and world.chance(weather.ancient):
            self._repeat(link, data)

    def _delay(self, link: tuple[NodeId, NodeId], size_bytes: int) -> float:
        """Seconds that a frame of this size takes now."""
        weather, world = self.weather, self._world
        delay = world.rng.uniform(weather.delay_min_seconds, weather.delay_max_seconds)
        if world.chance(weather.clog):
            delay += world.rng.uniform(0.0, 1.0)
        if self._slow in link:
            delay += world.rng.uniform(0.025, 0.125)
        for member in link:
            rate = self._thin_bytes_per_second.get(member)
            if rate is not None:
                begins = max(world.now, self._busy_until.get(link, 0.0))
                self._busy_until[link] = begins + size_bytes / rate
                delay += self._busy_until[link] - world.now
        return max(delay, self._clogged_until.get(link, 0.0) - world.now)

    def _repeat(self, link: tuple[NodeId, NodeId], data: bytes) -> None:
        """Let some earlier frame arrive once more, and remember this one."""
        world = self._world
        if self._kept:
            place = world.rng.randrange(len(self._kept))
            old_link, old_data = self._kept[place]
            self.ancient_count += 1
            world.after(self._delay(old_link, 0), partial(self._arrive, old_link, None, old_data))
            if len(self._kept) >= _KEPT_MAX:
                self._kept[place] = (link, data)
                return
        self._kept.append((link, data))

    def _arrive(
        self,
        link: tuple[NodeId, NodeId],
        connection: int | None,
        data: bytes,
        sent_at: float = float("inf"),
    ) -> None:
        """``connection``: the only one this may arrive on; None: on whatever is there."""
        if sent_at <= self._lost_until.get(link[0], -1.0):
            return
        if connection is not None and self._links.get(link) != connection:
            return
        deliver = self._deliver.get(link[1])
        if deliver is not None and link not in self._cut:
            deliver(FrameReceived(_DECODER.decode(data)))

    def _connect(self, sender: NodeId, receiver: NodeId) -> None:
        link = (sender, receiver)
        if link in self._links or link in self._cut:
            return
        self._generation += 1
        generation = self._links[link] = self._generation

        def up() -> None:
            if self._links.get(link) == generation and sender in self._deliver:
                self._deliver[sender](PeerUp(receiver))

        self._world.after(self._world.rng.uniform(0.001, 0.3), up)

    def _break(self, link: tuple[NodeId, NodeId]) -> None:
        self._links.pop(link, None)
        sender, receiver = link

        def down() -> None:
            if sender in self._deliver and link not in self._links:
                self._deliver[sender](PeerDown(receiver))

        # A reset is seen at once, a silent cut only after a while.
        self._world.after(self._world.rng.uniform(0.0, 1.0), down)
