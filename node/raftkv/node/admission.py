"""What a leader takes into its log while room is short (node design, rules 19 and 22).

Apply has no limits but those in its entries, so that replicas agree; room is kept by not letting in
what would use it up. The measure is the store's replicated byte count, and what is proposed and
not applied yet: never the size of a file. What frees room is always let in: deletes, revocations,
compaction; and so is what a holder needs to hold on: keepalives and releases.

Commands stay encoded (rule 27): as long as there is room, nothing is looked at. Pure but for a look
into the store; used by `raftkv.node.requests`.
"""

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Command,
    Fenced,
    GrantLease,
    Increment,
    Once,
    Put,
    ReturnPrevious,
    Txn,
    decode_command,
    is_once,
)
from raftkv.kv.engine import Table
from raftkv.kv.store import Store
from raftkv.node.messages import FailureCode
from raftkv.node.settings import NodeSettings


class Admission:
    """The limits of one node as leader."""

    def __init__(self, settings: NodeSettings) -> None:
        self._quota_bytes = settings.quota_bytes
        self._once_count_max = settings.once_count_max
        self._once_bytes_max = settings.once_bytes_max

    def is_open(self, store: Store, proposed_bytes: int) -> bool:
        """Whether any command may be let in when so much is to be applied, itself included."""
        return (
            store.logical_bytes + proposed_bytes <= self._quota_bytes
            and store.once_count < self._once_count_max
            and store.once_bytes < self._once_bytes_max
        )

    def refuse(self, store: Store, proposed_bytes: int, data: bytes) -> FailureCode | None:
        """Why this command is not let in, if it is not; asked only when not `is_open`."""
        is_room_left = store.logical_bytes + proposed_bytes <= self._quota_bytes
        if is_room_left and not is_once(data):
            return None
        command = decode_command(data)
        if isinstance(command, Once) and self._is_once_refused(store, command):
            return FailureCode.IDEMPOTENCY_FULL
        return FailureCode.QUOTA if not is_room_left and _needs_room(command) else None

    def _is_once_refused(self, store: Store, once: Once) -> bool:
        """A new record is refused; the retry of a request that has one is not."""
        if store.once_count < self._once_count_max and store.once_bytes < self._once_bytes_max:
            return False
        with store.engine.read() as reader:
            return reader.get(Table.ONCE, once.key) is None


def _needs_room(command: Command) -> bool:
    match command:
        case Put() | Append() | Increment() | GrantLease() | AcquireLock():
            return True
        case Once() | Fenced() | ReturnPrevious():
            return _needs_room(command.command)
        case Txn():
            ops = (*command.success, *command.failure)
            return any(isinstance(op, Put | Append | Increment) for op in ops)
        case _:
            return False
