"""The OpenAPI 3.1 document of this API, made from the route table and the shapes of bodies. Pure.

Served as `/openapi.json`. What each call takes and answers is in `raftkv.server.http.operations`.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import msgspec

import raftkv
from raftkv.node.status import ClusterStatus, MemberStatus, Status
from raftkv.server.console import PAGE, page_files
from raftkv.server.http import parameters, problems
from raftkv.server.http.operations import JSON, OPERATIONS, Content, Operation
from raftkv.server.http.problems import Kind
from raftkv.server.http.render import MEMBER_GROUPS, ProblemBody
from raftkv.server.http.routes import ROUTES, Route

_PROBLEM: Final = "application/problem+json"
_REF: Final = "#/components/schemas/{name}"
Json = dict[str, Any]

_REVISION: Final[Json] = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
_DURATION: Final[Json] = {
    "type": "string",
    "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
    "minLength": 2,
    "examples": ["500ms", "30s", "1m30s"],
}
_FLAG: Final[Json] = {"type": "boolean", "default": False}
_HEX: Final[Json] = {"type": "string", "pattern": f"^{parameters.HEX_ID}$"}
_TEXT: Final[Json] = {"type": "string"}
_ANY_KEY: Final[Json] = {"type": "string", "maxLength": 511}

#: Query parameters: what each takes, and what it means.
_QUERY: Final[dict[str, tuple[Json, str]]] = {
    "after": (
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "answer when the key has changed after this revision",
    ),
    "all": (_FLAG, "needed to remove a range that is open at an end"),
    "by": (
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1, "default": 1},
        "of op=increment: what to add",
    ),
    "consistency": (
        {
            "type": "string",
            "enum": ["linearizable", "bounded", "local"],
            "default": "linearizable",
        },
        "what the read promises",
    ),
    "count_only": (_FLAG, "the number of keys alone"),
    "cursor": (_TEXT, "`next_cursor` of the page before"),
    "delimiter": (_ANY_KEY, "keys that hold it behind the prefix are given once, in `prefixes`"),
    "end": (_ANY_KEY, "the range ends before this key"),
    "from": (_TEXT, "a revision, or the id of an event: begin with what happened after it"),
    "key": (_ANY_KEY, "the key to watch"),
    "keys_only": (_FLAG, "leave the values out"),
    "lease": (_HEX, "attach the key to this lease"),
    "limit": ({"type": "integer", "minimum": 1, "maximum": 10_000}, "most items of a page"),
    "max_stale": (_DURATION, "of consistency=bounded: how old the answer may be"),
    "min_revision": (
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "wait until the node has this revision",
    ),
    "op": ({"type": "string", "enum": ["append", "increment"]}, "what to do with the value"),
    "order": ({"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "of the keys"),
    "prefix": (_ANY_KEY, "keys that begin with these bytes"),
    "prev": (_FLAG, "tell the item as it was before, too"),
    "redirect": (_FLAG, "answer 307 to the leader rather than forward to it"),
    "revision": (_REVISION, "as it was at this revision of the store"),
    "start": (_ANY_KEY, "the range begins at this key"),
    "timeout": ({**_DURATION, "default": "5s"}, "how long the answer may take, up to 60s"),
    "token": (_REVISION, "the fencing token that the lock came with"),
    "ttl": (_DURATION, "let the key vanish after this time"),
    "wait": ({**_DURATION, "default": "30s"}, "how long to wait for a change, up to 10m"),
    "verbose": ({"type": "boolean"}, "list all checks"),
}
#: Parameters that cannot be left out.
_NEEDED: Final = {("POST", "op"), ("POST", "token"), ("DELETE", "token")}

_HEADERS: Final[dict[str, tuple[Json, str]]] = {
    "Idempotency-Key": (
        {"type": "string", "pattern": "^[\\x21-\\x7e]{1,128}$"},
        "the write happens once under this key, and retries get the first answer",
    ),
    "If-Match": (_TEXT, "only if the tag is one of these"),
    "If-None-Match": (_TEXT, "only if the tag is none of these; `*` on a write: create only"),
    "Last-Event-ID": (_TEXT, "the id of the last event that was seen"),
    "X-RaftKV-Cluster": (_TEXT, "421 unless the node belongs to this cluster"),
    "X-RaftKV-Fence": (
        {"type": "string", "pattern": "^[^:]+.*:[1-9][0-9]*$"},
        "`<name>:<token>`: only if the lock is still held under the token",
    ),
}
_ANSWER_HEADERS: Final[dict[str, tuple[Json, str]]] = {
    "Access-Control-Allow-Origin": (_TEXT, "the page that may read, if a member serves it"),
    "Content-Security-Policy": (_TEXT, "what the page may do"),
    "Content-Disposition": (_TEXT, "a name for the file"),
    "ETag": (_TEXT, "the tag that conditions name"),
    "Idempotency-Replayed": ({"const": "true"}, "the answer to an earlier request"),
    "X-RaftKV-Age-Seconds": (_TEXT, "how old a read that asked nobody may be, or `unknown`"),
    "X-RaftKV-Consistency": (
        {"type": "string", "enum": ["linearizable", "bounded", "local"]},
        "what the read promises",
    ),
    "X-RaftKV-Create-Revision": ({"type": "integer"}, "the revision that created the key"),
    "X-RaftKV-Lease": (_TEXT, "the lease of the key, or 0"),
    "X-RaftKV-Mod-Revision": ({"type": "integer"}, "the revision that changed the key last"),
    "X-RaftKV-Node": (_TEXT, "the node that answered"),
    "X-RaftKV-Revision": ({"type": "integer"}, "the revision of the store that was served"),
    "X-RaftKV-Version": ({"type": "integer"}, "changes of the key since it was created"),
}
_PATH: Final[dict[str, tuple[Json, str]]] = {
    "base64url": (
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+={0,2}$"},
        "the key in base64url, with or without padding",
    ),
    "file": ({"type": "string", "enum": sorted({*page_files()} - {PAGE})}, "a file of the page"),
    "id": (_HEX, "16 hex digits"),
    "key": (
        {"type": "string", "minLength": 1, "maxLength": 511},
        "1 to 511 bytes, percent-encoded; slashes may stand as they are",
    ),
    "name": (
        {"type": "string", "minLength": 1, "maxLength": 511},
        "1 to 511 bytes, percent-encoded",
    ),
}

# What may be wrong with any request, with one that has a body, and on the way through the node.
_OF_ALL: Final = (
    problems.MALFORMED, problems.BAD_PARAMETER, problems.BAD_HEADER, problems.UNAUTHENTICATED,
    problems.FORBIDDEN, problems.FOREIGN_HOST, problems.UNKNOWN_PATH, problems.METHOD_NOT_ALLOWED,
    problems.WRONG_CLUSTER, problems.OVERLOADED, problems.INTERNAL,
)  # fmt: skip
_OF_CHANGES: Final = (
    problems.BAD_BODY, problems.FOREIGN_ORIGIN, problems.BODY_TIMEOUT, problems.TOO_LARGE,
    problems.CONTENT_ENCODING, problems.EXPECTATION_FAILED,
)  # fmt: skip
_OF_READS: Final = (
    problems.NO_LEADER, problems.UNINITIALISED, problems.STOPPING, problems.DEADLINE,
)  # fmt: skip
_OF_WRITES: Final = (
    problems.LOCK_LOST, problems.IDEMPOTENCY_MISMATCH, problems.IDEMPOTENCY_FULL,
    problems.NO_LEADER, problems.UNINITIALISED, problems.STOPPING, problems.UNKNOWN,
)  # fmt: skip


@cache
def document() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(_document())


def _document() -> Json:
    paths: Json = {}
    failures: Json = {}
    for route in ROUTES:
        operation = OPERATIONS[route.method, route.path]
        described = _operation(route, operation, failures)
        methods = paths.setdefault(route.path, {})
        methods[route.method.lower()] = described
        if route.method == "GET":
            methods["head"] = _head(described)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "RaftKV",
            "version": raftkv.__version__,
            "description": "A replicated key-value store: every node serves every call.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": failures,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, operation: Operation, failures: Json) -> Json:
    described: Json = {
        "operationId": f"{route.method.lower()}{_camel(route.path)}",
        "summary": route.summary,
        "tags": [_tag(route.path)],
        "parameters": _parameters(route, operation),
        "responses": _responses(route, operation, failures),
    }
    if route.needs_token:
        # Only where there is a token file.
        described["security"] = [{"token": []}, {}]
    if operation.body is not None:
        described["requestBody"] = _request_body(operation)
    return described


def _head(described: Json) -> Json:
    """As GET, without bodies."""
    responses = {
        status: {name: part for name, part in response.items() if name != "content"}
        for status, response in described["responses"].items()
    }
    operation_id = "head" + described["operationId"].removeprefix("get")
    return {**described, "operationId": operation_id, "responses": responses}


def _parameters(route: Route, operation: Operation) -> list[Json]:
    found: list[Json] = []
    if "{" in route.path:
        name = route.path.partition("{")[2].partition("}")[0]
        schema, text = _PATH[name]
        found.append(
            {"name": name, "in": "path", "required": True, "description": text, "schema": schema}
        )
    for name in sorted(operation.query):
        schema, text = _QUERY[name]
        if name == "limit" and route.path != "/v1/kv":
            schema = {**schema, "maximum": 1000}
        found.append({"name": name, "in": "query", "description": text, "schema": schema})
        if (route.method, name) in _NEEDED:
            found[-1]["required"] = True
    for name in (*operation.headers, "X-RaftKV-Cluster"):
        schema, text = _HEADERS[name]
        found.append({"name": name, "in": "header", "description": text, "schema": schema})
    return found


def _request_body(operation: Operation) -> Json:
    if operation.body == "binary":
        content: Json = {"application/octet-stream": {"schema": {}}}
    else:
        content = {JSON: {"schema": _schema(operation.body), "example": operation.example}}
    return {"required": operation.is_body_needed, "content": content}


def _responses(route: Route, operation: Operation, failures: Json) -> Json:
    """The answers by status; what may be wrong is added to ``failures`` and named there."""
    names = ["X-RaftKV-Node", *operation.answer_headers]
    kinds = [*_OF_ALL, *operation.problems]
    if route.method != "GET":
        kinds += _OF_CHANGES
    if operation.is_read:
        names += ["X-RaftKV-Consistency", "X-RaftKV-Age-Seconds"]
        kinds += _OF_READS
    if operation.is_write:
        kinds += _OF_WRITES
    if {"Idempotency-Key"} & set(operation.headers):
        names.append("Idempotency-Replayed")
    if route.path.startswith("/v1/") and route.method != "OPTIONS":
        names.append("X-RaftKV-Revision")
    responses: Json = {
        str(status): _response(_REASONS[status], content, names)
        for status, content in operation.answers.items()
    }
    if "redirect" in operation.query:
        responses["307"] = _response(_REASONS[307], {}, ["X-RaftKV-Revision"])
    for status in sorted({kind.status for kind in kinds}):
        of_status = [kind for kind in kinds if kind.status == status]
        codes = dict.fromkeys(kind.code for kind in of_status)
        name = "_or_".join([str(status), *codes]) if len(codes) < 3 else f"{status}_{len(codes)}"
        problem = _problem_response(of_status)
        while failures.setdefault(name, problem) != problem:
            name += "_"
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return responses


_REASONS: Final = {
    200: "Done",
    201: "Created",
    204: "Nothing changed in the time there was",
    304: "Not modified",
    307: "Ask the leader, at Location",
    503: "Not now",
}


def _response(text: str, content: Content, headers: Iterable[str]) -> Json:
    response: Json = {
        "description": text,
        "headers": {
            name: {"description": _ANSWER_HEADERS[name][1], "schema": _ANSWER_HEADERS[name][0]}
            for name in headers
        },
    }
    if content:
        response["content"] = {kind: {"schema": _schema(of)} for kind, of in content.items()}
    return response


def _problem_response(kinds: Iterable[Kind]) -> Json:
    kinds = list({kind.code: kind for kind in kinds}.values())
    schema = {
        "allOf": [
            {"$ref": _REF.format(name="Problem")},
            {"properties": {"code": {"enum": [kind.code for kind in kinds]}}},
        ]
    }
    first = kinds[0]
    example = {
        "type": f"urn:raftkv:problem:{first.code}",
        "title": first.title,
        "status": first.status,
        "detail": "a sentence for a person",
        "code": first.code,
        "retryable": first.retryable,
        "outcome": first.outcome,
    }
    return {
        "description": "; ".join(kind.title for kind in kinds),
        "content": {_PROBLEM: {"schema": schema, "example": example}},
    }


def _schema(shape: object) -> Json:
    if isinstance(shape, dict):
        return shape
    if shape == "binary":
        return {}
    if shape == "text":
        return {"type": "string"}
    assert isinstance(shape, type)
    return {"$ref": _REF.format(name=shape.__name__)}


def _schemas() -> Json:
    shapes = {
        shape
        for operation in OPERATIONS.values()
        for shape in (
            operation.body,
            *(of for content in operation.answers.values() for of in content.values()),
        )
        if isinstance(shape, type)
    }
    wanted = [*sorted(shapes, key=lambda shape: shape.__name__), Status, ClusterStatus]
    _, schemas = msgspec.json.schema_components(wanted, ref_template=_REF)
    schemas["Problem"] = _problem_schema()
    _spell_ids(schemas)
    for schema in schemas.values():
        if schema.get("type") == "object":
            # Field by field: what is not listed is not there.
            schema["additionalProperties"] = False
    return {name: _in_ecma(schema) for name, schema in sorted(schemas.items())}


def _problem_schema() -> Json:
    _, schemas = msgspec.json.schema_components([ProblemBody], ref_template=_REF)
    problem: Json = schemas["ProblemBody"]
    problem["properties"] |= {
        "branch": {"type": "string", "enum": ["success", "failure"]},
        "op": {"type": "integer", "minimum": 0},
        "oldest_revision": {"type": "integer"},
        "reason": {"type": "string"},
    }
    problem["description"] = "Why a request failed (RFC 9457); `code` is stable."
    return problem


def _spell_ids(schemas: Json) -> None:
    """Ids are numbers within the node and hex digits in JSON; some fields are added there."""
    status, cluster, member = (schemas.pop(shape.__name__) for shape in _STATUS_SHAPES)
    maybe_hex = {"anyOf": [_HEX, {"type": "null"}]}
    status["properties"] |= {
        "member_id": _HEX,
        "leader": maybe_hex,
        "uptime_seconds": {"type": "number"},
        "warnings": {"type": "array", "items": _TEXT},
        "insecure_listeners": {"type": "array", "items": _TEXT},
    }
    cluster["properties"] |= {
        "leader": maybe_hex,
        **{name: {"type": "array", "items": _HEX} for name in MEMBER_GROUPS},
        "joint": {"type": "boolean"},
        "members": {"type": "array", "items": {"$ref": _REF.format(name="Member")}},
    }
    member["properties"]["id"] = _HEX
    schemas |= {"Status": status, "Cluster": cluster, "Member": member}


_STATUS_SHAPES: Final = (Status, ClusterStatus, MemberStatus)


def _in_ecma(schema: object) -> object:
    """The same with patterns as JSON Schema has them: there `$` is the very end."""
    if isinstance(schema, dict):
        return {
            name: part.replace("\\Z", "$") if name == "pattern" else _in_ecma(part)
            for name, part in schema.items()
        }
    return [_in_ecma(part) for part in schema] if isinstance(schema, list) else schema


def _camel(path: str) -> str:
    if path == "/":
        return "Console"
    words = path.replace("{", "/by/").replace("}", "").replace(".", "/").split("/")
    return "".join(word.title() for word in words if word)


def _tag(path: str) -> str:
    if path == "/" or path.startswith("/console/"):
        return "console"
    segment = path.removeprefix("/v1/").split("/")[0]
    return {"k": "kv", "": "probes"}.get(segment, segment)
