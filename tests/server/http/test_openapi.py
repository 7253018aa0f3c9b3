"""`/openapi.json` is a valid document, and says of every call what the code and the page say."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftkv.server.http import problems
from raftkv.server.http.bodies import decode_body
from raftkv.server.http.openapi import document
from raftkv.server.http.operations import OPERATIONS
from raftkv.server.http.problems import Kind
from raftkv.server.http.routes import ROUTES, Route
from tests.server.http.harness import Served

HTTP_API = Path(__file__).parents[3] / "docs" / "http-api.md"
KINDS = {kind for kind in vars(problems).values() if isinstance(kind, Kind)}
DOCUMENT: dict[str, Any] = json.loads(document())


def test_it_is_an_openapi_document() -> None:
    pytest.importorskip("openapi_spec_validator").validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"


async def test_it_is_served_to_everybody(served: Served) -> None:
    answer = await served.ask("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json() == DOCUMENT
    assert (await served.ask("GET", "/openapi.json?x=1")).code() == "bad_parameter"


def test_it_has_the_rows_of_the_route_table_and_no_others() -> None:
    assert {(route.method, route.path) for route in ROUTES} == set(OPERATIONS)
    listed = {
        (method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
        if method != "head"
    }
    assert listed == set(OPERATIONS)
    for methods in DOCUMENT["paths"].values():
        assert ("head" in methods) is ("get" in methods)
    ids = [
        each["operationId"] for methods in DOCUMENT["paths"].values() for each in methods.values()
    ]
    assert len(ids) == len(set(ids))


def target_of(route: Route) -> str:
    """A path of the row, without a query."""
    segments = {"key": "a", "base64url": "YQ", "id": "00000000000000ff", "name": "a"}
    segments["file"] = "console.css"
    return route.path.format(**segments)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_parameter_is_known_to_the_call(served: Served, route: Route) -> None:
    """And no other: the name of one that it does not list is refused as unknown."""
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    listed = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    everywhere = {
        each["name"]
        for methods in DOCUMENT["paths"].values()
        for described in methods.values()
        for each in described["parameters"]
        if each["in"] == "query"
    }
    for name in sorted(everywhere | {"x"}):
        # Given twice, so that no call is ever done; a name that is unknown is refused before that.
        answer = await served.ask(
            route.method, f"{target_of(route)}?{name}=%00&{name}=%00", body=b""
        )
        detail = answer.json()["detail"]
        assert answer.status == 400, (name, answer)
        if operation.get("requestBody") and answer.code() == "bad_body":
            continue
        assert (f"unknown query parameter '{name}'" in detail) is (name not in listed), detail
    assert not served.driver.commands


@pytest.mark.parametrize(
    ("call", "operation"),
    [(call, each) for call, each in OPERATIONS.items() if isinstance(each.body, type)],
    ids=lambda part: " ".join(part) if len(part) == 2 else "",
)
def test_every_example_of_a_body_is_one(call: tuple[str, str], operation: Any) -> None:
    assert decode_body(msgspec.json.encode(operation.example), operation.body), call


def test_every_problem_is_in_the_document() -> None:
    listed = {
        code
        for response in DOCUMENT["components"]["responses"].values()
        for code in response["content"]["application/problem+json"]["schema"]["allOf"][1][
            "properties"
        ]["code"]["enum"]
    }
    assert listed == {kind.code for kind in KINDS}


def test_every_problem_is_a_row_of_the_page() -> None:
    rows = re.findall(
        r"^\| (\d{3}) \| (`[a-z_`, ]+`) \| (yes|no) \| (\w+) \|", HTTP_API.read_text(), re.MULTILINE
    )
    documented = {
        (int(status), code, retryable == "yes", outcome)
        for status, codes, retryable, outcome in rows
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert documented == {(kind.status, kind.code, kind.retryable, kind.outcome) for kind in KINDS}


def test_every_status_of_a_call_has_its_problems() -> None:
    for methods in DOCUMENT["paths"].values():
        for described in methods.values():
            assert {"400", "401", "403", "404", "405", "421", "429", "500"} <= set(
                described["responses"]
            )
