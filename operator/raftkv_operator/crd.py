"""The CustomResourceDefinition, made from the types of `raftkv_operator.api`.

Called by the script that renders the chart's copy and by the test that keeps the two equal; the
running operator does not need it. Nested defaults are written out in the outer default: with
`default: {}` a rule that reads a nested default makes the whole CRD invalid (rule 23).
"""

from typing import Any

import msgspec
from msgspec import inspect

from raftkv_operator import names
from raftkv_operator.api import ROOT_RULES, Rule, Spec, Status
from raftkv_operator.objects import JsonObject

PRINTER_COLUMNS = (
    ("Replicas", "integer", ".spec.replicas"),
    ("Ready", "integer", ".status.readyReplicas"),
    ("Leader", "string", ".status.leader"),
    ("Term", "integer", ".status.term"),
    ("Tolerance", "integer", ".status.faultTolerance"),
    ("Image", "string", ".spec.image"),
    ("Age", "date", ".metadata.creationTimestamp"),
)


def build_crd() -> JsonObject:
    """The complete CustomResourceDefinition."""
    kind = names.CLUSTER_KIND
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{names.GROUP}",
            # An uninstall leaves the clusters serving; a reinstall finds them again.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {names.LABEL_NAME: "raftkv-operator"},
        },
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": ["rkv"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind_, "jsonPath": path}
                        for name, kind_, path in PRINTER_COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": root_schema()},
                }
            ],
        },
    }


def root_schema() -> JsonObject:
    """The schema of the whole object."""
    return {
        "type": "object",
        "description": "A replicated key-value store: Raft nodes on persistent volumes.",
        "required": ["spec"],
        "x-kubernetes-validations": _validations(ROOT_RULES),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(Spec),
            "status": schema_of(Status),
        },
    }


def schema_of(kind: type[msgspec.Struct]) -> JsonObject:
    """The structural schema of a type of `raftkv_operator.api`."""
    return _schema(inspect.type_info(kind))


def _schema(info: inspect.Type) -> JsonObject:
    """Translate one node of msgspec's description of a type."""
    match info:
        case inspect.Metadata():
            return {**_schema(info.type), **(info.extra_json_schema or {})}
        case inspect.StructType():
            return _struct_schema(info)
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            bounds = {"minimum": info.ge, "maximum": info.le}
            return {"type": "integer", "format": "int64", **_present(bounds)}
        case inspect.StrType():
            limits = {
                "pattern": info.pattern,
                "minLength": info.min_length,
                "maxLength": info.max_length,
            }
            return {"type": "string", **_present(limits)}
        case inspect.EnumType():
            return {"type": "string", "enum": [member.value for member in info.cls]}
        case inspect.DictType():
            if isinstance(info.value_type, inspect.AnyType):
                return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            return {"type": "object", "additionalProperties": _schema(info.value_type)}
        case inspect.ListType() | inspect.VarTupleType():
            return {"type": "array", "items": _schema(info.item_type)}
        case inspect.UnionType():
            return _union_schema(info)
        case _:
            raise TypeError(f"no schema for {info!r}")


def _struct_schema(info: inspect.StructType) -> JsonObject:
    """An object with its fields, defaults and rules."""
    schema: JsonObject = {"type": "object"}
    if info.cls.__doc__:
        schema["description"] = info.cls.__doc__.strip()
    # What the types leave out when it is a default, the API server must not fill in: a status that
    # is read back would never equal the one that was written.
    with_defaults = not info.cls.__struct_config__.omit_defaults
    schema["properties"] = {
        item.encode_name: _field_schema(item, with_default=with_defaults) for item in info.fields
    }
    required = sorted(item.encode_name for item in info.fields if item.required)
    if required:
        schema["required"] = required
    rules: tuple[Rule, ...] = getattr(info.cls, "rules", ())
    if rules:
        schema["x-kubernetes-validations"] = _validations(rules)
    return schema


def _field_schema(item: inspect.Field, *, with_default: bool) -> JsonObject:
    """One field; an empty default says nothing and is left out."""
    schema = _schema(item.type)
    default = _default(item) if with_default else None
    if default is not None and default not in ({}, [], ""):
        schema = {**schema, "default": default}
    if item.encode_name == "conditions":
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return schema


def _default(item: inspect.Field) -> object:
    """The default as JSON, with the nested defaults written out."""
    if item.default is not msgspec.NODEFAULT:
        value = item.default
    elif item.default_factory is not msgspec.NODEFAULT:
        value = item.default_factory()
    else:
        return None
    return _without_none(msgspec.to_builtins(value))


def _without_none(value: object) -> object:
    """Objects without the members that are None or empty: absence is their default."""
    if isinstance(value, dict):
        pruned = {name: _without_none(item) for name, item in value.items()}
        return {name: item for name, item in pruned.items() if item not in (None, {}, [], "")}
    return value


def _union_schema(info: inspect.UnionType) -> JsonObject:
    """``T | None`` is nullable; ``int | str`` is a Kubernetes quantity."""
    others = [item for item in info.types if not isinstance(item, inspect.NoneType)]
    if len(others) == 1:
        return {**_schema(others[0]), "nullable": True}
    return {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    }


def _validations(rules: tuple[Rule, ...]) -> list[JsonObject]:
    return [{"rule": item.rule, "message": item.message} for item in rules]


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
