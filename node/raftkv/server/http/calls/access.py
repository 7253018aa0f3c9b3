"""What a request touches beyond what it names: the lock of a fence, the keys of a lease.

A lease is known by its keys alone, so a token that is limited to prefixes makes the node look them
up. What is attached between the look and the write is judged by `RevokeLease` itself at apply;
keeping a lease alive, or attaching one more own key to it, tells and takes nothing of others.
"""

from collections.abc import Callable, Sequence

from raftkv.node.events import GetLease, LeaseFound
from raftkv.node.messages import Failure
from raftkv.server.http.authorisation import (
    Grant,
    ReadKey,
    ReadLease,
    Role,
    WriteLease,
    allows,
    authorise,
)
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import Guards
from raftkv.server.http.problems import FORBIDDEN, Refused, problem_of
from raftkv.server.http.reading import LINEARIZABLE
from raftkv.server.http.render import StreamBroken


def authorise_fence(request: Request, guards: Guards | None) -> None:
    """A fence tells whether a lock is held, so its name must be within what may be read."""
    if guards is not None and guards.fence is not None:
        authorise(request, ReadKey(guards.fence[0]))


async def authorise_lease(
    at: Endpoint, request: Request, lease: int, access: type[ReadLease | WriteLease]
) -> tuple[bytes, ...]:
    """Refuse with 403 unless all keys of ``lease`` are within the token's grants.

    The keys, if they had to be looked up. A lease that does not exist has none.
    """
    identity = request.identity
    if identity is None:
        return ()
    authorise(request, access(()))
    if has_every_prefix(identity.grants(), access):
        return ()
    found = await at.read(GetLease(lease), LINEARIZABLE, LeaseFound)
    if isinstance(found, Failure):
        problem = problem_of(found)
        raise Refused(problem.kind, problem.detail)
    keys = () if found.found.lease is None else found.found.lease.keys
    authorise(request, access(keys))
    return keys


def has_every_prefix(grants: Sequence[Grant], access: type[ReadLease | WriteLease]) -> bool:
    """Whether no key could be beyond the grants."""
    return any(not grant.prefix and allows([grant], access(())) for grant in grants)


def still_allowed(check: Callable[[], None]) -> None:
    """Break off a long answer, the status of which is sent, once ``check`` raises Refused."""
    try:
        check()
    except Refused as refused:
        raise StreamBroken(refused.problem.detail) from None


def prefix_to_revoke(request: Request, keys: tuple[bytes, ...]) -> bytes:
    """The prefix that all ``keys`` must still have when the lease is revoked; empty: any."""
    if request.identity is None:
        return b""
    prefixes = [
        grant.prefix
        for grant in request.identity.grants()
        if grant.role >= Role.WRITE and all(key.startswith(grant.prefix) for key in keys)
    ]
    if not prefixes:
        raise Refused(FORBIDDEN, "the token does not allow this")
    return min(prefixes, key=len)
