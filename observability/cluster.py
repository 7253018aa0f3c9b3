"""The dashboard of a cluster: who leads, what it still bears, how far everybody is."""

from typing import Final

from observability.panels import JOB, RATE, Layout, Query, graph, number, timeline

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
    _roles(page)
    page.heading("Log")
    _log(page)
    page.heading("Clients")
    _clients(page)
    return page


def _roles(page: Layout) -> None:
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


def _log(page: Layout) -> None:
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


def _clients(page: Layout) -> None:
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
