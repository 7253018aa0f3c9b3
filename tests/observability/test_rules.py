"""Every alert by `promtool test rules`: pending, firing and quiet, with production durations.

Each case says in Prometheus' own notation what three nodes tell; whatever it leaves out is as in a
healthy cluster. Thresholds are met from just above and from just below.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from observability.__main__ import RULES
from observability.alerts import ALERTS

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)

NODES = ("n1", "n2", "n3")
# The alert's condition holds from the first sample on; it is kept up for 18 minutes.
SAMPLES = 72
INTERVAL_SECONDS = 15


def node(name: str, labels: str = "", instance: str = "n1") -> str:
    more = f",{labels}" if labels else ""
    return f'{name}{{job="c",instance="{instance}"{more}}}'


def of_operator(name: str) -> str:
    return f'{name}{{job="operator",instance="o",namespace="ns",name="demo"}}'


def buckets(metric: str, le_of_all: str, instance: str = "n1") -> dict[str, str]:
    """A histogram into which four values a scrape go, all of them into the bucket ``le_of_all``."""
    found = {}
    for le in ("0.1", "0.2", "0.3", "0.5", "1.0", "+Inf"):
        step = 4 if float(le) >= float(le_of_all) else 0
        found[node(f"{metric}_bucket", f'le="{le}"', instance)] = f"0+{step}x{SAMPLES}"
    return found


def always(value: float) -> str:
    return f"{value:g}+0x{SAMPLES}"


def growing(step: float) -> str:
    return f"0+{step:g}x{SAMPLES}"


HEALTHY: dict[str, str] = {
    of_operator("raftkv_operator_cluster_failed_passes"): always(0),
    of_operator("raftkv_operator_cluster_ready"): always(1),
    of_operator("raftkv_operator_cluster_replicas"): always(3),
    'raftkv_operator_reconcile_total{job="operator",instance="o"}': growing(3),
    'up{job="operator",instance="o"}': always(1),
    # Another job, which is none of our business.
    'up{job="stranger",instance="s"}': always(0),
}
for _name in NODES:
    HEALTHY |= {
        node("up", instance=_name): always(1),
        node("raftkv_term", instance=_name): always(3),
        node("raftkv_has_leader", instance=_name): always(1),
        node("raftkv_voters", instance=_name): always(3),
        node("raftkv_learners", instance=_name): always(0),
        node("raftkv_fault_tolerance", instance=_name): always(1) if _name == "n1" else "NaN",
        node("raftkv_leader_changes_total", instance=_name): always(1),
        node("raftkv_proposals_failed_total", instance=_name): growing(0.04),
        node("raftkv_proposals_committed_total", instance=_name): growing(0.96),
        node("raftkv_logical_bytes", instance=_name): always(89),
        node("raftkv_quota_bytes", instance=_name): always(100),
        node("raftkv_hash_mismatch", instance=_name): always(0),
        node("raftkv_snapshot_failing", instance=_name): always(0),
        node("raftkv_reload_failing", 'files="tls"', _name): always(0),
        **buckets("raftkv_wal_fsync_seconds", "0.5", _name),
        **buckets("raftkv_event_loop_lag_seconds", "0.3", _name),
    }
HEALTHY[node("raftkv_peer_rtt_seconds", 'peer="n2"')] = always(0.14)

DOWN = {node("up"): always(0)}
# Two of three are gone, and what they told is stale but for the first moment.
NO_QUORUM = {
    series: text
    for name in ("n1", "n2")
    for series, text in {
        node("up", instance=name): always(0),
        node("raftkv_voters", instance=name): "3",
        node("raftkv_has_leader", instance=name): "1",
    }.items()
}
FIRING: dict[str, Mapping[str, str]] = {
    "RaftKVNoLeader": {node("raftkv_has_leader"): always(0)},
    "RaftKVInsufficientMembers": NO_QUORUM,
    "RaftKVNodeDown": DOWN,
    "RaftKVQuorumFragile": {node("raftkv_fault_tolerance"): always(0)},
    "RaftKVLeaderFlapping": {node("raftkv_leader_changes_total"): "1 " + always(4)},
    "RaftKVFsyncSlow": buckets("raftkv_wal_fsync_seconds", "1.0"),
    "RaftKVPeerSlow": {node("raftkv_peer_rtt_seconds", 'peer="n2"'): always(0.16)},
    "RaftKVProposalsFailing": {node("raftkv_proposals_failed_total"): growing(0.2)},
    "RaftKVQuotaNearlyFull": {node("raftkv_logical_bytes"): always(91)},
    "RaftKVLearnerStuck": {node("raftkv_learners"): always(1)},
    "RaftKVHashMismatch": {node("raftkv_hash_mismatch"): always(1)},
    "RaftKVEventLoopLag": buckets("raftkv_event_loop_lag_seconds", "0.5"),
    "RaftKVSnapshotFailing": {node("raftkv_snapshot_failing"): always(1)},
    "RaftKVReloadFailing": {node("raftkv_reload_failing", 'files="tls"'): always(1)},
    "RaftKVReconcileStuck": {of_operator("raftkv_operator_cluster_failed_passes"): always(2)},
    "RaftKVClusterUnavailable": {of_operator("raftkv_operator_cluster_ready"): always(0)},
    "RaftKVOperatorDown": {'up{job="operator",instance="o"}': always(0)},
}
# One cause may be told by several alerts.
ALSO = {"RaftKVInsufficientMembers": {"RaftKVNodeDown"}}
QUIET: dict[str, Mapping[str, str]] = {
    "a healthy cluster, just below every threshold": {},
    "one voter by design": {
        **{node("raftkv_voters", instance=name): always(1) for name in NODES},
        node("raftkv_fault_tolerance"): always(0),
    },
    "an empty node that waits to be added": {
        node("raftkv_has_leader", instance="n3"): always(0),
        node("raftkv_voters", instance="n3"): always(0),
    },
    "a hibernated cluster": {
        of_operator("raftkv_operator_cluster_ready"): always(0),
        of_operator("raftkv_operator_cluster_replicas"): always(0),
    },
    "no writes at all": {
        node(f"raftkv_proposals_{kind}_total", instance=name): always(7)
        for kind in ("failed", "committed")
        for name in NODES
    },
    "shrunk from five to three: two targets are gone, what they told is stale": {
        node("raftkv_voters", instance="n4"): "5",
        node("raftkv_voters", instance="n5"): "5",
    },
}


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def expectation(at_seconds: int, names: set[str]) -> dict[str, Any]:
    return {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0',
        "eval_time": f"{at_seconds}s",
        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names],
    }


def case(
    name: str, changes: Mapping[str, str], expectations: list[dict[str, Any]]
) -> dict[str, Any]:
    told = {**HEALTHY, **changes}
    return {
        "name": name,
        "interval": f"{INTERVAL_SECONDS}s",
        "input_series": [{"series": series, "values": text} for series, text in told.items()],
        "promql_expr_test": expectations,
    }


def run(
    directory: Path, cases: list[dict[str, Any]], *, interval_seconds: int = INTERVAL_SECONDS
) -> None:
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{interval_seconds}s",
        "tests": cases,
    }
    path = directory / "rules_test.yaml"
    path.write_text(json.dumps(document))  # YAML too, and much sooner written
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    command = ["promtool", "check", "rules", "--lint-fatal", str(RULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_fires_when_its_condition_has_held_for_its_duration(tmp_path: Path) -> None:
    assert set(FIRING) == {alert.name for alert in ALERTS}
    cases = []
    for alert in ALERTS:
        hold = seconds(alert.hold)
        also = ALSO.get(alert.name, set())
        # A rate needs a second sample before there is a condition at all.
        begin = 2 * INTERVAL_SECONDS
        late = begin + max(hold, *(seconds(a.hold) for a in ALERTS if a.name in also), 0)
        expected = [expectation(late, {alert.name} | also)]
        if hold > begin:
            expected.append(expectation(hold - INTERVAL_SECONDS, set()))
        cases.append(case(alert.name, FIRING[alert.name], expected))
    run(tmp_path, cases)


def test_no_alert_fires_without_a_cause(tmp_path: Path) -> None:
    times = (30, 600, 1050)
    run(
        tmp_path,
        [
            case(name, changes, [expectation(at, set()) for at in times])
            for name, changes in QUIET.items()
        ],
    )


def test_an_outage_is_told_until_it_ends(tmp_path: Path) -> None:
    """Also after hours, and also when a pod that is gone is no target any more."""
    interval_seconds = 60  # as many servers scrape; it is about hours
    samples = 3 * 3600 // interval_seconds
    told: dict[str, str] = {
        'up{job="operator",instance="o"}': "1 stale",
        'raftkv_operator_reconcile_total{job="operator",instance="o"}': "7 stale",
    }
    for name in NODES:
        told |= {
            node("up", instance=name): f"0+0x{samples}",
            node("raftkv_term", instance=name): "3 stale",
            node("raftkv_voters", instance=name): "3 stale",
        }
    firing = {"RaftKVInsufficientMembers", "RaftKVNodeDown", "RaftKVOperatorDown"}
    outage = {
        **case("outage", {}, [expectation(at, firing) for at in (1200, 3 * 3600)]),
        "interval": f"{interval_seconds}s",
        "input_series": [{"series": series, "values": text} for series, text in told.items()],
    }
    run(tmp_path, [outage], interval_seconds=interval_seconds)


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    """Or the tests above could not fail."""
    wrong = case("wrong", DOWN, [expectation(600, {"RaftKVNoLeader"})])
    with pytest.raises(AssertionError):
        run(tmp_path, [wrong])
