"""When and to whom a node hands leadership on: while it drains, and when its disk stalls.

Owned by the node class. Holds the wish to drain and the pace; the core does the transfer (thesis
3.10). Source: operator design, rule 15; node design, rule 12.
"""

from raftkv.node.orders import best_successor
from raftkv.raft import NodeId, RawNode, Role

PAUSE_SECONDS = 1.0
# A node that drains takes no leadership (`takes_leadership`): when all drain at once, as those of a
# deleted cluster, each would hand it straight on. Whom this leader asked without success is one of
# them, or cannot be reached.
ASK_AGAIN_SECONDS = 3.0


class HandOver:
    """See the module docstring."""

    def __init__(self) -> None:
        self.is_draining = False
        self._avoid: tuple[NodeId, ...] = ()
        self._not_before = float("-inf")
        self._asked_at: dict[NodeId, float] = {}

    @property
    def takes_leadership(self) -> bool:
        """Whether to campaign when a leader asks for it: it would have to be handed on at once."""
        return not self.is_draining

    def drain(self, avoid: tuple[NodeId, ...], *, draining: bool) -> None:
        """Start or undo the drain; ``avoid`` are members that will restart next."""
        self.is_draining = draining
        self._avoid = avoid

    def run(self, raft: RawNode, now: float, election_ticks: int) -> None:
        """Start a transfer to the most caught-up voter, if this node leads and it is time.

        Rather to one that was heard of within an election timeout, and among those rather to
        one that is not to be avoided, but to another if there is no such. Nobody is asked twice
        in a while: each transfer that fails stops the writes for an election timeout.
        """
        if raft.role is not Role.LEADER or raft.transferee is not None or now < self._not_before:
            return
        asked = {peer for peer, at in self._asked_at.items() if now - at < ASK_AGAIN_SECONDS}
        avoid = (*self._avoid, *asked)
        target = best_successor(raft, election_ticks, avoid, may_be_silent=True)
        if target is not None and target not in asked:
            self._not_before = now + PAUSE_SECONDS
            self._asked_at[target] = now
            raft.transfer_leader(target)
