"""How a node comes to belong to a cluster: it founds one, or is addressed by one.

Either way its identity, with the cluster's id, is on disk before anything is answered (node
design, rule 15): a node that forgot where it belongs might found or join another. Which bootstrap
calls are good is `raftkv.node.founding`'s to say.

Owned by the node class.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from raftkv.node.disk_tasks import DiskTasks
from raftkv.node.events import Answer, Bootstrapped, BootstrapRequest
from raftkv.node.founding import check_founding, founding_configuration
from raftkv.node.messages import Failure, FailureCode, PeerFrame, RequestId
from raftkv.storage.identity import Identity, adopt_cluster

if TYPE_CHECKING:
    from raftkv.node.node import Core


class Joining:
    """See the module docstring."""

    def __init__(self, disk: DiskTasks, answer: Callable[[RequestId, Answer], None]) -> None:
        self._disk = disk
        self._answer = answer
        # Set while the identity file is being rewritten: the cluster is not known before it is.
        self.is_under_way = False
        self._bootstraps: list[BootstrapRequest] = []  # waiting for the founding entry's fsync

    def bootstrap(
        self, core: "Core | None", request: BootstrapRequest, founded: Callable[["Core"], None]
    ) -> None:
        """Somebody wants this node to found a cluster; ``founded``: the core has done so."""
        if core is None or self.is_under_way:
            self._answer(request.id, Failure(FailureCode.UNINITIALISED, "the node is starting"))
            return
        verdict = check_founding(core.identity, request.cluster_id, request.members)
        if verdict is not None:
            self._answer(request.id, verdict)
            return
        conf = founding_configuration(request.members)
        self.is_under_way = True
        self._bootstraps.append(request)

        def adopted(identity: Identity) -> None:
            self.is_under_way = False
            core.identity = identity
            core.raft.bootstrap(conf)
            founded(core)

        self._disk.start(adopt_cluster(core.identity, request.cluster_id, conf), adopted)

    def durable(self, core: "Core") -> None:
        """More of the log is on disk: the founding entry perhaps."""
        if self._bootstraps and core.raft.durable_index >= 1:
            for request in self._bootstraps:
                self._answer(request.id, Bootstrapped(request.cluster_id, repeated=False))
            self._bootstraps.clear()

    def adopt(
        self, core: "Core", frame: PeerFrame, joined: Callable[["Core", PeerFrame], None]
    ) -> None:
        """Join the cluster that addresses this node by its own random id."""
        self.is_under_way = True

        def adopted(identity: Identity) -> None:
            self.is_under_way = False
            core.identity = identity
            joined(core, frame)

        self._disk.start(adopt_cluster(core.identity, frame.cluster_id, None), adopted)
