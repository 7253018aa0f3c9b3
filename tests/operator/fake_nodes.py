"""Nodes in memory: volumes by pod, and the configuration of the cluster that they form.

Changes of the membership are checked as nodes check them. What a node would refuse since it costs
the quorum is an AssertionError here: the operator must not even ask.
"""

from collections.abc import Callable, Sequence

from raftkv_operator.errors import NodeError, NodeRefusedError
from raftkv_operator.node_client import BootstrapTarget
from raftkv_operator.observed import NodeCluster, NodeMember, NodeStatus


class Volume:
    """What one claim holds."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id
        self.cluster_id: str | None = None
        self.is_removed = False
        self.draining_pod: str | None = None  # uid of the pod whose process drains


class FakeCluster:
    """The configuration of one cluster, as its leader has it."""

    def __init__(self, members: Sequence[BootstrapTarget]) -> None:
        self.voters = {member.id: member.name for member in members}
        self.learners: dict[str, str] = {}
        self.removed: set[str] = set()
        self.config_index = 1
        self.leader: str | None = None
        self.term = 1


class FakeNodes:
    """The `Nodes` of the cluster `demo`: pod `demo-N` answers at 10.0.0.(N+1)."""

    def __init__(self, pod_uid: Callable[[str], str | None]) -> None:
        self.volumes: dict[str, Volume] = {}
        self.formed: dict[str, FakeCluster] = {}
        self.silent: set[str] = set()
        self.broken: set[str] = set()  # uids of pods that never run; the next ones may
        self.lagging: set[str] = set()  # pods of learners that do not catch up
        self.starting: set[str] = set()  # pods whose nodes have not read their volumes yet
        self.bootstraps: list[tuple[str, str]] = []  # pod, cluster id
        self.asked = 0  # how often any node was asked for its status or its cluster
        self.calls: list[str] = []  # every change that was made
        self._pod_uid = pod_uid
        self._made = 0

    def lose_volume(self, pod: str) -> None:
        """The pod's next life starts on an empty volume."""
        self.volumes.pop(pod, None)

    def clusters(self) -> set[str]:
        """The ids of all clusters that any volume knows."""
        return {volume.cluster_id for volume in self.volumes.values() if volume.cluster_id}

    def voters(self) -> list[str]:
        """The pods that vote in the only cluster."""
        (cluster,) = self.formed.values()
        return sorted(cluster.voters.values())

    def has_quorum(self) -> bool:
        """Whether the only cluster has one."""
        (cluster,) = self.formed.values()
        return self._has_quorum(list(cluster.voters))

    def is_well(self) -> bool:
        """Whether every voter and learner of the only cluster answers, and nobody is to vote."""
        (cluster,) = self.formed.values()
        return not cluster.learners and all(map(self._is_alive, cluster.voters))

    def is_ready(self, pod: str) -> bool:
        """What the pod's readiness probe says."""
        volume = self.volumes.get(pod)
        uid = self._pod_uid(pod)
        if volume is None or uid is None or pod in self.silent | self.starting:
            return False
        if uid in self.broken:
            return False
        cluster = self.formed.get(volume.cluster_id or "")
        is_member = cluster is not None and volume.member_id in {
            **cluster.voters,
            **cluster.learners,
        }
        return is_member and volume.draining_pod != uid

    # ---- Nodes ------------------------------------------------------------------------------

    async def status(self, ip: str) -> NodeStatus:
        """See `Nodes`."""
        self.asked += 1
        pod, volume = self._at(ip)
        if pod in self.starting:
            return NodeStatus(
                name=pod,
                member_id="0" * 16,
                cluster_id=None,
                state="joining",
                role="follower",
                term=0,
                leader=None,
            )
        cluster = self._led(volume)
        leader = None if cluster is None else cluster.leader
        state = "uninitialised" if volume.cluster_id is None else "running"
        if volume.draining_pod == self._pod_uid(pod):
            state = "draining"
        return NodeStatus(
            name=pod,
            member_id=volume.member_id,
            cluster_id=volume.cluster_id,
            state=state,
            role="leader" if leader == volume.member_id else "follower",
            term=1 if cluster is None else cluster.term,
            leader=leader,
            version="0.1.0",
            removed=volume.is_removed,
        )

    async def cluster(self, ip: str) -> NodeCluster:
        """See `Nodes`."""
        self.asked += 1
        _, volume = self._at(ip)
        cluster = self._led(volume)
        members = {} if cluster is None else {**cluster.voters, **cluster.learners}
        return NodeCluster(
            cluster_id=volume.cluster_id,
            leader=None if cluster is None else cluster.leader,
            term=1 if cluster is None else cluster.term,
            config_index=0 if cluster is None else cluster.config_index,
            voters=() if cluster is None else tuple(cluster.voters),
            removed=() if cluster is None else tuple(sorted(cluster.removed)),
            members=tuple(
                NodeMember(
                    id=member_id,
                    name=name,
                    role=self._role(cluster, member_id),
                    voter=cluster is not None and member_id in cluster.voters,
                    healthy=self._is_alive(member_id),
                    lag_entries=99_999 if name in self.lagging else 0,
                )
                for member_id, name in members.items()
            ),
        )

    @staticmethod
    def _role(cluster: FakeCluster | None, member_id: str) -> str:
        if cluster is None or member_id in cluster.learners:
            return "learner"
        return "leader" if member_id == cluster.leader else "follower"

    async def bootstrap(self, ip: str, cluster_id: str, members: Sequence[BootstrapTarget]) -> None:
        """See `Nodes`. The other members learn of the cluster from the founder."""
        pod, volume = self._at(ip)
        ids = {member.id for member in members}
        if volume.member_id not in ids:
            raise NodeError("409: not in the list")
        if volume.cluster_id not in (None, cluster_id):
            raise NodeError("409: already a member of another cluster")
        self.bootstraps.append((pod, cluster_id))
        self.formed.setdefault(cluster_id, FakeCluster(members))
        for other in self.volumes.values():
            if other.member_id in ids:
                other.cluster_id = cluster_id

    async def add_learner(
        self,
        ip: str,
        cluster_id: str,
        config_index: int,
        member: BootstrapTarget,
        *,
        rejoins: bool = False,
    ) -> None:
        """See `Nodes`."""
        cluster = self._change(ip, cluster_id, config_index)
        assert rejoins is (member.id in cluster.removed)
        if member.id in cluster.removed and not rejoins:
            raise NodeRefusedError("409: used before", status=409, reason="id_reused")
        known = {**cluster.voters, **cluster.learners}
        for known_id, name in known.items():
            if name == member.name and (known_id == member.id or self._is_alive(known_id)):
                raise NodeRefusedError("409: a member", status=409, reason="already_member")
        cluster.removed.discard(member.id)
        cluster.learners[member.id] = member.name
        self._changed(cluster, f"add {member.name}")
        for volume in self.volumes.values():
            if volume.member_id == member.id:
                volume.cluster_id = cluster_id
                volume.is_removed = False

    async def promote(self, ip: str, cluster_id: str, config_index: int, member_id: str) -> None:
        """See `Nodes`."""
        cluster = self._change(ip, cluster_id, config_index)
        name = self._take_learner(cluster, member_id)
        assert name not in cluster.voters.values()
        cluster.voters[member_id] = name
        assert self._has_quorum(list(cluster.voters))
        self._changed(cluster, f"promote {name}")

    async def replace(
        self, ip: str, cluster_id: str, config_index: int, member_id: str, by: str
    ) -> None:
        """See `Nodes`. The joint configuration is over at once."""
        cluster = self._change(ip, cluster_id, config_index)
        assert self._has_quorum(list(cluster.voters))
        name = self._take_learner(cluster, by)
        del cluster.voters[member_id]
        cluster.voters[by] = name
        cluster.removed.add(member_id)
        assert self._has_quorum(list(cluster.voters))
        self._changed(cluster, f"replace {name}")

    async def remove(self, ip: str, cluster_id: str, config_index: int, member_id: str) -> None:
        """See `Nodes`."""
        cluster = self._change(ip, cluster_id, config_index)
        assert member_id != cluster.leader, "the leader cannot be removed"
        if member_id in cluster.learners:
            name = cluster.learners.pop(member_id)
        else:
            name = cluster.voters.pop(member_id)
            assert self._has_quorum(list(cluster.voters)), f"{name} was needed"
        cluster.removed.add(member_id)
        self._changed(cluster, f"remove {name}")
        for pod, volume in self.volumes.items():
            # One that is switched off does not hear of it.
            volume.is_removed |= volume.member_id == member_id and pod not in self.silent

    async def transfer(self, ip: str, cluster_id: str, member_id: str) -> None:
        """See `Nodes`."""
        cluster = self._change(ip, cluster_id, None)
        assert self._is_alive(member_id)
        cluster.leader = member_id
        cluster.term += 1
        self.calls.append(f"transfer {cluster.voters[member_id]}")

    async def drain(self, ip: str, cluster_id: str, *, is_draining: bool) -> None:
        """See `Nodes`."""
        pod, volume = self._at(ip)
        assert volume.cluster_id == cluster_id
        volume.draining_pod = self._pod_uid(pod) if is_draining else None
        self.calls.append(f"{'drain' if is_draining else 'undrain'} {pod}")

    # ---- helpers ----------------------------------------------------------------------------

    def _change(self, ip: str, cluster_id: str, config_index: int | None) -> FakeCluster:
        _, volume = self._at(ip)
        cluster = self._led(volume)
        if volume.cluster_id != cluster_id:
            raise NodeRefusedError("421: another cluster", status=421)
        if cluster is None or cluster.leader != volume.member_id:
            raise NodeRefusedError("409: not the leader", status=409, reason="not_leader")
        if config_index not in (None, cluster.config_index):
            raise NodeRefusedError("412: another configuration", status=412)
        return cluster

    def _take_learner(self, cluster: FakeCluster, member_id: str) -> str:
        name = cluster.learners[member_id]
        if name in self.lagging or not self._is_alive(member_id):
            raise NodeRefusedError("409: lags", status=409, reason="learner_lags")
        return cluster.learners.pop(member_id)

    def _changed(self, cluster: FakeCluster, text: str) -> None:
        cluster.config_index += 1
        self.calls.append(text)

    def _at(self, ip: str) -> tuple[str, Volume]:
        pod = f"demo-{int(ip.rpartition('.')[2]) - 1}"
        if pod in self.silent or self._pod_uid(pod) in self.broken | {None}:
            raise NodeError(f"{ip} does not answer")
        if pod not in self.volumes:
            self._made += 1
            self.volumes[pod] = Volume(f"{self._made:016x}")
        return pod, self.volumes[pod]

    def _is_alive(self, member_id: str) -> bool:
        return any(
            volume.member_id == member_id
            and volume.cluster_id is not None
            and pod not in self.silent | self.starting
            and self._pod_uid(pod) not in self.broken | {None}
            for pod, volume in self.volumes.items()
        )

    def _has_quorum(self, voters: list[str]) -> bool:
        return sum(map(self._is_alive, voters)) > len(voters) // 2

    def _led(self, volume: Volume) -> FakeCluster | None:
        """The volume's cluster after any election that is due; None without one."""
        cluster = self.formed.get(volume.cluster_id or "")
        if cluster is None or volume.is_removed:
            return None
        if not self._has_quorum(list(cluster.voters)):
            cluster.leader = None
        elif (
            cluster.leader is None
            or cluster.leader not in cluster.voters
            or not self._is_alive(cluster.leader)
        ):
            cluster.leader = next(voter for voter in cluster.voters if self._is_alive(voter))
            cluster.term += 1
        return cluster
