"""The alerts: one table, from which the rules file and the chart's PrometheusRule are made.

Thresholds and ranges are for production. How long a condition must hold (`hold`) may be changed by
the chart's value `prometheusRule.for`, by the alert's name. Clusters are told apart by the label
`job`, as in the dashboards. Each alert has a section in docs/monitoring.md, a unit test in
tests/observability/test_rules.py and a provocation in tests/observability/provocations.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

#: What a job's targets told within the last day, whether they answer now or not. An outage is told
#: for as long: it must not look healed because everybody has been silent for an hour.
_NODES: Final = "max by (job) (last_over_time(raftkv_term[1d]))"
_OPERATORS: Final = "max by (job) (last_over_time(raftkv_operator_reconcile_total[1d]))"


@dataclass(frozen=True)
class Alert:
    """One alerting rule."""

    name: str
    severity: Literal["warning", "critical"]
    hold: str  # Prometheus' `for`
    expr: str
    summary: str
    description: str

    def rule(self, hold: str | None = None) -> dict[str, Any]:
        """As Prometheus reads it; ``hold`` replaces `for`."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold if hold is None else hold,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": f"docs/monitoring.md#{self.name.lower()}",
            },
        }


def _p99(metric: str) -> str:
    rate = f"sum by (job, instance, le) (rate({metric}_bucket[2m]))"
    return f"histogram_quantile(0.99, {rate})"


_FAILED: Final = "sum by (job) (rate(raftkv_proposals_failed_total[2m]))"
_COMMITTED: Final = "sum by (job) (rate(raftkv_proposals_committed_total[2m]))"
# As a node that answers knows it, else as it was known last.
_VOTERS: Final = (
    "(max by (job) (raftkv_voters) or max by (job) (last_over_time(raftkv_voters[1d])))"
)

CLUSTER_ALERTS: Final = (
    Alert(
        "RaftKVNoLeader",
        "critical",
        "1m",
        "raftkv_has_leader == 0 and raftkv_voters > 0",
        "{{ $labels.instance }} of {{ $labels.job }} knows no leader",
        "It serves no linearizable read and takes no write. If all nodes say so, the cluster has"
        " no quorum.",
    ),
    Alert(
        "RaftKVInsufficientMembers",
        "critical",
        "3m",
        f"sum by (job) (up) < floor({_VOTERS} / 2) + 1",
        "{{ $labels.job }} has no quorum: {{ $value }} nodes answer",
        "Fewer nodes answer Prometheus than a quorum needs. The cluster takes no writes.",
    ),
    Alert(
        "RaftKVNodeDown",
        "warning",
        "5m",
        f"up == 0 and on (job) {_NODES}",
        "{{ $labels.instance }} of {{ $labels.job }} does not answer",
        "Prometheus gets no metrics from this node.",
    ),
    Alert(
        "RaftKVQuorumFragile",
        "warning",
        "10m",
        "max by (job) (raftkv_fault_tolerance) < 1 and max by (job) (raftkv_voters) > 2",
        "{{ $labels.job }} bears no further failure",
        "The loss of one more voter would stop a cluster that was built to bear one.",
    ),
    Alert(
        "RaftKVLeaderFlapping",
        "warning",
        "2m",
        "max by (job) (increase(raftkv_leader_changes_total[10m])) >= 3",
        "{{ $labels.job }} changed its leader {{ $value | humanize }} times in 10 minutes",
        "Each change stops writes for about a second. Network, disk or CPU of the leaders are too"
        " slow for the election timeout.",
    ),
    Alert(
        "RaftKVFsyncSlow",
        "warning",
        "10m",
        f"{_p99('raftkv_wal_fsync_seconds')} > 0.5",
        "The disk of {{ $labels.instance }} takes {{ $value | humanizeDuration }} for a write",
        "99th percentile of making a batch of the log durable. Every write of the cluster waits"
        " for the disks of a quorum.",
    ),
    Alert(
        "RaftKVPeerSlow",
        "warning",
        "10m",
        "avg_over_time(raftkv_peer_rtt_seconds[2m]) > 0.15",
        "{{ $labels.instance }} waits {{ $value | humanizeDuration }} for answers of"
        " {{ $labels.peer }}",
        "Mean round trip of heartbeats over 2 minutes. It adds to every write if the peer is"
        " needed for the quorum, and comes near the election timeout.",
    ),
    Alert(
        "RaftKVProposalsFailing",
        "warning",
        "5m",
        f"{_FAILED} / ({_FAILED} + {_COMMITTED}) > 0.05",
        "{{ $value | humanizePercentage }} of the writes of {{ $labels.job }} fail",
        "Writes that were refused or whose outcome is unknown, of all that clients sent.",
    ),
    Alert(
        "RaftKVQuotaNearlyFull",
        "warning",
        "5m",
        "max by (job) (raftkv_logical_bytes / raftkv_quota_bytes) > 0.9",
        "{{ $labels.job }} uses {{ $value | humanizePercentage }} of its quota",
        "Beyond the quota every write that needs room is refused with 507.",
    ),
    Alert(
        "RaftKVLearnerStuck",
        "warning",
        "15m",
        "max by (job) (raftkv_learners) > 0",
        "{{ $labels.job }} has {{ $value }} learners that were not promoted",
        "A learner holds data but does not vote. Usually it is promoted within seconds.",
    ),
    Alert(
        "RaftKVHashMismatch",
        "critical",
        "0m",
        "raftkv_hash_mismatch > 0",
        "{{ $labels.instance }} and a peer hold different data",
        "Two replicas that applied the same entries differ: one of them answers wrongly.",
    ),
    Alert(
        "RaftKVEventLoopLag",
        "warning",
        "5m",
        f"{_p99('raftkv_event_loop_lag_seconds')} > 0.3",
        "{{ $labels.instance }} reacts {{ $value | humanizeDuration }} late",
        "99th percentile of how late timers run. From about an election timeout on, the node loses"
        " its leadership.",
    ),
    Alert(
        "RaftKVSnapshotFailing",
        "warning",
        "10m",
        "raftkv_snapshot_failing == 1",
        "{{ $labels.instance }} cannot make a snapshot",
        "Its log is not cut and grows until the volume is full. The log of the node says why.",
    ),
    Alert(
        "RaftKVReloadFailing",
        "warning",
        "5m",
        "raftkv_reload_failing == 1",
        "{{ $labels.instance }} does not use its changed files ({{ $labels.files }})",
        "Certificates or tokens were changed and cannot be read. The node goes on with the old"
        " ones, until they expire.",
    ),
)

OPERATOR_ALERTS: Final = (
    Alert(
        "RaftKVReconcileStuck",
        "warning",
        "10m",
        "raftkv_operator_cluster_failed_passes > 0",
        "The operator cannot do what {{ $labels.namespace }}/{{ $labels.name }} needs",
        "Every pass over the cluster fails; {{ $value }} so far. Conditions and Events of the"
        " cluster say why.",
    ),
    Alert(
        "RaftKVClusterUnavailable",
        "critical",
        "5m",
        "raftkv_operator_cluster_ready == 0 and raftkv_operator_cluster_replicas > 0",
        "{{ $labels.namespace }}/{{ $labels.name }} is not Available",
        "The operator finds no leader. The condition Available of the cluster says why.",
    ),
    Alert(
        "RaftKVOperatorDown",
        "warning",
        "10m",
        # A pod that is not there is no target, and so has no `up` that could be 0.
        f"{_OPERATORS} unless on (job) up == 1",
        "The RaftKV operator does not answer",
        "Clusters go on serving, but nobody repairs or changes them.",
    ),
)

ALERTS: Final = (*CLUSTER_ALERTS, *OPERATOR_ALERTS)


def rules(holds: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The content of a rules file; ``holds`` replaces `for`, by the alert's name."""
    replaced = holds or {}
    groups = (("raftkv", CLUSTER_ALERTS), ("raftkv-operator", OPERATOR_ALERTS))
    return {
        "groups": [
            {"name": name, "rules": [alert.rule(replaced.get(alert.name)) for alert in alerts]}
            for name, alerts in groups
        ]
    }
