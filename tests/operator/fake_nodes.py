"""Nodes in memory: volumes by pod, and the one bootstrap call that turns them into a cluster."""

from collections.abc import Callable, Sequence

from raftkv_operator.errors import NodeError
from raftkv_operator.node_client import BootstrapTarget
from raftkv_operator.observed import NodeCluster, NodeMember, NodeStatus


class Volume:
    """What one claim holds."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id
        self.cluster_id: str | None = None
        self.members: tuple[BootstrapTarget, ...] = ()


class FakeNodes:
    """The `Nodes` of the cluster `demo`: pod `demo-N` answers at 10.0.0.(N+1)."""

    def __init__(self, is_running: Callable[[str], bool]) -> None:
        self.volumes: dict[str, Volume] = {}
        self.silent: set[str] = set()
        self.bootstraps: list[tuple[str, str]] = []  # pod, cluster id
        self._is_running = is_running
        self._made = 0

    def lose_volume(self, pod: str) -> None:
        """The pod's next life starts on an empty volume."""
        del self.volumes[pod]

    def clusters(self) -> set[str]:
        """The ids of all clusters that any volume knows."""
        return {volume.cluster_id for volume in self.volumes.values() if volume.cluster_id}

    async def status(self, ip: str) -> NodeStatus:
        """See `Nodes`."""
        pod, volume = self._at(ip)
        leader = self._leader(volume)
        return NodeStatus(
            name=pod,
            member_id=volume.member_id,
            cluster_id=volume.cluster_id,
            state="uninitialised" if volume.cluster_id is None else "running",
            role="leader" if leader == volume.member_id else "follower",
            term=1,
            leader=leader,
            version="0.1.0",
        )

    async def cluster(self, ip: str) -> NodeCluster:
        """See `Nodes`."""
        _, volume = self._at(ip)
        leader = self._leader(volume)
        present = self._present(volume)
        return NodeCluster(
            cluster_id=volume.cluster_id,
            leader=leader,
            term=1,
            config_index=1,
            voters=tuple(member.id for member in volume.members),
            members=tuple(
                NodeMember(
                    id=member.id,
                    name=member.name,
                    role="leader" if member.id == leader else "follower",
                    voter=True,
                    healthy=member.id in present,
                    lag_entries=0,
                )
                for member in volume.members
            ),
        )

    async def bootstrap(self, ip: str, cluster_id: str, members: Sequence[BootstrapTarget]) -> None:
        """See `Nodes`. The other members learn of the cluster from the founder."""
        pod, volume = self._at(ip)
        if volume.member_id not in {member.id for member in members}:
            raise NodeError("409: not in the list")
        if volume.cluster_id not in (None, cluster_id):
            raise NodeError("409: already a member of another cluster")
        self.bootstraps.append((pod, cluster_id))
        for other in self.volumes.values():
            if other.member_id in {member.id for member in members}:
                other.cluster_id = cluster_id
                other.members = tuple(members)

    def _at(self, ip: str) -> tuple[str, Volume]:
        pod = f"demo-{int(ip.rpartition('.')[2]) - 1}"
        if pod in self.silent or not self._is_running(pod):
            raise NodeError(f"{ip} does not answer")
        if pod not in self.volumes:
            self._made += 1
            self.volumes[pod] = Volume(f"{self._made:016x}")
        return pod, self.volumes[pod]

    def _present(self, volume: Volume) -> set[str]:
        """Ids of the members of the volume's cluster that run."""
        return {
            other.member_id
            for pod, other in self.volumes.items()
            if other.cluster_id == volume.cluster_id
            and pod not in self.silent
            and self._is_running(pod)
        }

    def _leader(self, volume: Volume) -> str | None:
        voters = [member.id for member in volume.members]
        alive = [voter for voter in voters if voter in self._present(volume)]
        return alive[0] if len(alive) > len(voters) // 2 else None
