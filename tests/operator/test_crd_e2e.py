"""The CRD on a real API server: it is valid, and each rule refuses with its sentence.

Needs KUBECONFIG. Every object is paused, so that an operator that may run there leaves it alone.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from raftkv_operator import names
from raftkv_operator.api import to_json
from raftkv_operator.crd import build_crd
from raftkv_operator.errors import KubeError, RejectedError
from raftkv_operator.kube import Kube, connect
from raftkv_operator.objects import JsonObject, Kind
from raftkv_operator.status import build_status
from tests.operator.examples import NOW, cluster, make_plan, observed, recorded, running_pods

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="KUBECONFIG names no Kubernetes"),
]

CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
NAMESPACE = Kind("v1", "Namespace", "namespaces")
CLUSTER = names.CLUSTER_KIND


class Server:
    """A namespace of the test's own on a real API server."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self._namespace = namespace

    async def create(self, name: str = "demo", **spec: Any) -> JsonObject:
        """Create a paused cluster; removed together with the namespace."""
        item = {
            "apiVersion": CLUSTER.api_version,
            "kind": CLUSTER.name,
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": {"image": "raftkv:dev", "paused": True, **spec},
        }
        return await self.kube.create(CLUSTER, item)

    async def change(self, item: JsonObject, **spec: Any) -> JsonObject:
        """Change fields of the spec of the object as it is now."""
        live = await self.kube.get(CLUSTER, self._namespace, item["metadata"]["name"])
        return await self.kube.replace(CLUSTER, {**live, "spec": {**live["spec"], **spec}})

    async def report(self, item: JsonObject, **status: Any) -> JsonObject:
        """Replace the status of the object as it is now."""
        live = await self.kube.get(CLUSTER, self._namespace, item["metadata"]["name"])
        return await self.kube.replace(CLUSTER, {**live, "status": status}, subresource="status")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with await connect() as kube:
        await kube._call(
            "PATCH",
            f"/apis/{CRD.api_version}/{CRD.plural}/{CLUSTER.plural}.{names.GROUP}",
            query={"fieldManager": "helm", "force": "true"},
            body=build_crd(),
            content_type="application/apply-patch+yaml",
        )
        name = f"raftkv-crd-{uuid.uuid4().hex[:8]}"
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await kube._call("POST", "/api/v1/namespaces", body=namespace)
        await _until_served(kube, name)
        yield Server(kube, name)
        await kube._call("DELETE", f"/api/v1/namespaces/{name}", body={})


async def _until_served(kube: Kube, namespace: str) -> None:
    """Wait until the API server has taken the definition over: 404 before, 429 while it does."""
    async with asyncio.timeout(30):
        while True:
            try:
                await kube.list(CLUSTER, namespace)
            except KubeError as error:
                if error.code not in {404, 429}:
                    raise
            else:
                return


async def test_rule_23_defaults_are_filled_in_by_the_api_server(server: Server) -> None:
    spec = (await server.create())["spec"]
    assert spec["replicas"] == 3
    assert spec["storage"] == {"size": "1Gi", "whenScaled": "Retain", "whenDeleted": "Retain"}
    assert spec["raft"]["electionTimeoutMs"] == 300
    assert spec["networkPolicy"] == {"enabled": True}
    partly = await server.create("partly", raft={"electionTimeoutMs": 900}, resources={})
    assert partly["spec"]["raft"]["heartbeatIntervalMs"] == 80
    assert partly["spec"]["resources"]["requests"] == {"cpu": "100m", "memory": "128Mi"}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"replicas": 10}, "replicas must be between 0"),
        ({"replicas": -1}, "replicas must be between 0"),
        ({"raft": {"heartbeatIntervalMs": 200}}, "must be at least 3 times"),
        ({"image": ""}, "spec.image"),
        ({"storage": {"size": "large"}}, "spec.storage.size"),
        ({"storage": {"whenScaled": "Keep"}}, "Unsupported value"),
        ({"nodeFailure": {"replaceAfter": "soon"}}, "replaceAfter"),
        ({"nodeFailure": {"replaceAfter": "9s"}}, "must be at least 10s"),
        ({"service": {"type": "ExternalName"}}, "Unsupported value"),
        ({"restartAt": "yesterday"}, "restartAt"),
    ],
)
async def test_what_can_never_be_right_is_refused(
    server: Server, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RejectedError, match=sentence):
        await server.create(**spec)


@pytest.mark.parametrize("after", [None, "10s", "1h30m", "10m"])
async def test_replace_after_is_a_duration_or_nothing(server: Server, after: str | None) -> None:
    made = await server.create(nodeFailure={"replaceAfter": after, "maxPerHour": 2})
    assert made["spec"]["nodeFailure"].get("replaceAfter") == after


@pytest.mark.parametrize("name", ["demo-peers", "1demo", "a.b", "a" * 41])
async def test_rule_09_names_that_would_clash_are_refused(server: Server, name: str) -> None:
    with pytest.raises(RejectedError, match="the name must"):
        await server.create(name)


async def test_accepted_at_the_edges(server: Server) -> None:
    await server.create("a" * 40)
    await server.create("none", replicas=0)
    await server.create("even", replicas=8)
    await server.create("raft", raft={"heartbeatIntervalMs": 100, "electionTimeoutMs": 300})
    await server.create("number", resources={"requests": {"cpu": 1, "memory": "1.5Gi"}})
    await server.create("null", nodeFailure={"replaceAfter": None})
    await server.create("failure", nodeFailure={"replaceAfter": "1h30m"})


async def test_storage_grows_and_never_shrinks(server: Server) -> None:
    item = await server.create()
    await server.change(item, storage={"size": "1024Mi"})
    await server.change(item, storage={"size": "2Gi"})
    with pytest.raises(RejectedError, match=r"storage\.size may only grow"):
        await server.change(item, storage={"size": "1Gi"})


@pytest.mark.parametrize(("before", "after"), [(None, "a"), ("a", None), ("a", "b")])
async def test_storage_class_is_immutable(
    server: Server, before: str | None, after: str | None
) -> None:
    item = await server.create(storage={"storageClassName": before} if before else {})
    with pytest.raises(RejectedError, match="storageClassName cannot be changed"):
        await server.change(item, storage={"storageClassName": after} if after else {})


async def test_rule_01_cluster_id_is_written_once(server: Server) -> None:
    item = await server.create()
    await server.report(item, term=1)
    await server.report(item, clusterID="one")
    await server.report(item, clusterID="one", term=2)
    with pytest.raises(RejectedError, match="clusterID cannot be changed"):
        await server.report(item, clusterID="two")
    with pytest.raises(RejectedError, match="clusterID cannot be changed"):
        await server.report(item, term=3)


async def test_rule_13_status_is_read_back_as_it_was_written(server: Server) -> None:
    wanted = cluster(status=recorded())
    seen = observed(wanted, running_pods(), is_serving=True)
    status = to_json(build_status(wanted, seen, make_plan(wanted, seen), (), NOW))
    answer = await server.report(await server.create(), **status)
    assert answer["status"] == status


async def test_scale_subresource(server: Server) -> None:
    item = await server.create()
    path = f"/apis/{CLUSTER.api_version}/namespaces/{item['metadata']['namespace']}"
    path += f"/{CLUSTER.plural}/demo/scale"
    scale = await server.kube._call("GET", path)
    assert scale["spec"]["replicas"] == 3
    scale["spec"]["replicas"] = 5
    await server.kube._call("PUT", path, body=scale)
    scale["spec"]["replicas"] = 12
    del scale["metadata"]["resourceVersion"]
    with pytest.raises(RejectedError, match="replicas must be between 0"):
        await server.kube._call("PUT", path, body=scale)
