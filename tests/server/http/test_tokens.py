"""Every call with and without a token: who is let in, and what a refusal tells."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from multidict import CIMultiDict

from raftkv.kv.commands import AcquireLock, GrantLease, Put, RevokeLease, encode_command
from raftkv.node.events import GetLease, LeaseFound, LeaseInfo
from raftkv.server import watches
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.handlers import CALLS as CALLS_BY_NAME
from raftkv.server.http.render import StreamBroken
from raftkv.server.http.routes import ROUTES, Listener, Route, match_route
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics
from raftkv.server.tokens import Tokens
from tests.server.http.fake_driver import LEADER_ID, FakeDriver
from tests.server.http.harness import Answer, Served, serving

BOTH_LOOPS = True

SECRET_KEY = b"app/secret-key"
GRANTS = {
    "reader": "read app/",
    "writer": "write app/",
    "foreign": "write other/",
    "anybody": "write",
    "boss": "admin",
}
_MEMBER = (
    b'{"id":"00abcdef01234567","name":"n1","peer_url":"n1:7401","client_url":"http://n1:7400"}'
)
_BOOTSTRAP = b'{"cluster_id":"c1","members":[' + _MEMBER + b"]}"


def _txn(**lists: list[dict[str, Any]]) -> bytes:
    return json.dumps(lists).encode()


class Call(NamedTuple):
    """A request, and which of the tokens above may make it. All touch `SECRET_KEY` or ``app/``."""

    method: str
    target: str
    allowed: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


READERS = "reader writer anybody boss"
WRITERS = "writer anybody boss"
ALL = " ".join(GRANTS)
BEYOND = "anybody boss"
_LEASE = f"{102:016x}"  # has keys below app/
_TOKEN = 104  # of a lock below app/
_FENCE = (("X-RaftKV-Fence", f"app%2Fsecret-lock:{_TOKEN}"),)
_COMPARE = {"key": "app/secret-key", "target": "version", "op": ">", "value": 0}
_GET = {"op": "get", "key": "app/secret-key"}
_PUT = {"op": "put", "key": "app/secret-key", "value": "v"}
_REMOVE = {"op": "delete_range"}
_ENCODED = "/v1/k/YXBwL3NlY3JldC1rZXk"
_KEY = "/v1/kv/app/secret-key"
CALLS = (
    Call("GET", _KEY, READERS),
    Call("HEAD", _KEY, READERS),
    Call("GET", _KEY + "?consistency=local", READERS),
    Call("GET", _KEY + "?revision=101", READERS),
    Call("GET", "/v1/kv/app%2Fsecret%2Dkey", READERS),
    Call("GET", _ENCODED, READERS),
    Call("PUT", _KEY, WRITERS, b"v"),
    Call("PUT", _KEY + "?prev=true", WRITERS, b"v"),
    Call("PUT", _KEY + "?redirect=true", WRITERS, b"v"),
    Call("PUT", _KEY, WRITERS, b"v", (("If-Match", "*"),)),
    Call("PUT", _ENCODED, WRITERS, b"v"),
    Call("DELETE", _KEY, WRITERS),
    Call("DELETE", _ENCODED, WRITERS),
    Call("POST", _KEY + "?op=append", WRITERS, b"v"),
    Call("POST", _ENCODED + "?op=append", WRITERS, b"v"),
    Call("POST", "/v1/kv/app/counter?op=increment", WRITERS),
    Call("GET", "/v1/kv?prefix=app/", READERS),
    Call("GET", "/v1/kv?prefix=app/&keys_only=true", READERS),
    Call("GET", "/v1/kv?prefix=app/&count_only=true", READERS),
    Call("GET", "/v1/kv?start=app/&end=app0", READERS),
    Call("GET", "/v1/kv?prefix=app/", READERS, headers=(("Accept", "application/x-ndjson"),)),
    # Reaching beyond the prefix is refused, not cut short.
    Call("GET", "/v1/kv", "anybody boss"),
    Call("GET", "/v1/kv?prefix=app", "anybody boss"),
    Call("GET", "/v1/kv?start=app/&end=app1", "anybody boss"),
    Call("GET", "/v1/kv?start=app/", "anybody boss"),
    Call("DELETE", "/v1/kv?prefix=app/", WRITERS),
    Call("DELETE", "/v1/kv?prefix=app", "anybody boss"),
    Call("DELETE", "/v1/kv?all=true", "anybody boss"),
    Call("GET", _KEY + "?after=100&wait=30s", READERS),
    Call("GET", "/v1/watch?prefix=app/", READERS),
    Call("GET", "/v1/watch?key=app/secret-key&prev=true", READERS),
    Call("GET", "/v1/watch?key=app/secret-key&from=100", READERS),
    Call("HEAD", "/v1/watch?key=app/secret-key", READERS),
    Call("GET", "/v1/watch?prefix=app", "anybody boss"),
    Call("GET", "/v1/watch?prefix=", "anybody boss"),
    Call("POST", "/v1/txn", READERS, _txn(compare=[_COMPARE], success=[_GET])),
    Call("POST", "/v1/txn", WRITERS, _txn(compare=[_COMPARE], success=[_PUT], failure=[_GET])),
    Call("POST", "/v1/txn", WRITERS, _txn(success=[_GET], failure=[_PUT])),
    Call("POST", "/v1/txn", WRITERS, _txn(success=[_REMOVE | {"prefix": "app/"}])),
    # Each of its parts is looked at: also in the list that is not done.
    Call("POST", "/v1/txn", BEYOND, _txn(compare=[_COMPARE | {"key": "b"}], success=[_GET])),
    Call("POST", "/v1/txn", BEYOND, _txn(success=[_GET], failure=[_GET | {"key": "b"}])),
    Call("POST", "/v1/txn", BEYOND, _txn(success=[_REMOVE | {"prefix": "app"}])),
    Call("POST", "/v1/txn", BEYOND, _txn(success=[_PUT | {"key": "other/a", "lease": _LEASE}])),
    Call("POST", "/v1/leases", "writer foreign anybody boss", b'{"ttl":"30s"}'),
    Call("GET", "/v1/leases", ALL),
    Call("GET", f"/v1/leases/{_LEASE}", READERS),
    Call("POST", f"/v1/leases/{_LEASE}/keepalive", WRITERS),
    Call("DELETE", f"/v1/leases/{_LEASE}", WRITERS),
    Call("PUT", f"{_KEY}?lease={_LEASE}", WRITERS, b"v"),
    Call("PUT", f"/v1/kv/other/a?lease={_LEASE}", BEYOND, b"v"),
    Call("GET", "/v1/locks", ALL),
    Call("GET", "/v1/locks/app%2Fsecret-lock", READERS),
    Call("POST", "/v1/locks/app%2Fsecret-lock", WRITERS, b'{"ttl":"30s","owner":"me"}'),
    Call("POST", f"/v1/locks/app%2Fsecret-lock/keepalive?token={_TOKEN}", WRITERS),
    Call("DELETE", f"/v1/locks/app%2Fsecret-lock?token={_TOKEN}", WRITERS),
    Call("PUT", _KEY, WRITERS, b"v", _FENCE),
    Call("PUT", "/v1/kv/other/a", BEYOND, b"v", _FENCE),
    Call("GET", "/v1/status", ALL),
    Call("GET", "/v1/cluster", ALL),
    Call("GET", "/metrics", ALL),
    Call("POST", "/v1/cluster/bootstrap", "boss", _BOOTSTRAP),
    Call("GET", "/v1/backup", "boss"),
    Call("POST", "/v1/cluster/members", "boss", _MEMBER),
    Call("POST", f"/v1/cluster/members/{_LEASE}/promote", "boss"),
    Call("POST", f"/v1/cluster/members/{_LEASE}/replace", "boss", b'{"by":"00000000000000ff"}'),
    Call("DELETE", f"/v1/cluster/members/{_LEASE}", "boss"),
    Call("POST", "/v1/cluster/leader", "boss"),
    Call("POST", "/v1/maintenance/snapshot", "boss"),
    Call("POST", "/v1/maintenance/compact", "boss", b'{"revision":101}'),
    Call("POST", "/v1/maintenance/drain", "boss"),
    Call("DELETE", "/v1/maintenance/drain", "boss"),
)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    made = Tokens(tmp_path / "tokens")
    lines = (f"{hashlib.sha256(n.encode()).hexdigest()} {g}\n" for n, g in GRANTS.items())
    made.path.write_text("".join(lines))
    made.load()
    return made


@asynccontextmanager
async def guarded(tokens: Tokens, listener: Listener | None = None) -> AsyncIterator[Served]:
    driver = FakeDriver()
    driver.apply(
        encode_command(Put(SECRET_KEY, b"secret-value")),
        encode_command(GrantLease(30_000, 10)),
        encode_command(Put(b"app/secret-leased", b"secret-value", None, 102)),
        encode_command(AcquireLock(b"app/secret-lock", b"me", 30_000, 0, 10)),
    )
    listener = listener or Listener.CLIENT | Listener.ADMIN
    async with serving(driver, listener=listener, authenticate=tokens.authenticate) as served:
        yield served


async def ask(served: Served, call: Call, *lines: str) -> Answer:
    headers = [*call.headers, *(("Authorization", line) for line in lines)]
    return await served.ask(call.method, call.target, body=call.body, headers=headers)


def what_was_asked(driver: FakeDriver) -> tuple[object, ...]:
    # Whose a lease is can be known only by looking at its keys.
    queries = [query for query in driver.queries if not isinstance(query, GetLease)]
    return (
        *driver.commands, *queries, *driver.bootstraps, *driver.drains, *driver.changes,
        *driver.transfers,
    )  # fmt: skip


def test_every_route_is_in_the_table_above() -> None:
    """Whoever adds a route adds a call of it to `CALLS`, and says who may make it."""
    everywhere = Listener.CLIENT | Listener.ADMIN | Listener.METRICS
    called: set[Route] = {
        match_route(call.method, call.target.partition("?")[0], everywhere).route for call in CALLS
    }
    assert [route for route in ROUTES if route.needs_token and route not in called] == []


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.target}")
async def test_row_23_a_token_does_what_its_grants_say(tokens: Tokens, call: Call) -> None:
    """Whatever is not allowed asks nothing of the node and names no key."""
    for name in GRANTS:
        async with guarded(tokens) as served:
            answer = await ask(served, call, f"Bearer {name}")
            if name in call.allowed.split():
                assert answer.status < 300, (name, answer)
                continue
            assert answer.status == 403, (name, answer)
            if call.method != "HEAD":
                assert answer.code() == "forbidden"
            assert what_was_asked(served.driver) == ()
            text = str(answer)
            assert b"secret" not in answer.body
            assert "secret" not in text


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.target}")
async def test_row_22_without_a_token_nothing_is_done(tokens: Tokens, call: Call) -> None:
    async with guarded(tokens) as served:
        for lines in ((), ("Bearer no-such-token",)):
            answer = await ask(served, call, *lines)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            if call.method != "HEAD":
                assert answer.code() == "unauthenticated"
            assert b"no-such-token" not in answer.body
        assert what_was_asked(served.driver) == ()


@pytest.mark.parametrize("size", [4097, 8000, 9000, 65_536, 200_000])
async def test_row_22_a_token_without_end_is_401(tokens: Tokens, size: int) -> None:
    async with guarded(tokens) as served:
        answer = await ask(served, CALLS[0], "Bearer " + "a" * size)
    assert (answer.status, answer.code()) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert len(answer.body) < 500


async def test_row_22_two_tokens_are_401_even_if_both_are_valid(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        answer = await ask(served, CALLS[0], "Bearer boss", "Bearer boss")
    assert answer.status == 401


async def test_probes_need_no_token(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        for path in ("/livez", "/readyz", "/readyz?verbose"):
            assert (await served.ask("GET", path)).status == 200


async def test_row_35_metrics_need_a_token_but_on_their_own_listener(tokens: Tokens) -> None:
    """Which `raftkv.server.process` opens without tokens, and which serves nothing else."""
    for listener in (Listener.CLIENT, Listener.ADMIN):
        async with guarded(tokens, listener) as served:
            assert (await served.ask("GET", "/metrics")).status == 401
    async with serving(listener=Listener.METRICS) as served:
        assert (await served.ask("GET", "/metrics")).status == 200
        assert (await served.ask("GET", "/v1/status")).status == 404
        assert (await served.ask("GET", "/v1/kv/a")).status == 404
        assert (await served.ask("GET", "/debug")).status == 404


async def test_row_23_a_refusal_is_the_same_whether_the_key_exists(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        answers = [
            await served.ask(method, target, headers={"Authorization": "Bearer foreign"})
            for method in ("GET", "DELETE")
            for target in (_KEY, "/v1/kv/app/none")
        ]
    for there, absent in (answers[:2], answers[2:]):
        assert (there.status, there.body) == (absent.status, absent.body)
        assert "ETag" not in there.headers


async def test_row_23_an_unknown_path_tells_nothing(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        assert (await served.ask("GET", "/v1/nothing")).status == 404
        assert (await served.ask("PATCH", _KEY)).status == 405


async def test_row_34_the_leaders_address_comes_from_its_settings(tokens: Tokens) -> None:
    """Never from what a client or a proxy says that it is called."""
    async with guarded(tokens) as served:
        served.driver.change(leader=LEADER_ID)
        for name in (
            "Host",
            "X-Forwarded-Host",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "Forwarded",
        ):
            value = "host=evil.localhost" if name == "Forwarded" else "evil.localhost"
            lines = (("Authorization", "Bearer writer"), (name, value))
            answer = await served.ask("PUT", _KEY + "?redirect=true", body=b"v", headers=[*lines])
            assert answer.status == 307
            assert answer.headers["Location"] == f"http://n2:7400{_KEY}?redirect=true"
            # Who may not write is not told where the leader is.
            lines = (("Authorization", "Bearer foreign"), (name, value))
            answer = await served.ask("PUT", _KEY + "?redirect=true", body=b"v", headers=[*lines])
            assert (answer.status, answer.headers.get("Location")) == (403, None)


async def test_row_24_a_revoked_token_is_refused_at_once(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        assert (await ask(served, CALLS[0], "Bearer reader")).status == 200
        kept = [line for line in tokens.path.read_text().splitlines() if "read" not in line]
        tokens.path.write_text("\n".join(kept) + "\n")
        tokens.load()
        assert (await ask(served, CALLS[0], "Bearer reader")).status == 401
        assert (await ask(served, CALLS[0], "Bearer writer")).status == 200


async def test_a_call_that_does_not_ask_who_may_make_it_fails(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is added without a check is closed to everybody, not open."""
    monkeypatch.setattr("raftkv.server.http.calls.keys.authorise", lambda *_: None)
    async with guarded(tokens) as served:
        answer = await ask(served, CALLS[0], "Bearer boss")
    assert (answer.status, answer.code()) == (500, "internal")
    assert b"secret" not in answer.body


async def test_row_24_a_watch_of_a_revoked_token_ends(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "LOOK_SECONDS", 0.01)
    async with guarded(tokens) as served, served.connect() as revoked, served.connect() as kept:
        for raw, name in ((revoked, "reader"), (kept, "writer")):
            head = f"GET /v1/watch?prefix=app/ HTTP/1.1\r\nAuthorization: Bearer {name}\r\n"
            raw.send(head.encode() + b"Host: localhost\r\nConnection: close\r\n\r\n")
            await raw.reader.readuntil(b"\n\n\r\n")
        lines = [line for line in tokens.path.read_text().splitlines() if "read" not in line]
        tokens.path.write_text("\n".join(lines) + "\n")
        tokens.load()
        assert await revoked.until_closed() == b"0\r\n\r\n"
        served.driver.apply(encode_command(Put(SECRET_KEY, b"after")))
        assert b'"after"' in await kept.reader.readuntil(b"\n\n\r\n")


@pytest.mark.parametrize(
    ("name", "path", "query", "accept"),
    [
        ("reader", "/v1/kv", "prefix=app/", "application/x-ndjson"),
        ("boss", "/v1/backup", "", "*/*"),
    ],
)
async def test_row_24_a_long_answer_to_a_revoked_token_breaks_off(
    tokens: Tokens, name: str, path: str, query: str, accept: str
) -> None:
    async def no_body(_: int) -> bytes:
        return b""

    driver = FakeDriver()
    for number in range(4):
        driver.apply(encode_command(Put(b"app/%d" % number, bytes(200_000))))
    headers = CIMultiDict({"Authorization": f"Bearer {name}", "Accept": accept})
    request = Request("GET", path, headers, no_body, identity=tokens.authenticate(headers))
    match = match_route("GET", path, Listener.CLIENT | Listener.ADMIN)
    at = Endpoint(driver, HttpSettings(node_name="n1"), Metrics())
    stream = (await CALLS_BY_NAME[match.route.handler](at, request, match, query)).stream
    assert stream is not None
    assert await anext(stream)
    assert await anext(stream)
    lines = [line for line in tokens.path.read_text().splitlines() if "other/" in line]
    tokens.path.write_text("\n".join(lines) + "\n")
    tokens.load()
    with pytest.raises(StreamBroken):
        await anext(stream)


async def test_row_23_lists_show_what_the_token_may_read(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        for name, is_shown in (("reader", True), ("boss", True), ("foreign", False)):
            bearer = {"Authorization": f"Bearer {name}"}
            leases = (await served.ask("GET", "/v1/leases", headers=bearer)).json()["leases"]
            assert (_LEASE in {lease["id"] for lease in leases}) is is_shown
            locks = (await served.ask("GET", "/v1/locks", headers=bearer)).json()["locks"]
            assert [lock["name"] for lock in locks] == ["app/secret-lock"] * is_shown


async def test_row_23_a_lease_that_gets_a_foreign_key_meanwhile_is_not_revoked(
    tokens: Tokens,
) -> None:
    async with guarded(tokens) as served:
        served.driver.finds[GetLease] = LeaseFound(LeaseInfo(102, 30_000, 30_000, ()), 104)
        bearer = {"Authorization": "Bearer foreign"}
        answer = await served.ask("DELETE", f"/v1/leases/{_LEASE}", headers=bearer)
        assert (answer.status, answer.code()) == (403, "forbidden")
        assert served.driver.commands == [RevokeLease(102, b"other/")]
        assert b"app/secret-leased" in served.driver.items


async def test_row_23_the_cursor_of_a_list_names_no_lock_beyond_the_grants(tokens: Tokens) -> None:
    names = [b"aaa", b"app/1", b"app/2", b"b/secret", b"other", b"other/", b"other/x", b"zz/secret"]
    async with guarded(tokens) as served:
        served.driver.apply(
            *(encode_command(AcquireLock(name, b"o", 30_000, 0, 10)) for name in names)
        )
        for who, shown in (
            ("reader", ["app/1", "app/2", "app/secret-lock"]),
            ("foreign", ["other/", "other/x"]),
        ):
            for limit in range(1, 10):
                seen: list[str] = []
                cursor = ""
                while True:
                    answer = await served.ask(
                        "GET",
                        f"/v1/locks?limit={limit}{cursor}",
                        headers={"Authorization": f"Bearer {who}"},
                    )
                    page = answer.json()
                    seen += [lock["name"] for lock in page["locks"]]
                    if page["next_cursor"] is None:
                        break
                    text = page["next_cursor"]
                    place = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
                    assert b"secret" not in place.replace(b"app/secret", b"")
                    cursor = f"&cursor={text}"
                assert seen == shown
