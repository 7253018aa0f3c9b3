"""The node's Prometheus metrics: their names, and how they are filled.

Made once for a process. Counters and histograms are filled where the thing happens (handlers,
driver); gauges are set at scrape time from what the node says of itself, so that nothing is
counted twice. Labels never come from keys: every label value is from a closed set, so the number
of series is bounded. Names are a contract (API contract, 'Metrics').
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.process_collector import ProcessCollector

from raftkv.node.events import RoleChanged
from raftkv.node.status import ClusterStatus, State, Status
from raftkv.raft.messages import NodeId
from raftkv.server.histogram import Histogram
from raftkv.server.request_metrics import RequestMetrics

# From a write that the page cache took to a disk in trouble (node design, rule 12).
_DISK_SECONDS: Final = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 20.0,
)  # fmt: skip
_REQUEST_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0,
)  # fmt: skip
_LOOP_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 10.0)

_ROLES: Final = ("leader", "follower", "learner", "pre_candidate", "candidate")


class Metrics:
    """All metrics of one node. Used on the event loop's thread only."""

    def __init__(self, version: str = "") -> None:
        """``version`` is the node's, for `raftkv_build_info`."""
        # A second series for each metric, which nobody graphs.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(name, text, buckets)
            registry.register(made)
            return made

        ProcessCollector(registry=registry)
        gauge("raftkv_build_info", "Always 1; the label tells", "version").labels(version).set(1)

        #: Filled by the driver and the shell.
        self.leader_changes = counter(
            "raftkv_leader_changes_total", "Times this node saw another leader"
        )
        self.wal_fsync_seconds = histogram(
            "raftkv_wal_fsync_seconds",
            "Time to write a batch to the log and make it durable",
            _DISK_SECONDS,
        )
        self.wal_queue_seconds = histogram(
            "raftkv_wal_queue_seconds",
            "Time an entry of the log waited for the disk until its write began",
            _DISK_SECONDS,
        )
        self.commit_seconds = histogram(
            "raftkv_commit_seconds",
            "Time from the proposal of an entry to its commit (leader only)",
            _DISK_SECONDS,
        )
        self.apply_seconds = histogram(
            "raftkv_apply_seconds", "Time of one slice of applying committed entries", _DISK_SECONDS
        )
        self.event_loop_lag_seconds = histogram(
            "raftkv_event_loop_lag_seconds", "How late the event loop ran a timer", _LOOP_SECONDS
        )
        self.gc_pause_seconds = histogram(
            "raftkv_gc_pause_seconds", "Time of one run of the garbage collector", _LOOP_SECONDS
        )
        self._peers_refused = counter(
            "raftkv_peer_connections_refused_total", "Peer connections cut, by reason", "reason"
        )
        self._tls_handshakes_failed = counter(
            "raftkv_tls_handshakes_failed_total",
            "Connections to the listeners of clients and administrators without TLS, or with a"
            " certificate that is not accepted",
        )
        self._reloads = counter(
            "raftkv_reloads_total", "Times that changed files were taken into use", "files"
        )
        self._reload_failing = gauge(
            "raftkv_reload_failing", "Whether files changed, are broken and are not used", "files"
        )
        self._leader: NodeId | None = None

        #: Filled by the HTTP handlers.
        self.proposals_committed = counter(
            "raftkv_proposals_committed_total", "Writes received here and applied"
        )
        self.proposals_failed = counter(
            "raftkv_proposals_failed_total", "Writes received here that failed or are unknown"
        )
        self.watch_lag_seconds = histogram(
            "raftkv_watch_lag_seconds",
            "Time from a change in the store until all live watches were told",
            _REQUEST_SECONDS,
        )
        self.watches_cut = counter(
            "raftkv_watches_cut_total", "Watches ended because their client read too slowly"
        )
        self._watchers = gauge("raftkv_watchers", "Watches and long polls that are served")
        requests = RequestMetrics()
        registry.register(requests)
        #: Count an answered request: its row of the route table, method, status, seconds.
        self.observe_request = requests.observe

        self._idempotency_hits = counter(
            "raftkv_idempotency_hits_total",
            "Answers of this node that told an earlier outcome again",
        )
        self._hits_told = 0  # of what the node counted

        #: Filled at scrape time.
        self._gauges = [
            (gauge(f"raftkv_{name}", text), value) for name, (text, value) in _GAUGES.items()
        ]
        self._roles = _children(gauge("raftkv_role", "1 for the role of this node", "role"), _ROLES)
        self._states = _children(
            gauge("raftkv_state", "1 for the state of this node", "state"),
            tuple(str(state) for state in State),
        )
        self._peer_rtt_seconds = gauge(
            "raftkv_peer_rtt_seconds", "Round trip to a peer (leader only)", "peer"
        )
        self._peer_lag_entries = gauge(
            "raftkv_peer_lag_entries", "Entries a peer is behind (leader only)", "peer"
        )
        self._peer_last_contact_seconds = gauge(
            "raftkv_peer_last_contact_seconds", "Since a peer answered last (leader only)", "peer"
        )

    def watch_frames_dropped(self, sources: Mapping[str, Callable[[], int]]) -> None:
        """Show at each scrape what the ``sources`` counted, each under its reason. Call once."""
        self.registry.register(_FramesDropped(sources))

    def watch_watchers(self, count: Callable[[], int]) -> None:
        """Show at each scrape how many watches and long polls there are."""
        self._watchers.set_function(count)

    def count_peer_refused(self, reason: str) -> None:
        """A peer connection was cut; ``reason`` is from the transport's closed set."""
        self._peers_refused.labels(reason).inc()

    def count_handshake_failed(self) -> None:
        """A client could not be spoken to."""
        self._tls_handshakes_failed.inc()

    def observe_reload(self, files: str, *, loaded: bool, is_failing: bool) -> None:
        """Watched files were looked at; ``files`` is from the process's closed set."""
        self._reloads.labels(files).inc(int(loaded))
        self._reload_failing.labels(files).set(is_failing)

    def observe_role(self, change: RoleChanged) -> None:
        """Count a change of leader; not the moments without one, nor a change of role."""
        if change.leader is not None and change.leader != self._leader:
            self._leader = change.leader
            self.leader_changes.inc()

    def render(self, status: Status, cluster: ClusterStatus) -> bytes:
        """The text of a scrape, with the gauges as ``status`` and ``cluster`` say."""
        for each, value in self._gauges:
            each.set(value(status, cluster))
        for role, gauge in self._roles.items():
            gauge.set(role == status.role)
        for state, gauge in self._states.items():
            gauge.set(state == status.state)
        self._idempotency_hits.inc(max(0, status.idempotency_hits - self._hits_told))
        self._hits_told = status.idempotency_hits
        self._peer_rtt_seconds.clear()
        self._peer_lag_entries.clear()
        self._peer_last_contact_seconds.clear()
        for member in cluster.members:
            if member.id == status.member_id:
                continue
            if member.rtt_seconds is not None:
                self._peer_rtt_seconds.labels(member.name).set(member.rtt_seconds)
            if member.lag_entries is not None:
                self._peer_lag_entries.labels(member.name).set(member.lag_entries)
            if member.last_contact_seconds is not None:
                contact = self._peer_last_contact_seconds.labels(member.name)
                contact.set(member.last_contact_seconds)
        return generate_latest(self.registry)


class _FramesDropped:
    """A counter whose parts are kept where frames are dropped, on the way of every message."""

    def __init__(self, sources: Mapping[str, Callable[[], int]]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Called by the registry."""
        family = CounterMetricFamily(
            "raftkv_peer_frames_dropped", "Frames of peers not handed on", labels=["reason"]
        )
        for reason, count in self._sources.items():
            family.add_metric([reason], count())
        yield family


def _children(gauge: Gauge, values: Iterable[str]) -> dict[str, Gauge]:
    """The children of a gauge with one label; all series are there from the start."""
    return {value: gauge.labels(value) for value in values}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


# By name: the help text, and what a scrape shows of (s)tatus and (c)luster.
_GAUGES: Final[Mapping[str, tuple[str, Callable[[Status, ClusterStatus], float]]]] = {
    "has_leader": ("Whether this node knows a leader", lambda s, _: s.leader is not None),
    "is_leader": (
        "Whether this node leads",
        lambda s, _: s.leader is not None and s.leader == s.member_id,
    ),
    "is_learner": ("Whether this node is a learner", lambda s, _: s.role == "learner"),
    "term": ("Current term", lambda s, _: s.term),
    "commit_index": ("Highest index known to be committed", lambda s, _: s.commit_index),
    "applied_index": ("Highest index applied to the store", lambda s, _: s.applied_index),
    "last_log_index": ("Last index of the log", lambda s, _: s.last_log_index),
    "first_log_index": ("First index of the log in memory", lambda s, _: s.first_log_index),
    "durable_index": ("Highest index on this node's disk", lambda s, _: s.durable_index),
    "voters": ("Voters of the configuration this node knows", lambda _, c: len(c.voters)),
    "learners": ("Learners of the configuration this node knows", lambda _, c: len(c.learners)),
    "is_joint": (
        "Whether the configuration is joint: a change of members is half done",
        lambda _, c: bool(c.voters_outgoing),
    ),
    "fault_tolerance": (
        "Voters that may still be lost (leader only; else NaN)",
        lambda _, c: _or_nan(c.fault_tolerance),
    ),
    "proposals_pending": (
        "Requests waiting for the node's answer",
        lambda s, _: s.pending_requests,
    ),
    "db_bytes": ("Size of the store", lambda s, _: s.db_bytes),
    "keys": ("Keys in the store", lambda s, _: s.keys),
    "revision": ("Revision of the store", lambda s, _: s.revision),
    "compacted_revision": (
        "Oldest revision that can be read; 0: all can",
        lambda s, _: s.compacted_revision,
    ),
    "leases": ("Leases, with those of locks and of single keys", lambda s, _: s.leases),
    "locks": ("Locks that are held", lambda s, _: s.locks),
    "idempotency_records": (
        "Outcomes kept for requests with an idempotency key",
        lambda s, _: s.idempotency_records,
    ),
    "idempotency_bytes": ("Size of these outcomes", lambda s, _: s.idempotency_bytes),
    "logical_bytes": ("What the store holds, as the quota counts it", lambda s, _: s.logical_bytes),
    "quota_bytes": ("Beyond it only writes that make room are taken", lambda s, _: s.quota_bytes),
    "hash_mismatch": (
        "Differences found between this node's state and a peer's",
        lambda s, _: s.hash_mismatches,
    ),
    "snapshot_failing": (
        "Whether the last attempt to make a snapshot failed",
        lambda s, _: bool(s.snapshot_error),
    ),
    "snapshot_age_seconds": (
        "Since this process made or received its newest snapshot; else NaN",
        lambda s, _: _or_nan(s.snapshot_age_seconds),
    ),
    "snapshot_duration_seconds": (
        "Time to make the last snapshot; NaN before the first",
        lambda s, _: _or_nan(s.snapshot_duration_seconds),
    ),
}
