"""The five dashboards. Each is made by a function that says what a person wants to see.

`JOB` is the cluster: dashboards tell clusters apart by the label `job` (docs/monitoring.md).
"""

from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.panels import RATE, Layout, Query, graph, number, quantile, timeline

JOB: Final = '{job="$job"}'
_BAD_AT_ZERO: Final = {None: "red", 1.0: "green"}
_BAD_ABOVE_ZERO: Final = {None: "green", 1.0: "red"}

_ROLES: Final = {
    "0": ("follower", "blue"),
    "1": ("learner", "purple"),
    "2": ("pre-candidate", "yellow"),
    "3": ("candidate", "orange"),
    "4": ("leader", "green"),
}
_UP: Final = {"0": ("down", "red"), "1": ("up", "green")}
_YES_NO: Final = {"0": ("no", "#808080"), "1": ("yes", "blue")}


def cluster() -> Layout:
    """Who leads, what the cluster still bears, how far everybody is."""
    page = Layout(
        "raftkv-cluster",
        "RaftKV / Cluster",
        "Roles, fault tolerance, log positions",
        ["raftkv_term"],
    )
    page.row(
        number(
            "Nodes up",
            "Targets that answer",
            "none",
            Query(f"sum(up{JOB})"),
            thresholds=_BAD_AT_ZERO,
        ),
        number(
            "Leader known",
            "Whether every node that answers knows a leader",
            "none",
            Query(f"min(raftkv_has_leader{JOB})"),
            thresholds=_BAD_AT_ZERO,
            names={"0": ("no", "red"), "1": ("yes", "green")},
        ),
        number(
            "Fault tolerance",
            "Voters that may still be lost, as the leader knows",
            "none",
            Query(f"max(raftkv_fault_tolerance{JOB})"),
            thresholds={None: "red", 0.0: "orange", 1.0: "green"},
        ),
        number("Voters", "In the configuration", "none", Query(f"max(raftkv_voters{JOB})")),
        number("Learners", "In the configuration", "none", Query(f"max(raftkv_learners{JOB})")),
        number("Term", "The highest", "none", Query(f"max(raftkv_term{JOB})")),
        number(
            "Leader changes, 1 h",
            "As the node saw them that saw most",
            "none",
            Query(f"max(increase(raftkv_leader_changes_total{JOB}[1h]))"),
            thresholds={None: "green", 3.0: "orange", 6.0: "red"},
        ),
        number(
            "State hash",
            "Differences found between replicas: anything but 0 needs a person",
            "none",
            Query(f"max(raftkv_hash_mismatch{JOB})"),
            thresholds=_BAD_ABOVE_ZERO,
        ),
        height=4,
    )
    codes = [("learner", 1), ("pre_candidate", 2), ("candidate", 3), ("leader", 4)]
    roles = " + ".join(
        f'{code} * max by (instance) (raftkv_role{{job="$job", role="{role}"}})'
        for role, code in codes
    )
    page.row(
        timeline("Roles", "What each node is", Query(roles, "{{instance}}"), _ROLES),
        timeline(
            "Targets", "Whether Prometheus reaches it", Query(f"up{JOB}", "{{instance}}"), _UP
        ),
    )
    page.row(
        graph(
            "Leader changes",
            "How often each node saw another leader within 10 minutes",
            "none",
            Query(f"increase(raftkv_leader_changes_total{JOB}[10m])", "{{instance}}"),
            limit=3,
        ),
        graph(
            "Term",
            "A term that climbs without a leader is an election that fails",
            "none",
            Query(f"raftkv_term{JOB}", "{{instance}}"),
            minimum=None,
        ),
        graph(
            "Fault tolerance",
            "Voters that may still be lost",
            "none",
            Query(f"max(raftkv_fault_tolerance{JOB})", "fault tolerance"),
            Query(f"max(raftkv_voters{JOB})", "voters"),
            Query(f"max(raftkv_learners{JOB})", "learners"),
            Query(f"max(raftkv_is_joint{JOB})", "joint configuration"),
            minimum=None,
        ),
    )
    page.heading("Log")
    page.row(
        graph(
            "Entries committed",
            "By the node that proposed them as leader; one entry holds all commands of a turn",
            "ops",
            Query(f"rate(raftkv_commit_seconds_count{JOB}[{RATE}])", "{{instance}}"),
        ),
        graph(
            "Committed, not applied",
            "Entries that wait for the state machine",
            "none",
            Query(f"raftkv_commit_index{JOB} - raftkv_applied_index", "{{instance}}"),
        ),
        graph(
            "Peers behind the leader",
            "Entries",
            "none",
            Query(f"max by (peer) (raftkv_peer_lag_entries{JOB})", "{{peer}}"),
        ),
    )
    page.row(
        graph(
            "Round trip to peers",
            "Of the last heartbeat",
            "s",
            Query(f"max by (peer) (raftkv_peer_rtt_seconds{JOB})", "{{peer}}"),
            limit=0.15,
        ),
        graph(
            "Since a peer answered",
            "As the leader knows",
            "s",
            Query(f"max by (peer) (raftkv_peer_last_contact_seconds{JOB})", "{{peer}}"),
        ),
        graph(
            "Frames between nodes not handed on",
            "By reason",
            "ops",
            Query(
                f"sum by (instance, reason) (rate(raftkv_peer_frames_dropped_total{JOB}[{RATE}]))",
                "{{instance}} {{reason}}",
            ),
        ),
    )
    page.heading("Clients")
    page.row(
        graph(
            "Requests by method",
            "Answered requests",
            "reqps",
            Query(f"sum by (method) (rate(raftkv_http_requests_total{JOB}[{RATE}]))", "{{method}}"),
            is_stacked=True,
        ),
        graph(
            "Answers by code",
            "Answered requests",
            "reqps",
            Query(f"sum by (code) (rate(raftkv_http_requests_total{JOB}[{RATE}]))", "{{code}}"),
            is_stacked=True,
        ),
        graph(
            "Writes",
            "Applied, and those that failed or are unknown",
            "ops",
            Query(f"sum(rate(raftkv_proposals_committed_total{JOB}[{RATE}]))", "committed"),
            Query(f"sum(rate(raftkv_proposals_failed_total{JOB}[{RATE}]))", "failed"),
            Query(f"sum(raftkv_proposals_pending{JOB})", "pending (count)"),
        ),
    )
    return page


def latency() -> Layout:
    """Where the time of a request goes: the wait for the disk, the disk, the quorum, the store."""
    page = Layout(
        "raftkv-latency", "RaftKV / Latency", "Where the time of a write goes", ["raftkv_term"]
    )
    stages = (
        ("HTTP write", "raftkv_http_request_seconds", '{job="$job", method=~"PUT|POST|DELETE"}'),
        ("wait for the disk", "raftkv_wal_queue_seconds", JOB),
        ("write and fsync", "raftkv_wal_fsync_seconds", JOB),
        ("proposal to commit", "raftkv_commit_seconds", JOB),
        ("apply", "raftkv_apply_seconds", JOB),
    )
    panels = [
        graph(
            f"Stages of a write, {name}",
            "Stages overlap: the commit holds the wait and the fsync of a quorum",
            "s",
            *(Query(quantile(q, metric, "", where), stage) for stage, metric, where in stages),
        )
        for name, q in (("median", 0.5), ("99th percentile", 0.99))
    ]
    page.row(*panels)
    page.heading("HTTP")
    http = "raftkv_http_request_seconds"
    page.row(
        graph(
            "Requests, median",
            "By method",
            "s",
            Query(quantile(0.5, http, "method", JOB), "{{method}}"),
        ),
        graph(
            "Requests, 99th percentile",
            "By method",
            "s",
            Query(quantile(0.99, http, "method", JOB), "{{method}}"),
        ),
        graph(
            "Requests, 99th percentile by route",
            "Long polls wait on purpose",
            "s",
            Query(quantile(0.99, http, "route, method", JOB), "{{method}} {{route}}"),
        ),
    )
    page.heading("Stages by node, 99th percentile")
    page.row(
        *(
            graph(
                title,
                why,
                "s",
                Query(quantile(0.99, metric, "instance", JOB), "{{instance}}"),
                limit=limit,
            )
            for title, why, metric, limit in (
                (
                    "Wait for the disk",
                    "Of an entry, until its write began",
                    "raftkv_wal_queue_seconds",
                    None,
                ),
                ("Write and fsync", "Of a batch of the log", "raftkv_wal_fsync_seconds", 0.5),
                ("Proposal to commit", "On the leader", "raftkv_commit_seconds", None),
                ("Apply", "Of one slice of entries", "raftkv_apply_seconds", None),
            )
        ),
    )
    page.heading("What makes everything late")
    page.row(
        graph(
            "Event loop late, 99th percentile",
            "A timer ran so much later than it was due",
            "s",
            Query(quantile(0.99, "raftkv_event_loop_lag_seconds", "instance", JOB), "{{instance}}"),
            limit=0.3,
        ),
        graph(
            "Garbage collector",
            "Share of the time",
            "percentunit",
            Query(f"rate(raftkv_gc_pause_seconds_sum{JOB}[{RATE}])", "{{instance}}"),
        ),
        graph(
            "Fsync rate",
            "Writes of the log made durable",
            "ops",
            Query(f"rate(raftkv_wal_fsync_seconds_count{JOB}[{RATE}])", "{{instance}}"),
        ),
        graph(
            "CPU",
            "Cores used by the process",
            "none",
            Query(f"rate(process_cpu_seconds_total{JOB}[{RATE}])", "{{instance}}"),
        ),
    )
    return page


def storage() -> Layout:
    """What is stored, how near the quota is, and whether logs are cut by snapshots."""
    page = Layout(
        "raftkv-storage", "RaftKV / Storage", "Quota, log, snapshots, memory", ["raftkv_term"]
    )
    share = "raftkv_logical_bytes{0} / raftkv_quota_bytes"
    page.row(
        number(
            "Quota used",
            "Beyond it only writes that make room are taken",
            "percentunit",
            Query(f"max({share.format(JOB)})"),
            thresholds={None: "green", 0.75: "orange", 0.9: "red"},
        ),
        number("Keys", "In the store", "short", Query(f"max(raftkv_keys{JOB})")),
        number("Revision", "Of the store", "short", Query(f"max(raftkv_revision{JOB})")),
        number(
            "Oldest revision",
            "That can still be read; 0: all can",
            "short",
            Query(f"max(raftkv_compacted_revision{JOB})"),
        ),
        number(
            "Snapshots fail on",
            "Nodes whose last attempt failed",
            "none",
            Query(f"sum(raftkv_snapshot_failing{JOB})"),
            thresholds=_BAD_ABOVE_ZERO,
        ),
        number(
            "Files not reloaded",
            "Certificates or tokens that were changed and cannot be read",
            "none",
            Query(f"sum(raftkv_reload_failing{JOB}) or vector(0)"),
            thresholds=_BAD_ABOVE_ZERO,
        ),
        height=4,
    )
    page.row(
        graph(
            "Quota used",
            "What the store holds, as the quota counts it",
            "percentunit",
            Query(share.format(JOB), "{{instance}}"),
            limit=0.9,
        ),
        graph(
            "Store",
            "File of the state machine, and what it holds",
            "bytes",
            Query(f"raftkv_db_bytes{JOB}", "{{instance}} file"),
            Query(f"raftkv_logical_bytes{JOB}", "{{instance}} content"),
        ),
        graph("Keys", "In the store", "short", Query(f"raftkv_keys{JOB}", "{{instance}}")),
    )
    page.heading("Log and snapshots")
    page.row(
        graph(
            "Log in memory",
            "Entries",
            "short",
            Query(f"raftkv_last_log_index{JOB} - raftkv_first_log_index + 1", "{{instance}}"),
        ),
        graph(
            "Not on this node's disk yet",
            "Entries",
            "none",
            Query(f"raftkv_last_log_index{JOB} - raftkv_durable_index", "{{instance}}"),
        ),
        graph(
            "Age of the newest snapshot",
            "Made or received by this process",
            "s",
            Query(f"raftkv_snapshot_age_seconds{JOB}", "{{instance}}"),
        ),
        graph(
            "Time to make a snapshot",
            "The last one",
            "s",
            Query(f"raftkv_snapshot_duration_seconds{JOB}", "{{instance}}"),
        ),
    )
    page.heading("Process")
    page.row(
        graph(
            "Memory",
            "Resident; the store's pages count where the kernel keeps them",
            "bytes",
            Query(f"process_resident_memory_bytes{JOB}", "{{instance}}"),
        ),
        graph(
            "Open files",
            "Sockets are files, too",
            "none",
            Query(f"process_open_fds{JOB}", "{{instance}}"),
        ),
        graph(
            "Idempotency records",
            "Outcomes kept for at least 10 minutes",
            "short",
            Query(f"raftkv_idempotency_records{JOB}", "{{instance}}"),
        ),
        graph(
            "Size of idempotency records",
            "Part of what the quota counts",
            "bytes",
            Query(f"raftkv_idempotency_bytes{JOB}", "{{instance}}"),
        ),
        graph(
            "Up for",
            "Since the process began",
            "s",
            Query(f"time() - process_start_time_seconds{JOB}", "{{instance}}"),
        ),
    )
    return page


def watches() -> Layout:
    """Who watches, how late they are told, and what ends by time."""
    page = Layout(
        "raftkv-watches", "RaftKV / Watches and leases", "Watches, leases, locks", ["raftkv_term"]
    )
    page.row(
        graph("Watches", "And long polls", "none", Query(f"raftkv_watchers{JOB}", "{{instance}}")),
        graph(
            "Watchers told, 99th percentile",
            "From the change until all live watches were told",
            "s",
            Query(quantile(0.99, "raftkv_watch_lag_seconds", "instance", JOB), "{{instance}}"),
        ),
        graph(
            "Watches cut",
            "Their clients read too slowly",
            "ops",
            Query(f"rate(raftkv_watches_cut_total{JOB}[{RATE}])", "{{instance}}"),
        ),
    )
    page.row(
        graph(
            "Leases",
            "With those of locks and of single keys",
            "none",
            Query(f"max(raftkv_leases{JOB})", "leases"),
        ),
        graph("Locks", "That are held", "none", Query(f"max(raftkv_locks{JOB})", "locks")),
        graph(
            "Retries answered from the record",
            "Requests with an idempotency key that came again",
            "ops",
            Query(f"rate(raftkv_idempotency_hits_total{JOB}[{RATE}])", "{{instance}}"),
        ),
    )
    routes = '{job="$job", route=~"/v1/(leases|locks|watch).*"}'
    page.row(
        graph(
            "Requests for watches, leases and locks",
            "Answered requests",
            "reqps",
            Query(
                f"sum by (route, method) (rate(raftkv_http_requests_total{routes}[{RATE}]))",
                "{{method}} {{route}}",
            ),
            is_stacked=True,
        ),
    )
    return page


def operator() -> Layout:
    """What the operator says of its clusters, and whether it gets on."""
    page = Layout(
        "raftkv-operator",
        "RaftKV / Operator",
        "Clusters as the operator sees them",
        ["raftkv_operator_reconcile_total"],
    )
    name = "{{namespace}}/{{name}}"
    page.row(
        number(
            "Clusters",
            "That it serves",
            "none",
            Query(f"count(raftkv_operator_cluster_ready{JOB})"),
        ),
        number(
            "Not available",
            "Though they should be",
            "none",
            Query(
                f"sum((1 - raftkv_operator_cluster_ready{JOB})"
                " * (raftkv_operator_cluster_replicas > bool 0))"
            ),
            thresholds=_BAD_ABOVE_ZERO,
        ),
        number(
            "Failing",
            "Clusters whose last pass failed",
            "none",
            Query(f"sum(raftkv_operator_cluster_failed_passes{JOB} > bool 0)"),
            thresholds=_BAD_ABOVE_ZERO,
        ),
        number(
            "Operator",
            "Whether Prometheus reaches it",
            "none",
            Query(f"max(up{JOB})"),
            thresholds=_BAD_AT_ZERO,
            names=_UP,
        ),
        height=4,
    )
    page.row(
        timeline(
            "Available",
            "The condition of each cluster",
            Query(f"raftkv_operator_cluster_ready{JOB}", name),
            {"0": ("not available", "red"), "1": ("available", "green")},
        ),
        timeline(
            "Conditions",
            "Those that are told for each cluster",
            Query(f"raftkv_operator_cluster_condition{JOB}", f"{name} {{{{type}}}}"),
            _YES_NO,
        ),
    )
    page.row(
        graph(
            "Members",
            "Of each cluster, and the voters its spec asks for",
            "none",
            Query(f"raftkv_operator_cluster_members{JOB}", f"{name} members"),
            Query(f"raftkv_operator_cluster_replicas{JOB}", f"{name} wanted"),
        ),
        graph(
            "Fault tolerance",
            "Voters that may still be lost; 0 while no leader tells",
            "none",
            Query(f"raftkv_operator_cluster_fault_tolerance{JOB}", name),
        ),
        graph(
            "Failed passes",
            "In a row",
            "none",
            Query(f"raftkv_operator_cluster_failed_passes{JOB}", name),
        ),
    )
    page.heading("The operator itself")
    page.row(
        graph(
            "Passes",
            "Over all clusters",
            "ops",
            Query(f"rate(raftkv_operator_reconcile_total{JOB}[{RATE}])", "passes"),
            Query(f"rate(raftkv_operator_reconcile_errors_total{JOB}[{RATE}])", "failed"),
        ),
        graph(
            "Requests to the API server",
            "By verb",
            "reqps",
            Query(
                f"sum by (verb) (rate(raftkv_operator_api_requests_total{JOB}[{RATE}]))",
                "{{verb}}",
            ),
        ),
        graph(
            "Duration of a pass",
            "Over all clusters",
            "s",
            Query(quantile(0.5, "raftkv_operator_reconcile_seconds", "", JOB), "median"),
            Query(quantile(0.99, "raftkv_operator_reconcile_seconds", "", JOB), "99th percentile"),
        ),
        graph(
            "Memory",
            "Resident",
            "bytes",
            Query(f"process_resident_memory_bytes{JOB}", "{{instance}}"),
        ),
        graph(
            "CPU",
            "Cores used",
            "none",
            Query(f"rate(process_cpu_seconds_total{JOB}[{RATE}])", "{{instance}}"),
        ),
    )
    return page


def dashboards() -> dict[str, str]:
    """All dashboards as JSON, by the name of their file."""
    pages = {
        "cluster": cluster(),
        "latency": latency(),
        "storage": storage(),
        "watches": watches(),
        "operator": operator(),
    }
    return {
        f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(page.build()) + "\n"
        for name, page in pages.items()
    }
