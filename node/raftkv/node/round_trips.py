"""How long peers take to echo a heartbeat: for metrics and status only.

Owned by the node class, which shows it every message it sends or receives.
"""

from raftkv.node.messages import PeerMessage
from raftkv.raft import Heartbeat, HeartbeatResp, NodeId


class RoundTrips:
    """The last round trip of each peer, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[NodeId, float] = {}
        # The newest unanswered one: its term and round, and when it left first.
        self._sent: dict[NodeId, tuple[tuple[int, int], float]] = {}

    def sent(self, message: PeerMessage, now: float) -> None:
        """A message leaves. A heartbeat that repeats a round does not restart its clock."""
        if type(message) is Heartbeat:
            name = (message.term, message.round)  # rounds begin anew in every term
            known = self._sent.get(message.receiver)
            if known is None or known[0] != name:
                self._sent[message.receiver] = (name, now)

    def received(self, message: PeerMessage, now: float) -> None:
        """A message arrived."""
        if type(message) is HeartbeatResp:
            known = self._sent.get(message.sender)
            if known is not None and known[0] == (message.term, message.round):
                self.seconds[message.sender] = now - known[1]
                del self._sent[message.sender]
