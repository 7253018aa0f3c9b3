"""The dashboards of what nodes do: latency, storage, watches and leases."""

from typing import Final

from observability.panels import JOB, RATE, Layout, Query, graph, number, quantile

_BAD_ABOVE_ZERO: Final = {None: "green", 1.0: "red"}


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
