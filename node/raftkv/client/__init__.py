"""The client library: an async client for a RaftKV cluster.

    from raftkv.client import Client

    async with Client(["http://127.0.0.1:7400"]) as client:
        await client.put(b"greeting", b"hello")
        item = await client.get(b"greeting")

`Client` has every call of the HTTP API; `compare` and `op` are the parts of transactions;
`ssl_context` is for https. How calls fail is in `raftkv.client.errors`. A guide with samples is
docs/client.md.
"""

from raftkv.client.backup import Backup
from raftkv.client.batch import Batch, Writer
from raftkv.client.client import Client
from raftkv.client.errors import (
    AccessError,
    ClientError,
    CompactedError,
    ConditionFailedError,
    DamagedBackupError,
    EpochChangedError,
    HistoryLostError,
    LeaseLostError,
    LockHeldError,
    LockLostError,
    NotFoundError,
    OutcomeUnknownError,
    RequestFailedError,
    UnreachableError,
)
from raftkv.client.leases import Lease
from raftkv.client.locks import Lock
from raftkv.client.model import (
    NO_LEASE,
    Change,
    Consistency,
    Deleted,
    Event,
    Fence,
    Item,
    LeaseInfo,
    LockInfo,
    Member,
    Page,
    Written,
)
from raftkv.client.tls import ssl_context
from raftkv.client.txn import Txn, TxnResult, compare, op
from raftkv.client.watch import Watch

__all__ = [
    "NO_LEASE",
    "AccessError",
    "Backup",
    "Batch",
    "Change",
    "Client",
    "ClientError",
    "CompactedError",
    "ConditionFailedError",
    "Consistency",
    "DamagedBackupError",
    "Deleted",
    "EpochChangedError",
    "Event",
    "Fence",
    "HistoryLostError",
    "Item",
    "Lease",
    "LeaseInfo",
    "LeaseLostError",
    "Lock",
    "LockHeldError",
    "LockInfo",
    "LockLostError",
    "Member",
    "NotFoundError",
    "OutcomeUnknownError",
    "Page",
    "RequestFailedError",
    "Txn",
    "TxnResult",
    "UnreachableError",
    "Watch",
    "Writer",
    "Written",
    "compare",
    "op",
    "ssl_context",
]
