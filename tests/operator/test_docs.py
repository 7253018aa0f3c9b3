"""The operator's page tells every field, condition, reason and column that users can see."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raftkv_operator.api import ConditionType
from raftkv_operator.crd import PRINTER_COLUMNS, build_crd
from raftkv_operator.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "operator.md").read_text()
SPEC = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def fields(schema: dict[str, Any], path: str) -> Iterator[str]:
    """The paths of all fields that have no fields of their own."""
    properties = schema.get("properties")
    if not properties:
        yield path
        return
    for name, inner in properties.items():
        yield from fields(inner, f"{path}.{name}")


def reasons() -> set[str]:
    """The constant reasons in the source: of problems, of waits and of judgements."""
    found = set()
    positions = {"Problem": 0, "Waiting": 0, "_true": 1, "_false": 1}
    for name in ("conditions", "plan", "formation", "execute", "changes", "scaling", "rolling"):
        source = (ROOT / "operator" / "raftkv_operator" / f"{name}.py").read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                position = positions.get(node.func.id)
                if position is not None and len(node.args) > position:
                    reason = node.args[position]
                    if isinstance(reason, ast.Constant):
                        found.add(str(reason.value))
    return found


def test_every_field_of_the_spec_is_documented() -> None:
    paths = list(fields(SPEC, "spec"))
    assert len(paths) > 25
    assert [path for path in paths if f"`{path}`" not in PAGE] == []


def test_no_field_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(r"^\| (`spec\.[^|]+) \|", PAGE, re.MULTILINE))
    names = {name for cell in documented for name in re.findall(r"`(spec\.[\w.]+)`", cell)}
    assert names == set(fields(SPEC, "spec"))


def test_every_condition_and_reason_is_documented() -> None:
    assert [kind.value for kind in ConditionType if f"| {kind.value} |" not in PAGE] == []
    assert len(reasons()) > 20
    assert [reason for reason in sorted(reasons()) if f"`{reason}`" not in PAGE] == []


def test_every_column_is_documented() -> None:
    assert [name for name, _, _ in PRINTER_COLUMNS if f"| {name} |" not in PAGE] == []


def test_every_metric_is_told() -> None:
    families = Metrics().registry.collect()
    names = [
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.startswith("process_")
    ]
    assert len(names) > 8
    assert [name for name in names if not re.search(rf"`{name}[`{{]", PAGE)] == []
