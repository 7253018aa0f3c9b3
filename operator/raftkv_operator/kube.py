"""The Kubernetes API, spoken in plain JSON: a thin typed layer over kubernetes_asyncio's client.

Owns the connection, the URLs and the translation of refusals into `raftkv_operator.errors`. Called
by `observe`, `execute`, `watch` and `lease`. Retries nothing: the next pass is the retry. Every
call but a watch is limited to 10 s (rule 14).
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration

from raftkv_operator import names
from raftkv_operator.errors import (
    ConflictError,
    ForbiddenError,
    GoneError,
    KubeError,
    NotFoundError,
    RejectedError,
    describe_error,
)
from raftkv_operator.objects import JsonObject, Kind

CALL_TIMEOUT_SECONDS = 10.0
# The API server ends a watch after this time; the client notices a dead connection a little later.
WATCH_SECONDS = 240
_WATCH_GRACE_SECONDS = 15

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ERRORS: dict[int, type[KubeError]] = {
    400: RejectedError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: RejectedError,
}


async def connect() -> "Kube":
    """A connection as the pod's service account, or as KUBECONFIG says.

    Raises:
        KubeError: neither is configured.
    """
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise KubeError(f"no access to Kubernetes is configured: {error}") from error
    return Kube(configuration)


class Kube:
    """One connection pool to one API server. Use as an async context manager, or call `close`."""

    def __init__(self, configuration: Configuration) -> None:
        self._client = ApiClient(configuration)
        #: Called with the verb of each request: get, watch, create, update, patch or delete.
        self.on_request: Callable[[str], None] = lambda _verb: None

    async def __aenter__(self) -> "Kube":
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    # ---- reading --------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str) -> JsonObject:
        """The object; raises NotFoundError when there is none."""
        return await self._call("GET", _path(kind, namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = ""
    ) -> tuple[list[JsonObject], str]:
        """All objects that match, and the resourceVersion to watch from.

        ``namespace`` None means all. Items get the apiVersion and kind that lists leave out.
        """
        query = {"labelSelector": selector} if selector else {}
        answer = await self._call("GET", _path(kind, namespace), query=query)
        stamp = {"apiVersion": kind.api_version, "kind": kind.name}
        items = [{**stamp, **item} for item in answer.get("items") or ()]
        return items, str(answer["metadata"]["resourceVersion"])

    async def watch(
        self, kind: Kind, namespace: str | None, *, since: str, selector: str = ""
    ) -> AsyncIterator[JsonObject]:
        """The changes after the resourceVersion ``since``, until the API server ends the watch.

        Raises:
            GoneError: ``since`` is too old; list again.
            KubeError: the connection broke.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        if selector:
            query["labelSelector"] = selector
        timeout = aiohttp.ClientTimeout(
            total=WATCH_SECONDS + _WATCH_GRACE_SECONDS, connect=CALL_TIMEOUT_SECONDS
        )
        try:
            response = await self._request(
                "GET", _path(kind, namespace), query=query, timeout=timeout
            )
            async with response:
                await _raise_for_status(response)
                async for line in response.content:
                    change = json.loads(line)
                    if change["type"] == "ERROR":
                        raise _error_of(change["object"].get("code", 0), change["object"])
                    yield change
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(f"watching {kind.plural}: {describe_error(error)}") from error

    async def knows(self, kind: Kind) -> bool:
        """Whether the API server serves this kind."""
        try:
            answer = await self._call("GET", _root(kind))
        except NotFoundError:
            return False
        return any(item["name"] == kind.plural for item in answer.get("resources") or ())

    # ---- writing --------------------------------------------------------------------------

    async def apply(
        self, kind: Kind, item: JsonObject, *, live_uid: str | None = None
    ) -> JsonObject:
        """Apply server-side as the operator's field manager.

        With ``live_uid`` the object must still be the one with this uid, and contested fields are
        taken over. Without, it is to be created: an object that somebody else made since it was
        looked for must not be taken over.

        Raises:
            ConflictError: the object is another, or somebody else's.
        """
        metadata = item["metadata"]
        body = item
        if live_uid is not None:
            body = {**item, "metadata": {**metadata, "uid": live_uid}}
        return await self._call(
            "PATCH",
            _path(kind, metadata["namespace"], metadata["name"]),
            query={
                "fieldManager": names.FIELD_MANAGER,
                "force": "false" if live_uid is None else "true",
            },
            body=body,
            content_type="application/apply-patch+yaml",
        )

    async def create(self, kind: Kind, item: JsonObject) -> JsonObject:
        """Create; raises ConflictError when the name is taken."""
        query = {"fieldManager": names.FIELD_MANAGER}
        path = _path(kind, item["metadata"]["namespace"])
        return await self._call("POST", path, query=query, body=item)

    async def replace(self, kind: Kind, item: JsonObject, *, subresource: str = "") -> JsonObject:
        """Replace the object or its subresource.

        Raises:
            ConflictError: it changed since its resourceVersion.
        """
        metadata = item["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call("PUT", path, query=query, body=item)

    async def merge(
        self, kind: Kind, namespace: str, name: str, change: JsonObject, *, uid: str
    ) -> JsonObject:
        """Merge ``change`` into the object, if it still is the one with this uid."""
        metadata = {**(change.get("metadata") or {}), "uid": uid}
        return await self._call(
            "PATCH",
            _path(kind, namespace, name),
            query={"fieldManager": names.FIELD_MANAGER},
            body={**change, "metadata": metadata},
            content_type="application/merge-patch+json",
        )

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        propagation: str = "Background",
        is_forced: bool = False,
    ) -> None:
        """Delete the object if it still is the one with this uid; absence is success.

        ``propagation`` Orphan leaves what it owns. ``is_forced`` does not wait for a machine to
        confirm that a pod ended.
        """
        body: JsonObject = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        if is_forced:
            body["gracePeriodSeconds"] = 0
        try:
            await self._call("DELETE", _path(kind, namespace, name), body=body)
        except NotFoundError:
            return

    # ---- transport ------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_SECONDS)
        try:
            response = await self._request(
                method, path, query=query, body=body, content_type=content_type, timeout=timeout
            )
            async with response:
                await _raise_for_status(response)
                answer: JsonObject = await response.json(content_type=None)
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"{method} {path}: {describe_error(error)}"
            raise KubeError(text) from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content_type: str = "application/json",
    ) -> aiohttp.ClientResponse:
        self.on_request("watch" if "watch" in (query or {}) else _VERBS[method])
        headers = {"Accept": "application/json", "Content-Type": content_type}
        parameters = list((query or {}).items())
        await self._client.update_params_for_auth(headers, parameters, ["BearerToken"])
        response: aiohttp.ClientResponse = await self._client.rest_client.request(
            method,
            f"{self._client.configuration.host}{path}",
            query_params=dict(parameters),
            headers=headers,
            body=body,
            _preload_content=False,
            _request_timeout=timeout,
        )
        return response


def _root(kind: Kind) -> str:
    prefix = "/apis" if "/" in kind.api_version else "/api"
    return f"{prefix}/{kind.api_version}"


def _path(kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
    parts = [_root(kind)]
    if namespace is not None:
        parts += ["namespaces", namespace]
    parts += [part for part in (kind.plural, name, subresource) if part]
    return "/".join(parts)


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    text = await response.text()
    try:
        answer: Any = json.loads(text)
    except ValueError:
        answer = None
    status = answer if isinstance(answer, dict) else {"message": text[:500]}
    raise _error_of(response.status, status)


def _error_of(code: int, status: JsonObject) -> KubeError:
    """The error for a Status object, with the API server's own sentence."""
    message = str(status.get("message") or f"HTTP status {code}")
    return _ERRORS.get(code, KubeError)(message, code=code, reason=str(status.get("reason", "")))
