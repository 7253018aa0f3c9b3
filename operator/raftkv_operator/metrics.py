"""The operator's own metrics and its liveness, on one small HTTP listener.

Called by `reconcile` (counts) and `main` (serves). Labels are namespaces and names of clusters.
"""

from importlib.metadata import version

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector

from raftkv_operator.api import Cluster, ConditionStatus, ConditionType, Status
from raftkv_operator.clusters import ClusterKey

_LABELS = ("namespace", "name")


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # series that nobody graphs
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build_info = Gauge(
            "raftkv_operator_build_info",
            "Always 1; the label tells.",
            ["version"],
            registry=self.registry,
        )
        build_info.labels(version("raftkv")).set(1)
        self.reconcile_total = Counter(
            "raftkv_operator_reconcile_total", "Passes over a cluster.", registry=self.registry
        )
        self.reconcile_errors_total = Counter(
            "raftkv_operator_reconcile_errors_total",
            "Passes that ended in an error.",
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "raftkv_operator_reconcile_seconds", "Duration of a pass.", registry=self.registry
        )
        self._api_requests = Counter(
            "raftkv_operator_api_requests_total",
            "Requests to the API server, without those of kopf's one watch.",
            ["verb"],
            registry=self.registry,
        )
        self._ready = Gauge(
            "raftkv_operator_cluster_ready",
            "1 while the cluster is Available.",
            _LABELS,
            registry=self.registry,
        )
        self._members = Gauge(
            "raftkv_operator_cluster_members",
            "Members of the cluster.",
            _LABELS,
            registry=self.registry,
        )
        self._fault_tolerance = Gauge(
            "raftkv_operator_cluster_fault_tolerance",
            "Voters that may still be lost.",
            _LABELS,
            registry=self.registry,
        )
        self._replicas = Gauge(
            "raftkv_operator_cluster_replicas",
            "Voters that the spec asks for; 0: hibernated.",
            _LABELS,
            registry=self.registry,
        )
        self._condition = Gauge(
            "raftkv_operator_cluster_condition",
            "1 while the condition is True.",
            (*_LABELS, "type"),
            registry=self.registry,
        )
        self._failed_passes = Gauge(
            "raftkv_operator_cluster_failed_passes",
            "Passes over the cluster that failed since the last one that did not.",
            _LABELS,
            registry=self.registry,
        )

    def count_api_request(self, verb: str) -> None:
        """The API server is asked something."""
        self._api_requests.labels(verb).inc()

    def count_failed_pass(self, key: ClusterKey) -> None:
        """A pass ended in an error, or could not do all it wanted."""
        self._failed_passes.labels(*key).inc()

    def report_good_pass(self, key: ClusterKey) -> None:
        """A pass did all it wanted, which may be to wait."""
        self._failed_passes.labels(*key).set(0)

    def report(self, cluster: Cluster, status: Status) -> None:
        """Show the status of a cluster."""
        labels = (cluster.namespace, cluster.name)
        available = status.condition(ConditionType.AVAILABLE)
        is_ready = available is not None and available.status is ConditionStatus.TRUE
        self._ready.labels(*labels).set(is_ready)
        self._members.labels(*labels).set(len(status.members))
        self._fault_tolerance.labels(*labels).set(status.fault_tolerance or 0)
        self._replicas.labels(*labels).set(cluster.spec.replicas)
        for kind in ConditionType:
            condition = status.condition(kind)
            holds = condition is not None and condition.status is ConditionStatus.TRUE
            self._condition.labels(*labels, str(kind)).set(holds)

    def forget(self, key: ClusterKey) -> None:
        """Drop the series of a deleted cluster."""
        for gauge in (
            self._ready,
            self._members,
            self._fault_tolerance,
            self._replicas,
            self._condition,
            self._failed_passes,
        ):
            gauge.remove_by_labels({"namespace": key.namespace, "name": key.name})


def build_app(metrics: Metrics) -> web.Application:
    """``/metrics`` and ``/livez``; that the loop answers is all that liveness means here."""

    async def serve_metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry),
            headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4},
        )

    async def serve_livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/metrics", serve_metrics)
    app.router.add_get("/livez", serve_livez)
    return app
