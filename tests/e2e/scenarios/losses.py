"""What is lost under load: a volume, a machine, a machine's network; and a machine drained."""

from tests.e2e.environment import MachineCommands, machine_commands
from tests.e2e.kubectl import CommandError, E2EError, NotYetError, hold, wait_until
from tests.e2e.load import Load
from tests.e2e.raft_cluster import RaftCluster, is_ready
from tests.e2e.scenario import Scenario
from tests.e2e.scenarios.steps import (
    CHANGE_SECONDS,
    WRITES_BETWEEN,
    a_follower,
    has_another_leader,
    is_machine_ready,
    machines_of,
    member_ids,
    no_failed_request,
    require_event,
    require_same_members,
    wait_changed,
    wait_replaced,
    wait_value,
)
from tests.e2e.suite import Suite

# Kubernetes notices a machine without power after 40 to 50 s.
_MACHINE_SECONDS = 300.0
_CUT_SECONDS = 10.0
# What a client sees of a machine that is not there: nothing, or that its address does not answer;
# and once it is back, that it knows nothing of the connections of before, and serves nothing yet.
_SILENCE = ("TimeoutError", "EHOSTUNREACH", "ETIMEDOUT", "ENETUNREACH")
_RETURN = ("ECONNRESET", "ECONNREFUSED", "ServerDisconnectedError")


def volume_emptied(suite: Suite) -> None:
    """A follower loses pod and claim: another member takes its place."""
    demo = suite.need_demo()
    lost = a_follower(demo)
    before = member_ids(demo)
    with no_failed_request(suite, demo):
        demo.lose_volume(lost)
        wait_replaced(demo, lost, before[lost], seconds=CHANGE_SECONDS)
        suite.client.wait_for_writes(WRITES_BETWEEN)
    require_event(demo, "MemberReplaced")


def machine_returns(suite: Suite) -> None:
    """A machine is powered off, the pod's process with it, and comes back: the same member."""
    commands = _commands(suite)
    if commands is None:
        return
    demo = suite.need_demo()
    lost, machine = _spare_machine(suite, demo)
    before = member_ids(demo)
    _start_silent_load(suite, demo, machine)
    try:
        commands.stop(machine)
        suite.client.wait_for_writes(5 * WRITES_BETWEEN, seconds=60)
    finally:
        commands.start(machine)
    _wait_machine(suite, machine)
    wait_until(f"{lost} is ready", lambda: _require_ready(demo, lost), seconds=CHANGE_SECONDS)
    suite.client.wait_for_writes(WRITES_BETWEEN)
    _require_only_the_machine(suite, suite.stop_load())
    suite.client.wait_back()
    demo.wait_settled(seconds=CHANGE_SECONDS)
    require_same_members(demo, before)


def machine_lost(suite: Suite) -> None:
    """A machine is powered off and stays off: its member is replaced on another one."""
    commands = _commands(suite)
    if commands is None:
        return
    demo = suite.need_demo()
    lost, machine = _spare_machine(suite, demo)
    before = member_ids(demo)
    demo.patch_spec(nodeFailure={"replaceAfter": "20s"})
    _start_silent_load(suite, demo, machine)
    try:
        commands.stop(machine)
        wait_replaced(demo, lost, before[lost], seconds=_MACHINE_SECONDS)
        suite.client.wait_for_writes(WRITES_BETWEEN)
    finally:
        commands.start(machine)
        demo.patch_spec(nodeFailure={"replaceAfter": None})
    _require_only_the_machine(suite, suite.stop_load())
    require_event(demo, "MemberReplaced")
    _wait_machine(suite, machine)
    suite.client.wait_back()
    demo.wait_settled(seconds=CHANGE_SECONDS)
    _spread_again(suite, demo)


def machine_cut(suite: Suite) -> None:
    """The leader's machine loses its network: the others elect, and nobody reads the past."""
    commands = _commands(suite)
    if commands is None:
        return
    if not commands.can_cut:
        suite.row.notes.append("skipped: E2E_NODE_UNPLUG and E2E_NODE_PLUG are not set")
        return
    demo = suite.need_demo()
    before = member_ids(demo)
    leader = demo.leader()
    machine = machines_of(demo)[leader]
    suite.client.stay_away_from(machine)
    # The clients on that machine too: cut off with a leader of the past, they must not be told
    # anything that is not so any more.
    suite.start_load(demo, is_patient=True)
    try:
        commands.unplug(machine)
        wait_value(
            "the others have another leader", lambda: has_another_leader(demo, leader), True, 30
        )
        hold(_CUT_SECONDS)
    finally:
        commands.plug(machine)
    _wait_machine(suite, machine)
    demo.wait_settled(seconds=CHANGE_SECONDS)
    suite.client.wait_back()
    suite.client.wait_for_writes(WRITES_BETWEEN)
    load = suite.stop_load()  # judged: what failed may have failed, what was answered is true
    suite.row.notes.append(f"met {dict(load.failures)}")
    require_same_members(demo, before)


def drain_machine(suite: Suite) -> None:
    """`kubectl drain` of two machines at once: the disruption budget lets one pod go at a time."""
    demo = suite.need_demo()
    before = member_ids(demo)
    machines = sorted(set(machines_of(demo).values()))
    if len(machines) < 3:
        raise E2EError(f"the pods are on {machines} only")
    first, second = machines[:2]
    try:
        with no_failed_request(suite, demo, is_term_bound=False):
            suite.kubectl("cordon", second)
            _drain(suite, first, seconds=60)
            # Its pod waits for a machine, as its volume is there; the budget is used up.
            try:
                _drain(suite, second, seconds=8)
            except CommandError as error:
                if "disruption budget" not in error.stderr:
                    raise
            else:
                raise E2EError("a second pod was evicted, and the quorum with it")
            suite.kubectl("uncordon", first)
            wait_changed(demo)
            _drain(suite, second, seconds=60)
            suite.kubectl("uncordon", second)
            wait_changed(demo)
    finally:
        suite.kubectl("uncordon", first, second)
    require_same_members(demo, before)


# ---- helpers --------------------------------------------------------------------------------


def _drain(suite: Suite, machine: str, *, seconds: float) -> None:
    """The pods of the cluster only: the operator has a scenario of its own."""
    suite.kubectl(
        "drain", machine, "--ignore-daemonsets", "--delete-emptydir-data",
        "--pod-selector=app.kubernetes.io/name=raftkv", f"--timeout={seconds:g}s",
        seconds=seconds + 10,
    )  # fmt: skip


def _commands(suite: Suite) -> MachineCommands | None:
    commands = machine_commands()
    if commands is None:
        suite.row.notes.append("skipped: E2E_NODE_STOP and E2E_NODE_START are not set")
    return commands


def _start_silent_load(suite: Suite, demo: RaftCluster, machine: str) -> None:
    suite.start_load(demo, is_patient=True, is_silence_a_break=True, without=[machine])


def _require_only_the_machine(suite: Suite, load: Load) -> None:
    """No answer was a failure: who failed met the machine twice, with its one retry.

    Until Kubernetes takes it out of the Service, after 40 s, a new connection may be led to it.
    """
    excused = (*_SILENCE, *_RETURN)
    others = {met: count for met, count in load.failures.items() if not met.endswith(excused)}
    if others:
        raise E2EError(f"requests failed of something else than the lost machine: {others}")
    if load.failed:
        suite.row.notes.append(f"met the lost machine twice: {dict(load.failures)}")


def _spare_machine(suite: Suite, demo: RaftCluster) -> tuple[str, str]:
    """A follower's pod whose machine does not carry the operator; single requests avoid it.

    What a leader had in hand when it went is unknown, and told as that: see `machine-cut`.
    """
    busy = {pod["spec"].get("nodeName") for pod in suite.operator.pods()}
    leader = demo.leader()
    for pod, machine in machines_of(demo).items():
        if (
            pod != leader
            and machine not in busy
            and list(machines_of(demo).values()).count(machine) == 1
        ):
            suite.client.stay_away_from(machine)
            return pod, machine
    raise E2EError("no machine has just one follower and not the operator")


def _wait_machine(suite: Suite, machine: str) -> None:
    def require_ready() -> None:
        if not is_machine_ready(suite.kubectl.get("node", machine)):
            raise NotYetError("not Ready")

    wait_until(f"{machine} is back", require_ready, seconds=120)


def _require_ready(demo: RaftCluster, pod: str) -> None:
    # A machine that comes back leaves a pod's old word standing until its kubelet speaks.
    if not is_ready(demo.pod(pod)) or demo.node_status(pod)["state"] != "running":
        raise NotYetError("not ready")


def _spread_again(suite: Suite, demo: RaftCluster) -> None:
    """Bring the pods back to one on each machine; a volume stays where its pod first was."""
    machines = machines_of(demo)
    crowded = [pod for pod, where in machines.items() if list(machines.values()).count(where) > 1]
    if crowded:
        before = member_ids(demo)
        lost = crowded[-1]
        demo.lose_volume(lost)
        wait_replaced(demo, lost, before[lost], seconds=CHANGE_SECONDS)
        machines = machines_of(demo)
    if len(set(machines.values())) != len(machines):
        raise E2EError(f"three machines are there, and the pods are on {machines}")


SCENARIOS = (
    Scenario("volume-emptied", "a member without its volume is replaced", volume_emptied),
    Scenario("drain-machine", "kubectl drain waits for the budget", drain_machine),
    Scenario("machine-returns", "powered off, and on again", machine_returns),
    Scenario("machine-cut", "the leader's machine loses its network", machine_cut),
)

# While the cluster still sends clients to the dead machine, one retry is not always enough.
LONG_SCENARIOS = (Scenario("machine-lost", "powered off, its member replaced", machine_lost),)
