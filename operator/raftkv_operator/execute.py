"""Perform actions, one after the other.

Called by `raftkv_operator.reconcile`. Decides nothing. What an action found to be different from
what its pass had seen is an error here and a new look in the next pass. An object that the API
server refuses is reported and does not hold back the others; any other failure ends the pass.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.actions import (
    Action,
    AddLearner,
    Apply,
    Bootstrap,
    Delete,
    DeleteClaim,
    DiscardPod,
    GrowClaim,
    OrphanStatefulSet,
    OwnClaim,
    PostEvent,
    PromoteLearner,
    RecordBootstrap,
    RecordHibernation,
    RecordReplacement,
    RemoveMember,
    ReplaceMember,
    ReplacePod,
    SetDrain,
    StopPod,
    TransferLeader,
    WriteStatus,
    describe,
)
from raftkv_operator.api import parse_status, to_json
from raftkv_operator.clusters import ClusterKey, Clusters, cluster_key
from raftkv_operator.errors import (
    ConflictError,
    ForbiddenError,
    KubeError,
    NodeError,
    NodeRefusedError,
    RejectedError,
)
from raftkv_operator.failpoints import Failpoints
from raftkv_operator.kube import Kube
from raftkv_operator.lease import Gate
from raftkv_operator.node_client import BootstrapTarget, Nodes
from raftkv_operator.objects import JsonObject, Kind
from raftkv_operator.repair_limit import REPAIR_INTERVAL_SECONDS, RepairLimit
from raftkv_operator.resources import CLAIM, OWNED_KINDS, POD, STATEFUL_SET
from raftkv_operator.scene import Problem
from raftkv_operator.watch import Caches

logger = logging.getLogger(__name__)

EVENT = Kind("v1", "Event", "events")
_OWNED = {kind.name: kind for kind in OWNED_KINDS}


class Outcome(Struct, kw_only=True):
    """What became of a list of actions; filled while they are performed."""

    performed: list[Action] = []
    problems: list[Problem] = []  # what the user should know
    is_stale: bool = False  # it stopped because the pass had seen something outdated


class Executor:
    """Performs actions with the clients it is given."""

    def __init__(
        self,
        *,
        kube: Kube,
        caches: Caches,
        nodes: Nodes,
        clusters: Clusters,
        gate: Gate,
        repair_limit: RepairLimit,
        failpoints: Failpoints,
    ) -> None:
        self._kube = kube
        self._caches = caches
        self._nodes = nodes
        self._clusters = clusters
        self._gate = gate
        self._repair_limit = repair_limit
        self._failpoints = failpoints

    async def execute(
        self, body: JsonObject, actions: Sequence[Action], *, now: datetime
    ) -> Outcome:
        """Perform ``actions`` for the cluster read as ``body``."""
        outcome = Outcome()
        has_refusal = False
        for action in actions:
            if not self._gate.is_open:
                outcome.is_stale = True
                break
            if isinstance(action, Apply):
                if has_refusal and _starts_pods(action):
                    continue  # no pod starts without its settings and its network policy
                if self._repair_limit.is_contested(action):
                    outcome.problems.append(_contested(action))
                if not self._repair_limit.take(action):
                    continue
            try:
                await self._perform(body, action, now)
            except ConflictError as error:
                logger.info("%s/%s: seen too late: %s", *cluster_key(body), error)
                await self._refresh(body)
                outcome.is_stale = True
                break
            except (KubeError, NodeError) as error:
                if isinstance(error, NodeRefusedError) and error.is_passing:
                    logger.info("%s/%s: not now: %s", *cluster_key(body), error)
                    outcome.is_stale = True
                    break
                logger.warning("%s/%s: %s failed: %s", *cluster_key(body), action.point, error)
                outcome.problems.append(_problem(action, error))
                if not _is_about_the_object(action, error):
                    break
                has_refusal = True
            else:
                outcome.performed.append(action)
        return outcome

    async def _perform(self, body: JsonObject, action: Action, now: datetime) -> None:
        logger.log(
            logging.DEBUG if isinstance(action, WriteStatus) else logging.INFO,
            "%s/%s: %s",
            *cluster_key(body),
            describe(action),
        )
        self._failpoints.reach(f"before:{action.point}")
        await self._call(body, action, now)
        self._failpoints.reach(f"after:{action.point}")

    async def _call(self, body: JsonObject, action: Action, now: datetime) -> None:
        namespace = body["metadata"]["namespace"]
        match action:
            case Apply(item=item, live_uid=live_uid):
                answer = await self._kube.apply(_OWNED[item["kind"]], item, live_uid=live_uid)
                cache = self._caches.of(item["kind"], namespace)
                assert cache is not None
                cache.put(answer)
            case Delete(kind=kind, name=name, uid=uid):
                await self._kube.delete(_OWNED[kind], namespace, name, uid=uid)
            case ReplacePod(name=name, uid=uid) | StopPod(name=name, uid=uid):
                await self._kube.delete(POD, namespace, name, uid=uid)
            case DiscardPod(name=name, uid=uid):
                await self._kube.delete(POD, namespace, name, uid=uid, is_forced=True)
            case DeleteClaim() | GrowClaim() | OwnClaim() | OrphanStatefulSet():
                await self._change_storage(namespace, action)
            case RecordBootstrap() | RecordHibernation() | RecordReplacement():
                await self._record(body, action)
            case (
                AddLearner()
                | PromoteLearner()
                | ReplaceMember()
                | RemoveMember()
                | TransferLeader()
                | SetDrain()
            ):
                await self._change_members(body, action)
            case Bootstrap():
                await self._bootstrap(body, action)
            case PostEvent():
                await self._post_event(body, action, now)
            case WriteStatus(status=status):
                await self._write_status(body, to_json(status))
            case _:
                assert_never(action)

    async def _record(
        self, body: JsonObject, action: RecordBootstrap | RecordHibernation | RecordReplacement
    ) -> None:
        """Write what must be known before something is done, into the status that was read."""
        values: dict[str, object]
        match action:
            case RecordBootstrap(record=record):
                values = {"clusterID": record.cluster_id, "bootstrap": to_json(record)}
            case RecordHibernation(members=members):
                values = {"hibernated": [to_json(member) for member in members]}
            case RecordReplacement(records=records):
                values = {"replacements": [to_json(item) for item in records]}
            case _:
                assert_never(action)
        await self._write_status(body, {**(body.get("status") or {}), **values})

    async def _change_members(
        self,
        body: JsonObject,
        action: AddLearner
        | PromoteLearner
        | ReplaceMember
        | RemoveMember
        | TransferLeader
        | SetDrain,
    ) -> None:
        """Rule 6: each call names the cluster, the member's id and the configuration it is for."""
        match action:
            case AddLearner(call=call, rejoins=rejoins):
                member = _target(cluster_key(body), action.pod, action.member_id)
                await self._nodes.add_learner(
                    call.ip, call.cluster_id, call.config_index, member, rejoins=rejoins
                )
            case PromoteLearner(call=call, member_id=member_id):
                await self._nodes.promote(call.ip, call.cluster_id, call.config_index, member_id)
            case ReplaceMember(call=call, member_id=member_id, by=by):
                await self._nodes.replace(
                    call.ip, call.cluster_id, call.config_index, member_id, by
                )
            case RemoveMember(call=call, member_id=member_id):
                await self._nodes.remove(call.ip, call.cluster_id, call.config_index, member_id)
            case TransferLeader(ip=ip, cluster_id=cluster_id, member_id=member_id):
                await self._nodes.transfer(ip, cluster_id, member_id)
            case SetDrain(ip=ip, cluster_id=cluster_id):
                status = await self._nodes.status(ip)
                if (status.name, status.member_id) != (action.pod, action.member_id):
                    raise ConflictError(f"{ip} is {status.name} {status.member_id} by now")
                await self._nodes.drain(ip, cluster_id, is_draining=action.is_draining)
            case _:
                assert_never(action)

    async def _change_storage(
        self, namespace: str, action: DeleteClaim | GrowClaim | OwnClaim | OrphanStatefulSet
    ) -> None:
        """Each depends on the uid that was seen: another object of that name is left alone."""
        name, uid = action.name, action.uid
        match action:
            case DeleteClaim():
                await self._kube.delete(CLAIM, namespace, name, uid=uid)
            case GrowClaim(size=size):
                change = {"spec": {"resources": {"requests": {"storage": size}}}}
                await self._kube.merge(CLAIM, namespace, name, change, uid=uid)
            case OwnClaim(owners=owners):
                metadata = {"ownerReferences": list(owners)}
                await self._kube.merge(CLAIM, namespace, name, {"metadata": metadata}, uid=uid)
            case OrphanStatefulSet():
                await self._kube.delete(
                    STATEFUL_SET, namespace, name, uid=uid, propagation="Orphan"
                )
            case _:
                assert_never(action)

    async def _write_status(self, body: JsonObject, status: JsonObject) -> None:
        """Replace the status of exactly the object that was read (its resourceVersion)."""
        item = {**body, "status": status}
        answer = await self._kube.replace(names.CLUSTER_KIND, item, subresource="status")
        self._clusters.put(answer)

    async def _bootstrap(self, body: JsonObject, action: Bootstrap) -> None:
        """Rule 1: read the record again, see that the pod is the founder, then call it."""
        key = cluster_key(body)
        current = await self._kube.get(names.CLUSTER_KIND, key.namespace, key.name)
        is_same = current["metadata"]["uid"] == body["metadata"]["uid"]
        if not is_same or parse_status(current).bootstrap != action.record:
            raise ConflictError("the recorded members changed")
        founder = action.record.members[0]
        status = await self._nodes.status(action.ip)
        if (status.name, status.member_id) != (founder.pod, founder.member_id):
            raise ConflictError(f"{action.ip} is {status.name} {status.member_id} by now")
        members = [_target(key, member.pod, member.member_id) for member in action.record.members]
        await self._nodes.bootstrap(action.ip, action.record.cluster_id, members)

    async def _post_event(self, body: JsonObject, action: PostEvent, now: datetime) -> None:
        """Post under the deterministic name; that it is there already is success."""
        metadata = body["metadata"]
        time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{action.name}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": names.CLUSTER_KIND.api_version,
                "kind": names.CLUSTER_KIND.name,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "type": action.type,
            "reason": action.reason,
            "message": action.message[:1024],  # the API server's limit
            "source": {"component": names.FIELD_MANAGER},
            "reportingComponent": names.FIELD_MANAGER,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        try:
            await self._kube.create(EVENT, event)
        except ConflictError:
            logger.debug("event %s was posted before", action.name)
        except KubeError as error:
            # An Event is a courtesy: what it tells is in the status as well.
            logger.warning("event %s was not posted: %s", action.reason, error)

    async def _refresh(self, body: JsonObject) -> None:
        """Read the cluster anew, rather than fail again until the watch has caught up."""
        key = cluster_key(body)
        try:
            self._clusters.put(await self._kube.get(names.CLUSTER_KIND, *key))
        except KubeError as error:
            logger.debug("%s/%s: %s", *key, error)


def _target(key: ClusterKey, pod: str, member_id: str) -> BootstrapTarget:
    return BootstrapTarget(
        id=member_id,
        name=pod,
        peer_url=names.peer_url(key.name, key.namespace, pod),
        client_url=names.client_url(key.name, key.namespace, pod),
    )


def _starts_pods(action: Apply) -> bool:
    return action.item["kind"] == STATEFUL_SET.name and action.live_uid is None


def _is_about_the_object(action: Action, error: Exception) -> bool:
    """Whether only this object is refused, so that the others are worth a try."""
    is_object = isinstance(action, Apply | Delete | GrowClaim | OwnClaim)
    return is_object and isinstance(error, RejectedError | ForbiddenError)


def _contested(action: Apply) -> Problem:
    kind, name = action.item["kind"], action.item["metadata"]["name"]
    return Problem(
        "Contested",
        f"{kind} {name} was changed again soon after it was repaired; it is repaired at most "
        f"every {REPAIR_INTERVAL_SECONDS:g} s. Does another operator or controller manage it?",
    )


def _problem(action: Action, error: Exception) -> Problem:
    """What the user reads about a failed action."""
    if isinstance(action, GrowClaim) and isinstance(error, RejectedError | ForbiddenError):
        return Problem("StorageResize", f"{action.name} cannot grow to {action.size}: {error}")
    match error:
        case RejectedError():
            return Problem("InvalidSpec", f"Kubernetes refuses to {describe(action)}: {error}")
        case ForbiddenError():
            return Problem("Forbidden", f"not allowed to {describe(action)}: {error}")
        case NodeError():
            return Problem("NodeRefused", f"could not {describe(action)}: {error}")
        case _:
            return Problem("KubernetesError", f"could not {describe(action)}: {error}")
