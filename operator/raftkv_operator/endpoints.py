"""Since when clients are routed to a pod, or no longer are: read from the EndpointSlices.

Asked by `observe` in each pass. What the proxies of all machines route to is in the EndpointSlices
of the client Service, and a pod's readiness reaches them a moment later; how late, nobody can tell
from the pod (rules 18 and 19). A slice does not say since when an address is in it, so that is kept
here, from the first pass that saw it. A new operator knows nothing and so waits once more: this
memory can make it slower, and never too fast.
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.clusters import ClusterKey
from raftkv_operator.objects import JsonObject, labels_of


class Routing(Struct, frozen=True):
    """Whether clients are routed to a pod, and for how long that was seen."""

    is_routed: bool = False
    seconds: float = 0.0


class _Seen(Struct, frozen=True):
    is_routed: bool
    since: float  # by the monotonic clock, in seconds


class Endpoints:
    """What was last seen of each pod, by cluster and by the pod's uid."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: dict[ClusterKey, dict[str, _Seen]] = {}

    def look(
        self, key: ClusterKey, pods: Iterable[JsonObject], slices: Iterable[JsonObject]
    ) -> Mapping[str, Routing]:
        """The routing of each of ``pods`` by its uid; ``slices`` are all that the cluster has."""
        now = self._monotonic()
        known = self._seen.get(key, {})
        routed = routed_to(key.name, slices)
        current: dict[str, _Seen] = {}
        for pod in pods:
            uid = pod["metadata"]["uid"]
            is_routed = not routed.isdisjoint((uid, *_addresses(pod)))
            last = known.get(uid)
            is_same = last is not None and last.is_routed is is_routed
            current[uid] = last if last is not None and is_same else _Seen(is_routed, now)
        self._seen[key] = current
        return {uid: Routing(seen.is_routed, now - seen.since) for uid, seen in current.items()}

    def forget(self, key: ClusterKey) -> None:
        """Drop what is known of a deleted cluster."""
        self._seen.pop(key, None)


def routed_to(cluster: str, slices: Iterable[JsonObject]) -> set[str]:
    """Uids of pods, and addresses, that the client Service routes to.

    The headless Service is none of them: it names every pod, ready or not.
    """
    service = names.client_service(cluster)
    routed: set[str] = set()
    for item in slices:
        if labels_of(item).get(names.LABEL_SERVICE) != service:
            continue
        for endpoint in item.get("endpoints") or ():
            # Left out means ready, by the definition of the field.
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            routed.update(endpoint.get("addresses") or ())
            uid = (endpoint.get("targetRef") or {}).get("uid")
            if uid is not None:
                routed.add(uid)
    return routed


def _addresses(pod: JsonObject) -> list[str]:
    status = pod.get("status", {})
    several = [item["ip"] for item in status.get("podIPs") or () if "ip" in item]
    return several or [ip for ip in (status.get("podIP"),) if ip]
