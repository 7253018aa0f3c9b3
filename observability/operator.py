"""The dashboard of the operator."""

from typing import Final

from observability.panels import JOB, RATE, Layout, Query, graph, number, quantile, timeline

_BAD_AT_ZERO: Final = {None: "red", 1.0: "green"}
_BAD_ABOVE_ZERO: Final = {None: "green", 1.0: "red"}
_UP: Final = {"0": ("down", "red"), "1": ("up", "green")}
_YES_NO: Final = {"0": ("no", "#808080"), "1": ("yes", "blue")}


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
