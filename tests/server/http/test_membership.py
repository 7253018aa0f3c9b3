"""What the changing calls of the cluster ask (API contract; faults.md section 6, rows 8, 9, 30)."""

import json
from typing import Any

import pytest

from raftkv.raft.messages import Member
from raftkv.server.http.membership import SetDrain, parse_bootstrap, parse_drain
from raftkv.server.http.problems import Refused


def member_json(**changes: str) -> dict[str, str]:
    member = {
        "id": "00000000000000ff",
        "name": "demo-0",
        "peer_url": "demo-0.demo-peers.ns.svc:7401",
        "client_url": "http://demo-0.demo-peers.ns.svc:7400",
    }
    return member | changes


def bootstrap_json(**changes: object) -> bytes:
    return json.dumps({"cluster_id": "c-1", "members": [member_json()]} | changes).encode()


def test_bootstrap() -> None:
    asked = parse_bootstrap("", bootstrap_json())
    assert asked.cluster_id == "c-1"
    assert asked.members == (
        Member(
            255,
            "demo-0",
            "demo-0.demo-peers.ns.svc:7401",
            "http://demo-0.demo-peers.ns.svc:7400",
        ),
    )


@pytest.mark.parametrize("address", ["127.0.0.1:7401", "[::1]:7401", "a_b-c.d:1", "h:65535"])
def test_bootstrap_addresses(address: str) -> None:
    body = bootstrap_json(members=[member_json(peer_url=address, client_url="https://" + address)])
    assert parse_bootstrap("", body).members[0].peer_url == address


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 60_000,
        b'{"cluster_id":' * 5_000,
        b"{",
        b"\xef\xbb\xbf" + bootstrap_json(),
        bootstrap_json().decode().encode("utf-16"),
        bootstrap_json().replace(b"c-1", b"\xff"),
        bootstrap_json() + b"x",
        bootstrap_json(cluster_id=7),
        bootstrap_json(cluster_id=""),
        bootstrap_json(cluster_id="a b"),
        bootstrap_json(cluster_id="c\n"),
        bootstrap_json(cluster_id="c" * 65),
        bootstrap_json(members=[]),
        bootstrap_json(members=None),
        bootstrap_json(more=1),
        bootstrap_json(members=[member_json(role="voter")]),
        bootstrap_json(members=[member_json(id="ff")]),
        bootstrap_json(members=[member_json(id="00000000000000FF")]),
        bootstrap_json(members=[member_json(id="00000000000000ff0")]),
        bootstrap_json(members=[member_json(name="")]),
        bootstrap_json(members=[member_json(name="a\r\nb")]),
        bootstrap_json(members=[member_json(peer_url="host")]),
        bootstrap_json(members=[member_json(peer_url="http://host:1")]),
        *(
            bootstrap_json(members=[member_json(**{field: address})])
            for port in ("0", "65536", "99999", "070", "70000", "655350")
            for field, address in (("peer_url", f"h:{port}"), ("client_url", f"http://h:{port}"))
        ),
        bootstrap_json(members=[member_json(client_url="host:1")]),
        bootstrap_json(members=[member_json(client_url="http://host:1/path")]),
        bootstrap_json(members=[member_json(client_url="http://host:1\r\nX: y")]),
        bootstrap_json(members=[member_json(client_url="javascript:1")]),
        b'{"cluster_id":"c","members":[]}'.replace(b"[]", b"1e999"),
        b'{"cluster_id":"c","members":' + b"9" * 60_000 + b"}",
    ],
)
def test_bootstrap_bodies_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_bootstrap("", body)
    assert caught.value.problem.kind.code == "bad_body"


def test_a_repeated_json_field_is_named() -> None:
    body = bootstrap_json().replace(b'"name"', b'"name": "other", "name"')
    with pytest.raises(Refused, match="'name' is given more than once"):
        parse_bootstrap("", body)


def test_operations_take_no_parameters() -> None:
    with pytest.raises(Refused, match="'force'"):
        parse_bootstrap("force=true", bootstrap_json())
    with pytest.raises(Refused, match="'force'"):
        parse_drain("POST", "force=true", b"")


def test_drain() -> None:
    avoid: dict[str, Any] = {"avoid": ["00000000000000ff"]}
    assert parse_drain("POST", "", b"") == SetDrain(draining=True)
    assert parse_drain("POST", "", b"{}") == SetDrain(draining=True)
    assert parse_drain("POST", "", json.dumps(avoid).encode()) == SetDrain(True, (255,))
    assert parse_drain("DELETE", "", b"") == SetDrain(draining=False)
    with pytest.raises(Refused):
        parse_drain("POST", "", b'{"avoid":["n1"]}')
