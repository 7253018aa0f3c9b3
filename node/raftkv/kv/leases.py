"""Leases: keys, and a lock, that end together when nobody keeps the lease alive.

Called by `raftkv.kv.execute`. A lease is over when log time reaches its end, but it ends only by a
command: `Expire`, which the leader proposes and which is checked again here, or `RevokeLease`
(rule 21). Until then a keepalive still saves it.
"""

from raftkv.kv.commands import Expire, GrantLease, KeepLeaseAlive, RevokeLease
from raftkv.kv.keys import remove_all
from raftkv.kv.locks import pass_on
from raftkv.kv.outcomes import LeaseForbidden, LeaseGranted, LeaseNotFound, LeaseRevoked
from raftkv.kv.records import Lease
from raftkv.kv.slice import Slice


def grant(slice_: Slice, command: GrantLease) -> LeaseGranted:
    """Make a lease without keys."""
    lease = slice_.add_lease(command.ttl_ms, command.keys_max)
    return LeaseGranted(slice_.revision, lease, command.ttl_ms)


def keep_alive(slice_: Slice, command: KeepLeaseAlive) -> LeaseGranted | LeaseNotFound:
    """Let a lease live for its whole ttl again."""
    known = slice_.lease(command.lease)
    if known is None:
        return LeaseNotFound(slice_.revision)
    slice_.renew_lease(command.lease, known)
    return LeaseGranted(slice_.revision, command.lease, known.ttl_ms)


def revoke(slice_: Slice, command: RevokeLease) -> LeaseRevoked | LeaseNotFound | LeaseForbidden:
    """End a lease; with a prefix, only if its keys and the name of its lock begin with that."""
    known = slice_.lease(command.lease)
    if known is None:
        return LeaseNotFound(slice_.revision)
    keys = slice_.attached(command.lease)
    if command.prefix:
        names = (*keys, known.lock) if known.lock else keys
        if not all(name.startswith(command.prefix) for name in names):
            return LeaseForbidden(slice_.revision)
    _end(slice_, command.lease, known, keys)
    return LeaseRevoked(slice_.revision, len(keys))


def expire(slice_: Slice, command: Expire) -> LeaseRevoked:
    """End a lease if it is over; it may have been kept alive or revoked since it was due."""
    known = slice_.lease(command.lease)
    if known is None or known.ends_at_ms > slice_.log_time_ms:
        return LeaseRevoked(slice_.revision, 0)
    keys = slice_.attached(command.lease)
    _end(slice_, command.lease, known, keys)
    return LeaseRevoked(slice_.revision, len(keys))


def end_of_lock(slice_: Slice, lease: int) -> None:
    """The lock that ``lease`` is for was given back: the lease ends with its keys."""
    known = slice_.lease(lease)
    assert known is not None, "a held lock has a lease"
    _end(slice_, lease, known, slice_.attached(lease))


def _end(slice_: Slice, lease: int, known: Lease, keys: list[bytes]) -> None:
    # First, so that nothing is counted for it any more while its keys go.
    slice_.drop_lease(lease, known)
    remove_all(slice_, keys)
    if known.lock:
        pass_on(slice_, known.lock)
