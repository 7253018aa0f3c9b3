"""Metric names and labels (API contract, 'Metrics')."""

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from raftkv.node.events import RoleChanged
from raftkv.node.status import State
from raftkv.server.metrics import Metrics
from tests.server.http.fake_driver import CLUSTER, LEADER_ID, NODE_ID, STATUS


def samples(metrics: Metrics, **changes: object) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name and label values, in the order of the labels' names."""
    text = metrics.render(msgspec.structs.replace(STATUS, **changes), CLUSTER).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_gauges_are_what_the_node_says_at_the_time_of_the_scrape() -> None:
    metrics = Metrics()
    found = samples(metrics)
    expected = {
        "raftkv_has_leader": 1,
        "raftkv_is_leader": 1,
        "raftkv_is_learner": 0,
        "raftkv_term": 7,
        "raftkv_commit_index": 12,
        "raftkv_applied_index": 11,
        "raftkv_last_log_index": 13,
        "raftkv_proposals_pending": 2,
        "raftkv_db_bytes": 4096,
        "raftkv_keys": 3,
        "raftkv_revision": 100,
    }
    assert {name: found[name, ()] for name in expected} == expected
    found = samples(metrics, leader=LEADER_ID, role="learner", term=8)
    assert found["raftkv_is_leader", ()] == 0
    assert found["raftkv_is_learner", ()] == 1
    assert found["raftkv_term", ()] == 8
    assert samples(metrics, leader=None)["raftkv_has_leader", ()] == 0


def test_peers_are_the_other_members_as_long_as_they_are_known() -> None:
    metrics = Metrics()
    found = samples(metrics)
    assert found["raftkv_peer_lag_entries", ("n2",)] == 4
    assert found["raftkv_peer_rtt_seconds", ("n2",)] == 0.002
    assert ("raftkv_peer_lag_entries", ("n1",)) not in found
    unknown = msgspec.structs.replace(CLUSTER, members=())
    assert b'peer="n2"' not in metrics.render(STATUS, unknown)


def test_process_metrics_are_there() -> None:
    assert ("process_cpu_seconds_total", ()) in samples(Metrics())


def test_histograms_that_the_driver_fills() -> None:
    metrics = Metrics()
    for histogram in (
        metrics.wal_queue_seconds,
        metrics.wal_fsync_seconds,
        metrics.commit_seconds,
        metrics.apply_seconds,
        metrics.event_loop_lag_seconds,
        metrics.gc_pause_seconds,
    ):
        histogram.observe(0.003)
    found = samples(metrics)
    for name in ("wal_queue", "wal_fsync", "commit", "apply", "event_loop_lag", "gc_pause"):
        assert found[f"raftkv_{name}_seconds_count", ()] == 1


def test_leader_changes_count_leaders_not_the_moments_without() -> None:
    metrics = Metrics()
    for leader in (None, NODE_ID, NODE_ID, None, NODE_ID, LEADER_ID):
        metrics.observe_role(RoleChanged("follower", 7, leader))
    assert samples(metrics)["raftkv_leader_changes_total", ()] == 2


def test_refused_peers_are_counted_by_reason() -> None:
    metrics = Metrics()
    metrics.count_peer_refused("wrong_cluster")
    metrics.count_peer_refused("wrong_cluster")
    name = "raftkv_peer_connections_refused_total"
    assert samples(metrics)[name, ("wrong_cluster",)] == 2


def test_dropped_frames_are_counted_where_they_are_dropped() -> None:
    metrics = Metrics()
    dropped = [3]
    metrics.watch_frames_dropped({"not_sent": lambda: dropped[0], "not_ours": lambda: 1})
    name = "raftkv_peer_frames_dropped_total"
    assert samples(metrics)[name, ("not_sent",)] == 3
    dropped[0] = 8
    assert samples(metrics)[name, ("not_sent",)] == 8
    assert samples(metrics)[name, ("not_ours",)] == 1


def test_labels_are_bounded_whatever_clients_send() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.observe_request("(none)", f"METHOD{number}", 405, 0.001)
    metrics.observe_request("/v1/kv/{key}", "GET", 200, 0.001)
    metrics.observe_request("/v1/kv/{key}", "GET", 200, 0.001)
    found = samples(metrics)
    counted = {labels: n for (name, labels), n in found.items() if name.endswith("requests_total")}
    assert counted == {("405", "other", "(none)"): 1000, ("200", "GET", "/v1/kv/{key}"): 2}


def test_idempotency_hits_are_counted_by_the_node_since_it_began() -> None:
    metrics = Metrics()
    assert samples(metrics, idempotency_hits=3)["raftkv_idempotency_hits_total", ()] == 3
    assert samples(metrics, idempotency_hits=5)["raftkv_idempotency_hits_total", ()] == 5


def test_what_the_node_knows_of_its_store_is_shown() -> None:
    found = samples(Metrics(), leases=4, locks=2, quota_bytes=10, hash_mismatches=1)
    names = ("leases", "locks", "quota_bytes", "hash_mismatch", "compacted_revision")
    assert [found[f"raftkv_{name}", ()] for name in names] == [4, 2, 10, 1, 0]


def test_exactly_one_role_and_one_state_hold() -> None:
    metrics = Metrics()
    for role, state in (("leader", "running"), ("learner", "joining"), ("candidate", "draining")):
        found = samples(metrics, role=role, state=State(state))
        for name, value in (("raftkv_role", role), ("raftkv_state", state)):
            held = {labels for (sample, labels), n in found.items() if sample == name and n == 1}
            assert held == {(value,)}


def test_the_configuration_is_shown() -> None:
    metrics = Metrics("1.2.3")
    found = samples(metrics)
    names = ("voters", "learners", "is_joint", "fault_tolerance", "snapshot_failing")
    assert [found[f"raftkv_{name}", ()] for name in names] == [2, 0, 0, 0, 0]
    assert found["raftkv_build_info", ("1.2.3",)] == 1
    assert found["raftkv_peer_last_contact_seconds", ("n2",)] == 0.1
    assert samples(metrics, snapshot_error="no space left")["raftkv_snapshot_failing", ()] == 1
    follower = msgspec.structs.replace(CLUSTER, fault_tolerance=None, voters_outgoing=(NODE_ID,))
    text = metrics.render(STATUS, follower).decode()
    assert "raftkv_fault_tolerance NaN" in text
    assert "raftkv_is_joint 1.0" in text


def test_every_metric_has_a_help_text_and_a_unit_prometheus_knows() -> None:
    for family in text_string_to_metric_families(Metrics().render(STATUS, CLUSTER).decode()):
        assert family.documentation, family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds"), family.name
