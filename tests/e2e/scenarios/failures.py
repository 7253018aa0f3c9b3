"""Pods and containers die under load: nothing acknowledged is lost and no read is stale."""

from tests.e2e.kubectl import E2EError, JsonObject, NotYetError, wait_until
from tests.e2e.raft_cluster import CONTAINER, RaftCluster, restart_count
from tests.e2e.scenario import Scenario
from tests.e2e.scenarios.steps import has_another_leader, wait_value
from tests.e2e.suite import Suite

_KILLS = 2
_WRITES_AFTERWARDS = 200


def kill_leader(suite: Suite) -> None:
    """SIGKILL of the leader's container, twice, each time another node's."""
    demo = suite.need_demo()
    suite.agent  # noqa: B018 - started before the load, which it would disturb
    suite.start_load(demo)
    for _ in range(_KILLS):
        leader = demo.pod(demo.leader())
        suite.agent.kill(leader, container=CONTAINER)
        _wait_restarted(demo, [leader])
        suite.client.wait_for_writes(_WRITES_AFTERWARDS)
        demo.wait_settled()
    suite.stop_load()


def pause_leader(suite: Suite) -> None:
    """SIGSTOP of the leader until another one has served, then SIGCONT: it must not be believed."""
    demo = suite.need_demo()
    suite.agent  # noqa: B018 - started before the load, which it would disturb
    suite.start_load(demo)
    leader = demo.leader()
    pod = demo.pod(leader)
    suite.agent.signal(pod, CONTAINER, "SIGSTOP")
    try:
        wait_value("there is another leader", lambda: has_another_leader(demo, leader), True, 15)
        suite.client.wait_for_writes(_WRITES_AFTERWARDS)
    finally:
        suite.agent.signal(pod, CONTAINER, "SIGCONT")
    demo.wait_settled()
    suite.client.wait_for_writes(_WRITES_AFTERWARDS)
    suite.stop_load()
    if restart_count(demo.pod(leader)) != restart_count(pod):
        raise E2EError("the paused node was started again, and did not go on")


def delete_leader_pod(suite: Suite) -> None:
    """`kubectl delete pod` of the leader: it drains, goes, and comes back with its disk."""
    demo = suite.need_demo()
    suite.start_load(demo)
    leader = demo.pod(demo.leader())
    member_id = demo.node_status(leader["metadata"]["name"])["member_id"]
    demo.kubectl.delete("pod", leader["metadata"]["name"], "-n", demo.namespace)
    _wait_replaced(demo, [leader])
    demo.wait_settled()
    suite.client.wait_for_writes(_WRITES_AFTERWARDS)
    suite.stop_load()
    returned = demo.node_status(leader["metadata"]["name"])["member_id"]
    if returned != member_id:
        raise E2EError(f"the pod came back as {returned}, not as {member_id}")


def delete_all_pods(suite: Suite) -> None:
    """All pods deleted at once."""
    demo = suite.need_demo()
    suite.start_load(demo)
    pods = demo.pods()
    demo.kubectl.delete("pods", "-n", demo.namespace, "-l", demo.selector)
    _wait_replaced(demo, pods)
    demo.wait_settled()
    suite.client.wait_for_writes(_WRITES_AFTERWARDS)
    suite.stop_load()


def kill_all_containers(suite: Suite) -> None:
    """SIGKILL of every node within a moment."""
    demo = suite.need_demo()
    suite.agent  # noqa: B018 - started before the load, which it would disturb
    suite.start_load(demo)
    pods = demo.pods()
    suite.agent.kill(*pods, container=CONTAINER)
    _wait_restarted(demo, pods)
    demo.wait_settled()
    suite.client.wait_for_writes(_WRITES_AFTERWARDS)
    suite.stop_load()


def _wait_restarted(demo: RaftCluster, before: list[JsonObject]) -> None:
    def require_restarts() -> None:
        for old in before:
            name = old["metadata"]["name"]
            if restart_count(demo.pod(name)) <= restart_count(old):
                raise NotYetError(f"{name} has not been started again")

    wait_until("the killed containers are started again", require_restarts, seconds=60)


def _wait_replaced(demo: RaftCluster, before: list[JsonObject]) -> None:
    uids = {pod["metadata"]["uid"] for pod in before}

    def require_new_pods() -> None:
        left = [pod["metadata"]["name"] for pod in demo.pods() if pod["metadata"]["uid"] in uids]
        if left:
            raise NotYetError(f"{', '.join(left)} is still the old pod")

    wait_until("the deleted pods are made anew", require_new_pods, seconds=90)


SCENARIOS = (
    Scenario("kill-leader", "SIGKILL of the leader's container, twice", kill_leader),
    Scenario("pause-leader", "the leader is paused, and goes on under another one", pause_leader),
    Scenario("delete-leader-pod", "the leader's pod is deleted", delete_leader_pod),
    Scenario("delete-all-pods", "all pods are deleted at once", delete_all_pods),
    Scenario("kill-all", "SIGKILL of all containers at once", kill_all_containers),
)
