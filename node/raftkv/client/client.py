"""The client: all groups of calls in one class."""

from raftkv.client.backup import BackupCalls
from raftkv.client.batch import BatchCalls
from raftkv.client.cluster import ClusterCalls
from raftkv.client.keys import KeyCalls
from raftkv.client.leases import LeaseCalls
from raftkv.client.locks import LockCalls
from raftkv.client.ranges import RangeCalls
from raftkv.client.watch import WatchCalls


class Client(
    KeyCalls,
    RangeCalls,
    BatchCalls,
    WatchCalls,
    LeaseCalls,
    LockCalls,
    ClusterCalls,
    BackupCalls,
):
    """An async client of a cluster: ``async with Client(["http://127.0.0.1:7400"]) as client``.

    One client serves any number of tasks; it belongs to one event loop. Calls go to any endpoint
    that answers, and are tried again until ``timeout_seconds`` are over where that is safe: a
    write carries an Idempotency-Key, so that nodes do it once however often it arrives.
    """
