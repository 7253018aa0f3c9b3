"""The objects that the operator owns, kept current by one list and watch per kind and namespace.

Called by `main`, which runs the watches, and by `observe`, which reads. A label selector on the
server keeps everyone else's objects out (rule 12). Invariant: a cache that lost its watch says so
by `is_current`, and no pass acts on it until it has listed again (rule 14). A kind that is not
every API server's (PodMonitor) may come and go while the operator runs: its cache is then empty.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from raftkv_operator import names
from raftkv_operator.errors import GoneError, KubeError, NotFoundError
from raftkv_operator.kube import Kube
from raftkv_operator.objects import JsonObject, Kind, labels_of
from raftkv_operator.resources import OPTIONAL_KINDS

logger = logging.getLogger(__name__)

_BACKOFF_MIN_SECONDS = 0.2
_BACKOFF_MAX_SECONDS = 3.0
# How often an absent kind is looked for when no cluster asks for it.
_ABSENT_SECONDS = 300.0

# Called with the namespace and the cluster that an object belongs to.
Wake = Callable[[str, str], None]


class Cache:
    """Objects of one kind, in one namespace or in all."""

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        namespace: str | None,
        wake: Wake,
        *,
        on_served: Callable[[], None] | None = None,
    ) -> None:
        """``on_served`` marks a kind that may be absent; it is called whenever it appears."""
        self.kind = kind
        self.namespace = namespace
        self.is_current = False
        self.is_served = on_served is None  # whether the API server knows the kind
        self._on_served = on_served
        self._is_wanted = asyncio.Event()
        self._kube = kube
        self._wake = wake
        self._items: dict[tuple[str, str], JsonObject] = {}

    def get(self, namespace: str, name: str) -> JsonObject | None:
        """The object, or None."""
        return self._items.get((namespace, name))

    def of_cluster(self, namespace: str, cluster: str) -> list[JsonObject]:
        """The objects that carry the cluster's instance label."""
        return [
            item
            for (where, _), item in sorted(self._items.items())
            if where == namespace and labels_of(item).get(names.LABEL_INSTANCE) == cluster
        ]

    def put(self, item: JsonObject) -> None:
        """Take over an answer of our own write, ahead of the watch."""
        metadata = item["metadata"]
        self._items[(metadata["namespace"], metadata["name"])] = item

    async def run(self) -> None:
        """List, watch, and list again when the watch is lost; until cancelled."""
        backoff_seconds = _BACKOFF_MIN_SECONDS
        while True:
            self._is_wanted.clear()
            try:
                since = await self.list()
                backoff_seconds = _BACKOFF_MIN_SECONDS
                if since is None:
                    await self._wait_until_wanted()
                    continue
                await self._watch(since)
            except GoneError:
                logger.info("watch of %s is too old, listing again", self.kind.plural)
            except KubeError as error:
                logger.warning("watch of %s: %s", self.kind.plural, error)
            self.is_current = False
            # Jitter: the watches of all kinds break together when the API server restarts.
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311
            backoff_seconds = min(backoff_seconds * 2, _BACKOFF_MAX_SECONDS)

    def look_for_kind(self) -> None:
        """Have an absent kind looked for soon: a cluster asks for it."""
        self._is_wanted.set()

    async def _wait_until_wanted(self) -> None:
        try:
            async with asyncio.timeout(_ABSENT_SECONDS):
                await self._is_wanted.wait()
        except TimeoutError:
            return

    async def list(self) -> str | None:
        """Read all objects anew; returns the resourceVersion to watch from, None: no such kind."""
        try:
            items, since = await self._kube.list(
                self.kind, self.namespace, selector=names.MANAGED_BY_SELECTOR
            )
        except NotFoundError:
            if self._on_served is None:
                raise
            self._items = {}
            self.is_served, self.is_current = False, True
            return None
        before, was_served = self._items, self.is_served
        self.is_served = True
        self._items = {
            (item["metadata"]["namespace"], item["metadata"]["name"]): item for item in items
        }
        self.is_current = True
        # Also those that vanished while nobody watched.
        self._wake_owners([*before.values(), *items])
        if self._on_served is not None and not was_served:
            self._on_served()
        return since

    async def _watch(self, since: str) -> None:
        """Follow changes; a watch that the server ends in good order is simply continued."""
        while True:
            async for change in self._kube.watch(
                self.kind, self.namespace, since=since, selector=names.MANAGED_BY_SELECTOR
            ):
                item = change["object"]
                since = item["metadata"]["resourceVersion"]
                if change["type"] == "BOOKMARK":
                    continue
                key = (item["metadata"]["namespace"], item["metadata"]["name"])
                if change["type"] == "DELETED":
                    self._items.pop(key, None)
                else:
                    self._items[key] = item
                self._wake_owners([item])

    def _wake_owners(self, items: Iterable[JsonObject]) -> None:
        owners = {
            (item["metadata"]["namespace"], labels_of(item).get(names.LABEL_INSTANCE))
            for item in items
        }
        for namespace, cluster in owners:
            if cluster is not None:
                self._wake(namespace, cluster)


class Caches:
    """The caches of all kinds and watched namespaces."""

    def __init__(
        self,
        kube: Kube,
        kinds: Iterable[Kind],
        namespaces: Iterable[str],
        wake: Wake,
        *,
        wake_all: Callable[[], None] = lambda: None,
    ) -> None:
        """No namespaces: the whole of Kubernetes is watched.

        ``wake_all`` is called when a kind appears that the API server did not have before.
        """
        scopes: list[str | None] = list(namespaces) or [None]
        self._caches = {
            (kind.name, scope): Cache(
                kube,
                kind,
                scope,
                wake,
                on_served=wake_all if kind in OPTIONAL_KINDS else None,
            )
            for kind in kinds
            for scope in scopes
        }
        self._is_clusterwide = scopes == [None]

    def all(self) -> list[Cache]:
        """Every cache, to be run."""
        return list(self._caches.values())

    def of(self, kind: str, namespace: str) -> Cache | None:
        """The cache that holds ``kind`` in ``namespace``; None when it is not watched."""
        return self._caches.get((kind, None if self._is_clusterwide else namespace))

    @property
    def is_current(self) -> bool:
        """Whether every cache follows its watch."""
        return all(cache.is_current for cache in self._caches.values())
