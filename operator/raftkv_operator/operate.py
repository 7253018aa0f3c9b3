"""The running operator: everything is wired here, with kopf at the edge.

Called by `raftkv_operator.main`. kopf only tells which RaftKVClusters there are: one `on.event`
handler feeds our own queue. No daemon, no timer, hence no finalizer: a deletion works with the
operator gone (rule 11). Peering is off; the Lease decides who acts (rule 6).
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import kopf
from aiohttp import web
from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.clusters import ClusterKey, Clusters, cluster_key
from raftkv_operator.endpoints import Endpoints
from raftkv_operator.errors import KubeError
from raftkv_operator.execute import Executor
from raftkv_operator.failpoints import Failpoints
from raftkv_operator.kube import WATCH_SECONDS, Kube, connect
from raftkv_operator.lease import Lease
from raftkv_operator.metrics import Metrics, build_app
from raftkv_operator.node_client import HttpNodes
from raftkv_operator.objects import JsonObject
from raftkv_operator.reconcile import Reconciler
from raftkv_operator.repair_limit import RepairLimit
from raftkv_operator.resources import OWNED_KINDS, WATCHED_KINDS
from raftkv_operator.watch import Caches
from raftkv_operator.work_queue import WorkQueue

logger = logging.getLogger(__name__)

_API_WAIT_SECONDS = 2.0


class Settings(Struct, frozen=True, kw_only=True):
    """The options of the command."""

    namespaces: tuple[str, ...]  # empty: all
    own_namespace: str | None  # None: the operator runs outside of Kubernetes
    lease_namespace: str
    identity: str
    metrics_host: str
    metrics_port: int
    resync_seconds: float


async def operate(settings: Settings, failpoints: Failpoints) -> None:
    """Wire everything and run until a signal; then stop in order and give the Lease back."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await connect())
        kube.on_request = metrics.count_api_request
        await _serve_metrics(stack, metrics, settings)
        await _wait_for_api(kube)
        clusters = Clusters()
        lease = Lease(
            kube,
            namespace=settings.lease_namespace,
            identity=settings.identity,
            monotonic=time.monotonic,
        )

        def wake(namespace: str, name: str) -> None:
            if ClusterKey(namespace, name) in clusters:
                queue.wake(ClusterKey(namespace, name))

        def wake_all() -> None:
            for key in clusters.keys():  # noqa: SIM118 - a method of ours, not a dict's
                queue.wake(key)

        kinds = (*OWNED_KINDS, *WATCHED_KINDS)
        caches = Caches(kube, kinds, settings.namespaces, wake, wake_all=wake_all)
        endpoints = Endpoints(time.monotonic)
        nodes = HttpNodes(await stack.enter_async_context(aiohttp.ClientSession()))
        executor = Executor(
            kube=kube,
            caches=caches,
            nodes=nodes,
            clusters=clusters,
            gate=lease,
            repair_limit=RepairLimit(time.monotonic),
            failpoints=failpoints,
        )
        reconciler = Reconciler(
            kube=kube,
            caches=caches,
            nodes=nodes,
            endpoints=endpoints,
            clusters=clusters,
            gate=lease,
            executor=executor,
            metrics=metrics,
            new_cluster_id=lambda: uuid.uuid4().hex,
            now=lambda: datetime.now(UTC),
            operator_namespace=settings.own_namespace,
        )
        queue = WorkQueue(
            reconciler.reconcile,
            resync_seconds=settings.resync_seconds,
            on_error=metrics.reconcile_errors_total.inc,
            rng=random.Random(),  # noqa: S311 - jitter
        )
        stack.push_async_callback(queue.close)
        background = [
            asyncio.create_task(lease.run(), name="lease"),
            *(asyncio.create_task(cache.run(), name=cache.kind.plural) for cache in caches.all()),
        ]
        stack.push_async_callback(_cancel_all, background)

        def forget(key: ClusterKey) -> None:
            clusters.remove(key)
            queue.remove(key)
            metrics.forget(key)
            endpoints.forget(key)

        await _follow_clusters(settings, clusters, queue, forget, background)


async def _wait_for_api(kube: Kube) -> None:
    """Wait for the API server and the CustomResourceDefinition; kopf looks for it only once."""
    while True:
        try:
            if await kube.knows(names.CLUSTER_KIND):
                return
            reason = f"{names.CLUSTER_KIND.plural}.{names.GROUP} is not installed"
        except KubeError as error:
            reason = str(error)
        logger.warning("waiting for Kubernetes: %s", reason)
        await asyncio.sleep(_API_WAIT_SECONDS)


async def _serve_metrics(stack: AsyncExitStack, metrics: Metrics, settings: Settings) -> None:
    runner = web.AppRunner(build_app(metrics), access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, settings.metrics_host, settings.metrics_port).start()


async def _cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Backoffs:
    """kopf's waits after a failed request: for ever, at most 3 s apart (rule 14)."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1.0, 2.0)
        while True:
            yield 3.0


async def _follow_clusters(
    settings: Settings,
    clusters: Clusters,
    queue: WorkQueue,
    forget: Callable[[ClusterKey], None],
    background: list[asyncio.Task[None]],
) -> None:
    """Run kopf until a signal, or until a background task dies of a bug."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**context: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - kopf's protocol
        in_cluster = kopf.login_with_service_account(**context)
        return in_cluster or kopf.login_with_kubeconfig(**context)

    @kopf.on.event(names.GROUP, names.VERSION, names.CLUSTER_KIND.plural, registry=registry)
    async def follow(event: kopf.RawEvent, **_: Any) -> None:  # noqa: ANN401 - kopf's protocol
        body = cast("JsonObject", event["object"])
        key = cluster_key(body)
        if event["type"] == "DELETED":
            forget(key)
        elif clusters.put(body):
            queue.wake(key)

    kopf_settings = kopf.OperatorSettings()
    kopf_settings.posting.enabled = False
    kopf_settings.scanning.disabled = True
    kopf_settings.peering.standalone = True
    kopf_settings.queueing.idle_timeout = 1.0  # also how long a shutdown waits for idle workers
    kopf_settings.queueing.exit_timeout = 0.5
    kopf_settings.networking.error_backoffs = _Backoffs()
    kopf_settings.networking.request_timeout = 10
    kopf_settings.watching.server_timeout = WATCH_SECONDS
    kopf_settings.watching.connect_timeout = 10
    kopf_task = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=kopf_settings,
            standalone=True,
            # Left out, kopf asks for the user's name, which a bare number in a pod has not.
            identity=settings.identity,  # type: ignore[arg-type]  # a private NewType of str
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
        )
    )
    done, _ = await asyncio.wait([kopf_task, *background], return_when=asyncio.FIRST_COMPLETED)
    await _cancel_all([kopf_task])
    for task in done:
        task.result()
