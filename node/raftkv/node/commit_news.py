"""News of a commit that nobody waits for: held back for a moment, as the next entry carries them.

Owned by the node class. A leader that has committed an entry has answered its client; the
followers only need to know so that they apply it, too. Alone the news cost each follower a message,
a turn of its loop and an answer, and the leader two of each. The next Append tells the same, and
whoever writes one key after another sends it within a millisecond. So the news wait for it, or for
anything else that goes to the same peer, or for `NodeSettings.commit_news_seconds` to pass.

To lose, delay or overtake such a message is harmless to the core (`raftkv.raft.rawnode`).
"""

from collections.abc import Callable

from raftkv.node.events import Effect, TellCommitSoon
from raftkv.raft import Append, NodeId


class CommitNews:
    """What is held back, by peer."""

    def __init__(self, seconds: float, emit: Callable[[Effect], None]) -> None:
        self._soon = TellCommitSoon(seconds)
        self._emit = emit
        self._held: dict[NodeId, Append] = {}

    def hold(self, message: Append) -> None:
        """Keep an Append without entries, instead of one that was kept before."""
        if not self._held:
            self._emit(self._soon)
        self._held[message.receiver] = message

    def take(self, peer: NodeId) -> Append | None:
        """What is held for ``peer``: something else is on its way there."""
        return self._held.pop(peer, None)

    def take_all(self) -> list[Append]:
        """All that is held: the time is over."""
        messages = list(self._held.values())
        self._held.clear()
        return messages
