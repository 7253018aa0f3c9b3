"""A Kubernetes API server in memory, over real HTTP, as far as the operator can tell.

It has what kmock 0.8 leaves out and what the operator's safety rests on: apply creates, a
resourceVersion or uid that is out of date is a conflict, the status is a subresource of its own,
watches follow, and a StatefulSet gets its pods when the test says so.
"""

import asyncio
import copy
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from aiohttp import web

from raftkv_operator import names
from raftkv_operator.objects import JsonObject, Kind
from raftkv_operator.resources import CLAIM, ENDPOINT_SLICE, OWNED_KINDS, POD, POD_MONITOR

EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
KINDS = (*OWNED_KINDS, POD, CLAIM,
         ENDPOINT_SLICE, EVENT, LEASE, names.CLUSTER_KIND)  # fmt: skip

Key = tuple[str, str, str]  # plural, namespace, name


class RefusedError(Exception):
    """An answer that is not a success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class FakeKubernetes:
    """The objects, their history, and what was asked of the server."""

    def __init__(self) -> None:
        self.objects: dict[Key, JsonObject] = {}
        self.history: list[tuple[int, str, str, JsonObject]] = []  # version, plural, type, object
        self.requests: list[str] = []  # "METHOD plural/name", writes only
        self.refusals: dict[str, RefusedError] = {}  # by the same text, until removed
        self.absent = {POD_MONITOR.plural}  # kinds that the API server does not know
        self.was_asked_for_absent = asyncio.Event()
        self.pod_network = "10.0.0."
        self.stuck_slices: set[str] = set()  # Services whose slices do not follow
        self.on_claim_gone: Callable[[str], None] = lambda _pod: None
        self._version = 0
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()

    # ---- what tests do ----------------------------------------------------------------------

    def get(self, plural: str, name: str, namespace: str = "default") -> JsonObject | None:
        """The object as it is stored, or None."""
        return self.objects.get((plural, namespace, name))

    def of(self, plural: str) -> list[JsonObject]:
        """All objects of a kind."""
        return [item for (kind, _, _), item in sorted(self.objects.items()) if kind == plural]

    def listed(self, kind: Kind, namespace: str, selector: str) -> list[JsonObject]:
        """What a list answers: copies."""
        found = (item for item in self.of(kind.plural) if _matches(item, namespace, selector))
        return [copy.deepcopy(item) for item in found]

    def put(self, plural: str, item: JsonObject, *, is_spec_changed: bool = True) -> JsonObject:
        """Store ``item`` whatever was there; returns the stored copy."""
        metadata = item["metadata"]
        key = (plural, metadata["namespace"], metadata["name"])
        before = self.objects.get(key)
        stored = copy.deepcopy(item)
        stored["metadata"].setdefault("uid", str(uuid.uuid4()))
        self._version += 1
        stored["metadata"]["resourceVersion"] = str(self._version)
        if is_spec_changed:
            generation = before["metadata"].get("generation", 0) if before else 0
            stored["metadata"]["generation"] = generation + 1
        self.objects[key] = stored
        self._tell(plural, "MODIFIED" if before else "ADDED", stored)
        return stored

    def remove(self, plural: str, name: str, namespace: str = "default") -> None:
        """Remove an object, and with it what it owns, as garbage collection does."""
        item = self.objects.pop((plural, namespace, name))
        self._version += 1
        self._tell(plural, "DELETED", item)
        for (kind, where, owned), other in list(self.objects.items()):
            owners = other["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == item["metadata"]["uid"] for owner in owners):
                with suppress(KeyError):
                    self.remove(kind, owned, where)

    def run_stateful_sets(self) -> None:
        """Make and remove pods so that each StatefulSet has its replicas (Parallel, OnDelete)."""
        for stateful_set in self.of("statefulsets"):
            metadata, spec = stateful_set["metadata"], stateful_set["spec"]
            wanted = {f"{metadata['name']}-{i}": i for i in range(spec["replicas"])}
            for pod in self.of("pods"):
                owners = pod["metadata"].get("ownerReferences")
                if not owners and _fits(stateful_set, pod):
                    pod["metadata"]["ownerReferences"] = [_owner(stateful_set)]
                    self.put("pods", pod, is_spec_changed=False)
                elif owners and owners[0]["uid"] != metadata["uid"]:
                    continue
                if pod["metadata"]["name"] not in wanted:
                    self.remove("pods", pod["metadata"]["name"])
            self._finish_claims()
            for name, ordinal in wanted.items():
                if self.get("persistentvolumeclaims", f"data-{name}") is None:
                    self.put("persistentvolumeclaims", _claim(stateful_set, name))
                if self.get("pods", name) is None:
                    ip = f"{self.pod_network}{ordinal + 1}"
                    self.put("pods", _pod(stateful_set, name, ip))
        self._finish_claims()

    def _finish_claims(self) -> None:
        """A claim that was deleted goes when its pod is gone (the pvc-protection finalizer)."""
        for claim in self.of("persistentvolumeclaims"):
            name = claim["metadata"]["name"]
            pod = name.removeprefix("data-")
            if "deletionTimestamp" in claim["metadata"] and self.get("pods", pod) is None:
                self.remove("persistentvolumeclaims", name)
                self.on_claim_gone(pod)

    def run_endpoint_slices(self) -> None:
        """One slice for each Service, with its labels; pods that are not ready stay in it, so."""
        for service in self.of("services"):
            metadata, spec = service["metadata"], service["spec"]
            if "selector" not in spec or metadata["name"] in self.stuck_slices:
                continue
            endpoints = [
                _endpoint(pod, is_always_ready=spec.get("publishNotReadyAddresses", False))
                for pod in self.of("pods")
                if _selects(spec["selector"], pod)
            ]
            name = f"{metadata['name']}-x7k2p"
            live = self.get("endpointslices", name)
            if live is None or live["endpoints"] != endpoints:
                self.put("endpointslices", _slice(service, name, endpoints))

    async def wait_for_request(self, text: str) -> None:
        """Wait until a request like ``PUT leases/x`` has come."""
        async with asyncio.timeout(20):
            while text not in self.requests:
                self._asked.clear()
                await self._asked.wait()

    # ---- the server -------------------------------------------------------------------------

    def build_app(self) -> web.Application:
        """The server, to be run by the test."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            kind, namespace, name, subresource = self._parse(request.path)
            if kind is None:
                return web.json_response(self._discovery(request.path))
            self._check_known(kind)
            if request.method == "GET" and "watch" in request.query:
                return await self._watch(request, kind, namespace)
            body = json.loads(await request.text() or "null")
            if request.method != "GET":
                target = name or body["metadata"]["name"]
                text = f"{request.method} {kind.plural}/{target}"
                self.requests.append(text + (f"/{subresource}" if subresource else ""))
                self._asked.set()
                if text in self.refusals:
                    raise self.refusals[text]
            answer = self._call(request, kind, (namespace, name, subresource), body)
        except RefusedError as error:
            status = {"kind": "Status", "message": str(error), "reason": error.reason}
            return web.json_response({**status, "code": error.code}, status=error.code)
        return web.json_response(answer)

    def _check_known(self, kind: Kind) -> None:
        if kind.plural in self.absent:
            self.was_asked_for_absent.set()
            raise RefusedError(404, "NotFound", "the server could not find the resource")

    def _call(
        self, request: web.Request, kind: Kind, place: tuple[str, str, str], body: Any
    ) -> JsonObject:
        namespace, name, subresource = place
        key = (kind.plural, namespace, name)
        live = self.objects.get(key)
        if request.method == "POST":
            if (kind.plural, namespace, body["metadata"]["name"]) in self.objects:
                raise RefusedError(409, "AlreadyExists", "the name is taken")
            return self.put(kind.plural, body)
        if request.method == "PATCH" and "merge" in request.content_type:
            return self._merge(kind, live, body)
        if request.method == "PATCH":
            return self._apply(kind, live, body, is_forced=request.query["force"] == "true")
        if request.method == "GET" and not name:
            return self._list(request, kind, namespace)
        if live is None:
            raise RefusedError(404, "NotFound", f"{kind.plural} {name!r} not found")
        if request.method == "GET":
            return live
        if request.method == "PUT":
            return self._replace(kind, live, body, subresource)
        assert request.method == "DELETE"
        if body["preconditions"]["uid"] != live["metadata"]["uid"]:
            raise RefusedError(409, "Conflict", "the uid is another")
        if body["propagationPolicy"] == "Orphan":
            self._orphan(live["metadata"]["uid"])
        if kind == CLAIM:
            live["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z"
            self.put(kind.plural, live, is_spec_changed=False)
        else:
            self.remove(kind.plural, name, namespace)
        return {"kind": "Status", "status": "Success"}

    def _orphan(self, uid: str) -> None:
        for item in self.objects.values():
            owners = item["metadata"].get("ownerReferences") or []
            item["metadata"]["ownerReferences"] = [each for each in owners if each["uid"] != uid]

    def _merge(self, kind: Kind, live: JsonObject | None, body: JsonObject) -> JsonObject:
        if live is None or live["metadata"]["uid"] != body["metadata"]["uid"]:
            raise RefusedError(409, "Conflict", "the uid is another")
        return self.put(kind.plural, _merged(live, body))

    def _apply(
        self, kind: Kind, live: JsonObject | None, body: JsonObject, *, is_forced: bool
    ) -> JsonObject:
        """Server-side apply by the only manager there is: what it left out is kept.

        What has no owner is taken to be another manager's.
        """
        if live is not None and not is_forced and not live["metadata"].get("ownerReferences"):
            raise RefusedError(409, "Conflict", "conflict with another field manager")
        uid = body["metadata"].get("uid")
        if uid is not None and (live is None or live["metadata"]["uid"] != uid):
            raise RefusedError(409, "Conflict", "the uid is another")
        return self.put(kind.plural, body if live is None else _merged(live, body))

    def _replace(
        self, kind: Kind, live: JsonObject, body: JsonObject, subresource: str
    ) -> JsonObject:
        if body["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise RefusedError(409, "Conflict", "the object has been modified")
        if subresource == "status":
            changed = {**live, "status": body["status"]}
            return self.put(kind.plural, changed, is_spec_changed=False)
        return self.put(kind.plural, {**body, "status": live.get("status")})

    def _list(self, request: web.Request, kind: Kind, namespace: str) -> JsonObject:
        items = [
            {name: value for name, value in item.items() if name not in {"apiVersion", "kind"}}
            for item in self.of(kind.plural)
            if _matches(item, namespace, request.query.get("labelSelector", ""))
        ]
        return {"items": items, "metadata": {"resourceVersion": str(self._version)}}

    async def _watch(self, request: web.Request, kind: Kind, namespace: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        selector = request.query.get("labelSelector", "")
        seen = int(request.query["resourceVersion"])
        while True:
            changed = self._changed  # before looking: each change has an event of its own
            for version, plural, change, item in list(self._after(seen)):
                seen = version
                if plural == kind.plural and _matches(item, namespace, selector):
                    line = json.dumps({"type": change, "object": item}) + "\n"
                    await response.write(line.encode())
            await changed.wait()

    def _after(self, version: int) -> Iterator[tuple[int, str, str, JsonObject]]:
        return (entry for entry in self.history if entry[0] > version)

    def _tell(self, plural: str, change: str, item: JsonObject) -> None:
        self.history.append((self._version, plural, change, copy.deepcopy(item)))
        told, self._changed = self._changed, asyncio.Event()
        told.set()

    def _parse(self, path: str) -> tuple[Kind | None, str, str, str]:
        """Kind, namespace, name and subresource of a path; no kind: discovery."""
        for kind in KINDS:
            root = f"/apis/{kind.api_version}" if "/" in kind.api_version else "/api/v1"
            parts = path.removeprefix(root).strip("/").split("/")
            if not path.startswith(f"{root}/"):
                continue
            namespace = ""
            if parts[0] == "namespaces":
                namespace, parts = parts[1], parts[2:]
            if parts[0] == kind.plural:
                return kind, namespace, *[*parts[1:], "", ""][:2]  # type: ignore[return-value]
        return None, "", "", ""

    def _discovery(self, path: str) -> JsonObject:
        """What there is, as kopf asks for it."""
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = sorted({kind.api_version for kind in KINDS if "/" in kind.api_version})
            return {"kind": "APIGroupList", "groups": [_group(group) for group in groups]}
        resources = [
            resource
            for kind in KINDS
            if path in {f"/apis/{kind.api_version}", f"/api/{kind.api_version}"}
            and kind.plural not in self.absent
            for resource in _resources(kind)
        ]
        if path == "/api/v1":  # kopf waits until it has seen this one, and never asks for it
            namespaces = _resources(Kind("v1", "Namespace", "namespaces"))
            resources += [{**item, "namespaced": False} for item in namespaces]
        if not resources:
            raise RefusedError(404, "NotFound", f"{path} not found")
        return {"kind": "APIResourceList", "resources": resources}


def _group(api_version: str) -> JsonObject:
    name, _, version = api_version.partition("/")
    served = {"groupVersion": api_version, "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _resources(kind: Kind) -> list[JsonObject]:
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    whole: JsonObject = {
        "name": kind.plural,
        "singularName": kind.name.lower(),
        "kind": kind.name,
        "namespaced": True,
        "verbs": verbs,
    }
    if kind != names.CLUSTER_KIND:
        return [whole]
    return [whole, {**whole, "name": f"{kind.plural}/status", "verbs": ["get", "update"]}]


def _matches(item: JsonObject, namespace: str, selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    wanted = [part.split("=", 1) for part in selector.split(",") if part]
    return namespace in ("", item["metadata"]["namespace"]) and all(
        labels.get(key) == value for key, value in wanted
    )


def _merged(live: Any, applied: Any) -> Any:
    if isinstance(live, dict) and isinstance(applied, dict):
        return {**live, **{key: _merged(live.get(key), value) for key, value in applied.items()}}
    return copy.deepcopy(applied)


def _owner(stateful_set: JsonObject) -> JsonObject:
    return {"kind": "StatefulSet", "uid": stateful_set["metadata"]["uid"], "controller": True}


def _fits(stateful_set: JsonObject, pod: JsonObject) -> bool:
    return _selects(stateful_set["spec"]["selector"]["matchLabels"], pod)


def _selects(wanted: JsonObject, pod: JsonObject) -> bool:
    labels: JsonObject = pod["metadata"].get("labels") or {}
    return bool(wanted.items() <= labels.items())


def _slice(service: JsonObject, name: str, endpoints: list[JsonObject]) -> JsonObject:
    metadata = service["metadata"]
    labels = {**metadata.get("labels", {}), names.LABEL_SERVICE: metadata["name"]}
    owner = {"kind": "Service", "uid": metadata["uid"], "controller": True}
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.name,
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
    }


def _endpoint(pod: JsonObject, *, is_always_ready: bool) -> JsonObject:
    (ready,) = [item for item in pod["status"]["conditions"] if item["type"] == "Ready"]
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": is_always_ready or ready["status"] == "True"},
        "targetRef": {
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        },
    }


def _claim(stateful_set: JsonObject, pod: str) -> JsonObject:
    template = copy.deepcopy(stateful_set["spec"]["volumeClaimTemplates"][0])
    namespace = stateful_set["metadata"]["namespace"]
    metadata = {**template["metadata"], "name": f"data-{pod}", "namespace": namespace}
    return {**template, "metadata": metadata, "status": {"phase": "Bound"}}


def _pod(stateful_set: JsonObject, name: str, ip: str) -> JsonObject:
    template = stateful_set["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **copy.deepcopy(template["metadata"]),
            "name": name,
            "namespace": stateful_set["metadata"]["namespace"],
            "ownerReferences": [_owner(stateful_set)],
        },
        "spec": copy.deepcopy(template["spec"]),
        "status": {
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "False"}],
        },
    }
