"""Compares what replicas hold: their chain hashes at equal indexes (node design, rule 23).

A follower tells its newest hash to the leader about once a second until it is answered; the leader
answers with its own of that index. So both notice a difference, which means that the same log led
to different states: a bug, or memory or a disk that lies. It is counted, reported and shown; no
node ends for it, since a node cannot know which of two is right, and two differing replicas are
still one more than none. What a person can do is in docs/state-machine.md.

Owned by the node class; holds no clock.
"""

from collections.abc import Callable
from typing import Final

from raftkv.kv.store import Store
from raftkv.node.events import Diverged
from raftkv.node.messages import PeerMessage, StateHash
from raftkv.raft import NodeId
from raftkv.raft.messages import Index

# Between two attempts to tell the leader.
_PAUSE_TICKS: Final = 50
_REMEMBERED_MAX: Final = 64


class HashCheck:
    """See the module docstring."""

    def __init__(
        self, send: Callable[[NodeId, PeerMessage], None], report: Callable[[Diverged], None]
    ) -> None:
        self._send = send
        self._report = report
        self._ticks = 0
        # What the leader answered: by whom, and up to which index.
        self._compared: tuple[NodeId, Index] | None = None
        #: Where this node and a peer were found to differ, each once; the oldest may be forgotten.
        self.mismatches: dict[tuple[NodeId, Index], None] = {}
        self.mismatch_count = 0

    def tick(self, store: Store, leader: NodeId | None, own_id: NodeId) -> None:
        """A tick passed: a follower may have something to tell."""
        self._ticks += 1
        if self._ticks < _PAUSE_TICKS:
            return
        self._ticks = 0
        if leader in (None, own_id) or not store.hashes:
            return
        assert leader is not None
        index, chain_hash = store.hashes[-1]
        if self._compared != (leader, index):
            self._send(leader, StateHash(index, chain_hash, is_answer=False))

    def received(self, store: Store, sender: NodeId, message: StateHash) -> None:
        """A peer tells its hash. One of an index that is not kept here (yet) is ignored."""
        own = dict(store.hashes).get(message.index)
        if own is None:
            return
        if own != message.chain_hash:
            self._differs(sender, message.index)
        if message.is_answer:
            self._compared = (sender, message.index)
        else:
            self._send(sender, StateHash(message.index, own, is_answer=True))

    def differs_from(self, peer: NodeId) -> bool:
        """Whether a difference to this peer was found since this process began."""
        return any(found == peer for found, _ in self.mismatches)

    def _differs(self, peer: NodeId, index: Index) -> None:
        if (peer, index) in self.mismatches:
            return
        if len(self.mismatches) >= _REMEMBERED_MAX:
            del self.mismatches[next(iter(self.mismatches))]
        self.mismatches[peer, index] = None
        self.mismatch_count += 1
        self._report(Diverged(peer, index))
