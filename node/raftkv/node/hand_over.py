"""When and to whom a node hands leadership on: while it drains, and when its disk stalls.

Owned by the node class. Holds the wish to drain and the pace; the core does the transfer (thesis
3.10). Source: operator design, rule 15; node design, rule 12.
"""

from raftkv.node.orders import best_successor
from raftkv.raft import NodeId, RawNode, Role

# When every node drains at once (a deleted cluster), each would hand leadership straight on: an
# election every few milliseconds leaves no time for anything else.
PAUSE_SECONDS = 1.0


class HandOver:
    """See the module docstring."""

    def __init__(self) -> None:
        self.is_draining = False
        self._avoid: tuple[NodeId, ...] = ()
        self._not_before = float("-inf")

    def drain(self, avoid: tuple[NodeId, ...], *, draining: bool) -> None:
        """Start or undo the drain; ``avoid`` are members that will restart next."""
        self.is_draining = draining
        self._avoid = avoid

    def run(self, raft: RawNode, now: float, election_ticks: int) -> None:
        """Start a transfer to the most caught-up voter, if this node leads and it is time.

        Rather to one that was heard of within an election timeout, and among those rather to
        one that is not to be avoided, but to another if there is no such.
        """
        if raft.role is not Role.LEADER or raft.transferee is not None or now < self._not_before:
            return
        target = best_successor(raft, election_ticks, self._avoid, may_be_silent=True)
        if target is not None:
            self._not_before = now + PAUSE_SECONDS
            raft.transfer_leader(target)
