"""Writes docs/http-reference.md from what `/openapi.json` says.

Run ``python -m raftkv.server.http.reference > docs/http-reference.md``.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from raftkv.server.http.openapi import document

Json = dict[str, Any]

_HEAD: Final = """\
# HTTP reference

Every call, parameter, header and answer, as `/openapi.json` describes them. This page is generated;
after a change run `python -m raftkv.server.http.reference > docs/http-reference.md`. What the calls
are for, with examples: [http-api.md](http-api.md).

A duration is written like `500ms`, `30s` or `1m30s`. Fields and parameters that are not listed are
refused with 400.
"""

#: On nearly every call: said once here, instead of in each table.
_EVERYWHERE: Final = frozenset({"X-RaftKV-Cluster", "X-RaftKV-Node", "X-RaftKV-Revision"})
_ON_EVERY_CALL: Final = """\
## On every call

| header | |
|---|---|
| `X-RaftKV-Cluster`, of the request | 421 unless the node belongs to this cluster |
| `X-RaftKV-Node`, of the answer | the node that answered |
| `X-RaftKV-Revision`, of the answer | the revision of the store; not on probes and metrics |

HEAD answers like GET, without the body.
"""


def reference() -> str:
    """The whole page."""
    described = msgspec.json.decode(document())
    parts = [_HEAD, _ON_EVERY_CALL, "## Calls\n"]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if method != "head":
                parts += _operation(described, f"{method.upper()} {path}", operation)
    parts.append("## Shapes\n")
    for name, schema in described["components"]["schemas"].items():
        parts += _shape(name, schema)
    return "\n".join(parts)


def _operation(described: Json, title: str, operation: Json) -> Iterator[str]:
    yield f"### {title}\n"
    yield f"{operation['summary'][:1].upper()}{operation['summary'][1:]}.\n"
    rows = [
        (f"`{each['name']}`", each["in"], _kind(each["schema"]), each["description"])
        for each in operation.get("parameters", ())
        if each["name"] not in _EVERYWHERE
    ]
    if rows:
        yield _table(("parameter", "in", "type", "meaning"), rows)
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body: `{kind}`{_named(body['schema'])}.\n"
    yield _table(
        ("status", "meaning"),
        [
            (status, _answer(_resolved(described, answer)))
            for status, answer in operation["responses"].items()
        ],
    )


def _answer(answer: Json) -> str:
    """The meaning of one status: what comes back, or the codes of the problems."""
    codes = [
        code
        for content in answer.get("content", {}).values()
        for part in content["schema"].get("allOf", ())
        for code in part.get("properties", {}).get("code", {}).get("enum", ())
    ]
    if codes:
        return ", ".join(f"`{code}`" for code in codes)
    bodies = [
        f"`{kind}`{_named(content.get('schema', {}))}"
        for kind, content in answer.get("content", {}).items()
    ]
    headers = [f"`{name}`" for name in answer.get("headers", {}) if name not in _EVERYWHERE]
    text: str = answer["description"]
    if bodies:
        text += f": {' or '.join(bodies)}"
    if headers:
        text += f"; headers {', '.join(headers)}"
    return text


def _shape(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}\n"
    if "description" in schema:
        yield f"{' '.join(schema['description'].split())}\n"
    if "enum" in schema:
        yield f"One of {_kind(schema)}.\n"
        return
    required = schema.get("required", ())
    yield _table(
        ("field", "type", ""),
        [
            (f"`{field}`", _kind(of), "required" if field in required else "")
            for field, of in schema.get("properties", {}).items()
        ],
    )


def _kind(schema: Json) -> str:
    """A schema in few words: its type, bounds and default."""
    if "$ref" in schema:
        return _link(schema["$ref"])
    if "anyOf" in schema:
        text = " or ".join(_kind(each) for each in schema["anyOf"])
    elif "enum" in schema:
        text = ", ".join(f"`{each}`" for each in schema["enum"])
    elif "const" in schema:
        text = f"`{schema['const']}`"
    elif schema.get("type") == "array":
        text = f"list of {_kind(schema['items'])}"
    else:
        text = "duration" if "30s" in schema.get("examples", ()) else schema.get("type", "any")
    bounds = [
        text_of.format(schema[bound])
        for bound, text_of in _BOUNDS.items()
        if _is_telling(schema, bound)
    ]
    default = schema.get("default")
    if default not in (None, "", [], False):
        bounds.append(f"default `{default}`")
    return f"{text} ({', '.join(bounds)})" if bounds else text


_BOUNDS: Final = {
    "minimum": "at least {:,}",
    "maximum": "at most {:,}",
    "maxLength": "at most {:,} bytes",
    "maxItems": "at most {:,} items",
}
_INT64_MAX: Final = 2**63 - 1


def _is_telling(schema: Json, bound: str) -> bool:
    """Whether a bound says something: 0 and the largest number of 64 bits go without saying."""
    is_duration = "30s" in schema.get("examples", ())
    return schema.get(bound) not in (None, 0, _INT64_MAX) and not is_duration


def _resolved(described: Json, answer: Json) -> Json:
    if "$ref" not in answer:
        return answer
    found: Json = described["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return found


def _named(schema: Json) -> str:
    return f", {_link(schema['$ref'])}" if "$ref" in schema else ""


def _link(ref: str) -> str:
    name = ref.rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
