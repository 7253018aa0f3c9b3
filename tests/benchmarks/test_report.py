"""What a benchmark says: medians, the direction of the ratio, and runs that do not count."""

from benchmarks.machine import Machine
from benchmarks.report import markdown, summarise
from benchmarks.runs import Plan, Run, revision_fault
from benchmarks.workloads import KEY_BYTES, VALUE_BYTES, WORKLOADS, Api, Request, key
from benchmarks.wrk import WrkResult

MACHINE = Machine(2, 8, "6.1", "ext4", 0.1, 0.2, "3.13.0")
PLAN = Plan(rounds=3, seconds=2.0, warmup_seconds=1.0, connections=64)


def run(system: str, requests: int, *faults: str) -> Run:
    load = WrkResult(requests, 2.0, 1.0, 2.0, 3.0, 4.0, 0, 0, 0, 0, 0)
    return Run(system, "PUT", load, 90.0, 10.0, faults)


def test_ratio_is_our_median_over_theirs() -> None:
    ours = [run("RaftKV", requests) for requests in (300, 100, 200)]
    theirs = [run("etcd", requests) for requests in (50, 100, 20)]
    first, second = summarise([*theirs, *ours], "RaftKV")
    assert (first.system, first.per_second, first.ratio) == ("RaftKV", 100.0, None)
    assert (first.per_second_min, first.per_second_max) == (50.0, 150.0)
    assert (second.system, second.per_second, second.ratio) == ("etcd", 25.0, 4.0)


def test_page_voids_the_numbers_of_a_run_that_broke_an_invariant() -> None:
    runs = [run("RaftKV", 10, "the leader changed")]
    page = markdown(summarise(runs, "RaftKV"), runs, [], MACHINE, PLAN, ["RaftKV 1"])
    assert "**Some runs broke an invariant; their numbers are void:**" in page
    assert "- PUT, RaftKV: the leader changed" in page
    assert "Every run kept its leader" not in page


def test_revision_moves_by_the_acknowledged_writes_and_those_in_flight() -> None:
    assert revision_fault(moved=100, acknowledged=100, in_flight_max=64) is None
    assert revision_fault(moved=164, acknowledged=100, in_flight_max=64) is None
    assert revision_fault(moved=99, acknowledged=100, in_flight_max=64) is not None
    assert revision_fault(moved=165, acknowledged=100, in_flight_max=64) is not None


def test_workloads_have_keys_and_values_of_the_stated_size() -> None:
    api = Api(
        put=lambda key, value: Request("PUT", key, value), get=lambda key: Request("GET", key)
    )
    for workload in WORKLOADS:
        requests = workload.requests(api, 3)
        assert [request.path for request in requests] == [key(0), key(1), key(2)]
        assert all(len(request.path) == KEY_BYTES for request in requests)
        assert {len(request.body) for request in requests} == {
            VALUE_BYTES if workload.is_write else 0
        }
