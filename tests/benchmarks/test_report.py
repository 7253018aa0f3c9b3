"""What the page says: losses as clearly as wins, faults first, rehearsals as such."""

from xml.etree import ElementTree as ET

from benchmarks import closed_loop, failover, plots
from benchmarks.closed_loop import revision_fault
from benchmarks.judge import Operation
from benchmarks.latency import HALF_OF_PEAK, cases, self_test_note
from benchmarks.machine import Machine, cpu_model
from benchmarks.open_loop import Result
from benchmarks.overload import return_to_normal
from benchmarks.report import Conditions, Outcome, markdown, section, summary
from benchmarks.samples import GRPC, JSON, OURS, Fault, Measured, Metric, Sample, rows

QUIET = Machine(2, "a processor", 8, "6.1", "ext4", 0.1, 0.2, "3.13.0", 0.01)
BUSY = Machine(2, "a processor", 8, "6.1", "ext4", 0.1, 0.2, "3.13.0", 0.8)
PUT_64 = closed_loop.PUT_64.metric("throughput")


def page(measured: Measured, machine: Machine = QUIET) -> str:
    conditions = Conditions(machine, ("RaftKV 1", "etcd 3.6"), 5, "2025-01-02", "All parts.")
    return markdown(Outcome(conditions, measured), ["throughput.svg"])


def measured(ours: float, *faults: Fault) -> Measured:
    samples = [Sample(PUT_64, OURS, ours), Sample(PUT_64, GRPC, 10), Sample(PUT_64, JSON, 5)]
    return Measured(samples=samples, faults=list(faults), notes=["A note."])


def line_with(text: str, said: str) -> str:
    return next(line for line in said.splitlines() if text in line)


def test_a_bar_is_reached_or_missed_in_plain_words() -> None:
    said = page(measured(14.9))
    assert "| 1.49 | ≥ 1.5 | 3 | **missed** |" in line_with("PUT, 64 clients, against gRPC", said)
    assert "| 2.98 | ≥ 3 | 5 | **missed** |" in line_with("PUT, 64 clients, against JSON", said)
    assert "reached" in line_with("PUT, 64 clients, against gRPC", page(measured(15)))
    assert "not measured" in line_with("resident memory a key", said)
    assert "MISSED   PUT, 64 clients, against gRPC: 1.49 (bar 1.5)" in summary(measured(14.9))


def test_a_part_has_both_interfaces_with_their_ratios() -> None:
    row = line_with("| PUT, 64 clients | operations/s", page(measured(8)))
    assert row == "| PUT, 64 clients | operations/s | 8 | 10 | 0.80 | behind | 5 | 1.60 | ahead |"


def test_what_broke_is_told_before_any_number_of_a_part() -> None:
    said = page(measured(20, Fault("Closed loop", OURS, "PUT: the leader changed")))
    assert "- Closed loop, RaftKV: PUT: the leader changed" in said
    assert said.index("broke an invariant") < said.index("## Closed loop")
    assert "Every run kept its leader" not in said
    assert "Every run kept its leader" in page(measured(20))


def test_what_other_commands_measured_is_a_table_of_one_column_an_entry() -> None:
    entries: list[dict[str, object]] = [
        {"variant": "idle", "requests": {"get": 1200}},
        {"variant": "b", "cpu": 0.125},
    ]
    assert section("reconcile", entries) == [
        "## Reconcile",
        "",
        "Measured by `make bench-reconcile`.",
        "",
        "| variant | idle | b |",
        "|---|---:|---:|",
        "| requests | get 1,200 | - |",
        "| cpu | - | 0.125 |",
        "",
    ]
    assert section("service", []) == []


def test_a_run_on_a_busy_machine_is_a_rehearsal() -> None:
    assert "**A rehearsal: the machine was 80% busy" in page(measured(20), BUSY)
    assert "rehearsal" not in page(measured(20))


def test_a_plot_is_svg_for_light_and_dark_and_escapes_its_texts() -> None:
    metric = Metric("part", "a < b & c", "ms", "lower", 1)
    samples = [Sample(metric, OURS, 2.0), Sample(metric, OURS, 4.0), Sample(metric, JSON, 8.0)]
    svg = plots.bars("title <1>", rows(samples))
    root = ET.fromstring(svg)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"title <1>", "a < b & c", "3.0", "8.0"} <= set(texts)
    widths = [
        float(each.attrib["width"])
        for each in root.iter("{http://www.w3.org/2000/svg}rect")
        if each.attrib["class"] in {"a", "c"} and each.attrib["width"] != "12"
    ]
    assert round(widths[1] / widths[0], 2) == round(8 / 3, 2)
    assert "prefers-color-scheme:dark" in svg
    assert plots.bars("nothing", []) == ""


def test_revision_moves_by_the_acknowledged_writes_and_those_in_flight() -> None:
    assert revision_fault(moved=100, acknowledged=100, in_flight_max=64) is None
    assert revision_fault(moved=164, acknowledged=100, in_flight_max=64) is None
    assert revision_fault(moved=99, acknowledged=100, in_flight_max=64) is not None
    assert revision_fault(moved=165, acknowledged=100, in_flight_max=64) is not None


def put(start: float, end: float, *, is_done: bool = True) -> Operation:
    return Operation("put", 0, 0, start, end, 1, "done" if is_done else "unknown")


def test_the_first_accepted_write_began_after_the_kill() -> None:
    history = [put(9.8, 9.9), put(9.9, 10.1), put(10.0, 10.6, is_done=False), put(10.4, 11.0)]
    assert failover.first_accepted_seconds(history, 10.0) == 1.0
    assert round(failover.longest_gap_seconds(history, 10.0), 6) == 0.9
    assert failover.first_accepted_seconds(history[:3], 10.0) is None


def test_the_rate_of_the_bar_is_half_of_what_was_measured() -> None:
    (half,) = cases(6000.0, is_quick=True)
    assert (half.rate, half.name) == (3000.0, HALF_OF_PEAK)
    assert {case.rate for case in cases(6000.0, is_quick=False)} >= {500, 1000, 2000, 3000}


def result(took: float, due: list[float]) -> Result:
    return Result([put(each, each + took) for each in due], due, 0, 0.0)


def test_a_generator_that_is_too_slow_is_told() -> None:
    fast = result(0.001, [n / 3000 for n in range(9000)])
    assert "That is less" not in self_test_note(1000, fast)
    slow = result(3.0, [n / 3000 for n in range(9000)])
    assert "That is less" in self_test_note(1000, slow)


def test_normal_again_is_after_the_last_slow_window() -> None:
    due = [n / 100 for n in range(800)]
    history = [put(each, each + (0.5 if each < 1.4 else 0.01)) for each in due]
    seconds, p99 = return_to_normal(Result(history, due, 0, 0.0))
    assert seconds == 1.5
    assert round(p99, 3) == 0.01


def test_the_processor_is_named() -> None:
    assert cpu_model("processor : 0\nmodel name\t: An  X 7\nflags : a") == "An X 7"
    assert cpu_model("") == "of an unknown kind"
