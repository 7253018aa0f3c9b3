"""Steps that the scenarios share: changes, loads without a failed request, lookups.

A load without a failed request is the promise of the product: at least 8 connections and 200
requests a second from all machines, plain keep-alive, one retry when a connection breaks. While
it runs no request fails, no write waits a second, and no leader changes but by plan.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.e2e.kubectl import E2EError, JsonObject, NotYetError, wait_until
from tests.e2e.load import require_full_load, require_no_failures, require_short_gaps
from tests.e2e.raft_cluster import RaftCluster
from tests.e2e.suite import Suite

CHANGE_SECONDS = 180.0
WRITES_BETWEEN = 200
_LOOK_SECONDS = 0.5
_HANDED_OVER = "hand leadership to "


@contextmanager
def no_failed_request(
    suite: Suite, demo: RaftCluster, *, is_gap_bound: bool = True, is_term_bound: bool = True
) -> Iterator[None]:
    """A load around the block.

    ``is_gap_bound``: writes pause for less than a second until the first `mark_load`.
    ``is_term_bound``: no term begins but one for each time the operator hands leadership on.

    Raises:
        E2EError: a request failed, a write waited, the load was too light, or an election was
            not planned.
    """
    term, told = highest_term(demo), suite.operator.log_lines()
    suite.start_load(demo, is_patient=True)
    try:
        yield
    except E2EError:
        suite.client.stop_load()
        raise
    load = suite.stop_load()
    elections = highest_term(demo) - term
    planned = _handovers(suite.operator.log_lines()[len(told) :], demo)
    suite.row.notes.append(f"{elections} changes of leader, {planned} planned")
    require_no_failures(load)
    if is_gap_bound:
        require_short_gaps(load.longest_gap_before_mark_seconds)
    if is_term_bound and elections > planned:
        raise E2EError(f"{elections} terms began, of which {planned} were planned")
    require_full_load(load)


class QuorumWatch:
    """Looks all the time whether the voters that live are a majority. A context manager.

    A look asks every node for its own word, so a voter that the configuration counts and that
    does not answer is missing, whatever the operator says.
    """

    def __init__(self, demo: RaftCluster) -> None:
        self.looks = 0
        self._demo = demo
        self._failure: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "QuorumWatch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=60)
        if kind is None and self._failure is not None:
            raise E2EError(self._failure)

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS) and self._failure is None:
            try:
                self._look()
            except (E2EError, NotYetError):
                continue  # no node could be asked: the load will tell whether that lasts

    def _look(self) -> None:
        answering, views = set(), []
        for pod in self._demo.pods():
            try:
                status = self._demo.node_status(pod["metadata"]["name"])
            except NotYetError:
                continue
            answering.add(status["member_id"])
            if status["role"] == "leader":
                views.append(self._demo.node_cluster(pod["metadata"]["name"]))
        for view in views:
            voters = {member["id"] for member in view["members"] if member["voter"]}
            if len(voters & answering) <= len(voters) // 2:
                self._failure = f"of the voters {voters} only {voters & answering} answered"
        self.looks += bool(views)


def _handovers(lines: list[str], demo: RaftCluster) -> int:
    """How often the operator handed leadership on; an order that is repeated counts once."""
    prefix = f"{demo.namespace}/{demo.name}: {_HANDED_OVER}"
    targets = [line.partition(prefix)[2] for line in lines if prefix in line]
    repeated = zip(targets, ["", *targets], strict=False)
    return sum(target != before for target, before in repeated)


def highest_term(demo: RaftCluster) -> int:
    """The newest term that any node knows."""

    def read_terms() -> int:
        return max(int(demo.node_status(pod["metadata"]["name"])["term"]) for pod in demo.pods())

    return wait_until("the nodes tell their terms", read_terms, seconds=20)


def scale_to(demo: RaftCluster, replicas: int) -> None:
    """`kubectl scale`, and wait until it is done."""
    where = ("-n", demo.namespace)
    demo.kubectl("scale", f"rkv/{demo.name}", f"--replicas={replicas}", *where)
    wait_changed(demo)


def wait_changed(demo: RaftCluster) -> None:
    """Wait until the operator has nothing left to do."""
    demo.wait_condition("Progressing", "False", "Settled", seconds=CHANGE_SECONDS)
    demo.wait_settled()


def member_ids(demo: RaftCluster) -> dict[str, str]:
    """The members' ids by pod, as the status tells."""
    return {member["name"]: member["id"] for member in demo.status()["members"]}


def a_follower(demo: RaftCluster) -> str:
    """A pod that does not lead."""
    leader = demo.leader()
    return next(name for name in member_ids(demo) if name != leader)


def pod_uids(demo: RaftCluster) -> set[str]:
    """Which pods they are."""
    return {pod["metadata"]["uid"] for pod in demo.pods()}


def require_same_members(demo: RaftCluster, before: dict[str, str]) -> None:
    """Nobody was replaced."""
    if member_ids(demo) != before:
        raise E2EError(f"the members are {member_ids(demo)}, not {before}")


def wait_replaced(demo: RaftCluster, pod: str, old: str, *, seconds: float) -> None:
    """Wait until ``pod`` is another member than ``old``, and all is done."""

    def require_another() -> None:
        if member_ids(demo).get(pod) == old:
            raise NotYetError(f"{old} still is the member; {demo.status().get('operation')}")

    wait_until(f"{pod} is another member", require_another, seconds=seconds)
    wait_changed(demo)


def wait_claims(demo: RaftCluster, wanted: list[str]) -> None:
    """Wait until these volume claims are left."""

    def require_claims() -> None:
        items = demo.kubectl.items("pvc", "-n", demo.namespace, "-l", demo.selector)
        found = sorted(item["metadata"]["name"] for item in items)
        if found != wanted:
            raise NotYetError(f"there are {', '.join(found)}")

    wait_until("the other claims are gone", require_claims, seconds=60)


def require_event(demo: RaftCluster, reason: str) -> None:
    """An Event with this reason was posted about the cluster."""
    selector = f"--field-selector=involvedObject.name={demo.name},reason={reason}"
    if not demo.kubectl.items("events", "-n", demo.namespace, selector):
        raise E2EError(f"there is no Event {reason}")


def wait_value(what: str, read: Callable[[], object], wanted: object, seconds: float = 60) -> None:
    """Wait until ``read`` returns ``wanted``."""

    def require_value() -> None:
        found = read()
        if found != wanted:
            raise NotYetError(f"it is {found!r}, not {wanted!r}")

    wait_until(what, require_value, seconds=seconds)


def machines_of(demo: RaftCluster) -> dict[str, str]:
    """The machine of each pod."""
    return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in demo.pods()}


def is_machine_ready(machine: JsonObject) -> bool:
    """Whether Kubernetes hears of it."""
    conditions = machine["status"]["conditions"]
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def has_another_leader(demo: RaftCluster, old: str) -> bool:
    """Whether a pod other than ``old``, which is not asked, says that it leads."""
    for pod in demo.pods():
        name = pod["metadata"]["name"]
        if name != old and demo.node_status(name)["role"] == "leader":
            return True
    return False
