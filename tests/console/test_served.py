"""The page and its files as HTTP: types, policy, tags, and what other origins may read."""

import gzip
import re
from importlib.resources import files

import msgspec
import pytest

from raftkv.server.console import PAGE, origin_of_member, page_files, page_policy
from raftkv.server.http.authorisation import Identity
from raftkv.server.http.problems import UNAUTHENTICATED, Refused
from raftkv.server.http.requests import Headers
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import Served, serving

CLUSTER = FakeDriver().members
MEMBER = CLUSTER.members[0].client_url
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}


def nobody(_: Headers) -> Identity:
    raise Refused(UNAUTHENTICATED, "no token")


def text_of(name: str) -> str:
    return page_files()[name].body.decode()


async def test_the_page_and_all_it_names_are_served() -> None:
    async with serving() as served:
        page = await served.ask("GET", "/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        named = set(re.findall(r'(?:src|href)="(console/[^"]+)"', page.body.decode()))
        for name in page_files():
            named |= {f"console/{each}" for each in re.findall(r'from "\./([^"]+)"', text_of(name))}
        assert named == {f"console/{name}" for name in page_files() if name != PAGE}
        for name in named:
            file = await served.ask("GET", f"/{name}")
            assert file.status == 200, name
            assert file.headers["Content-Type"].startswith(TYPES[name.rpartition(".")[2]])
            assert file.headers["Content-Security-Policy"].startswith("default-src 'none'")
            head = await served.ask("HEAD", f"/{name}")
            assert (head.status, head.body) == (200, b"")
            assert head.headers["Content-Length"] == str(len(file.body))


async def test_nothing_is_sent_twice_and_little_at_all() -> None:
    async with serving() as served:
        sent = 0
        for path in ("/", *(f"/console/{name}" for name in page_files() if name != PAGE)):
            packed = await served.ask("GET", path, headers={"Accept-Encoding": "gzip, br"})
            plain = await served.ask("GET", path)
            assert packed.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(packed.body) == plain.body
            assert packed.headers["ETag"] != plain.headers["ETag"]
            sent += len(packed.body)
            again = {"If-None-Match": plain.headers["ETag"]}
            kept = await served.ask("GET", path, headers=again)
            assert (kept.status, kept.body) == (304, b"")
            assert kept.headers["Cache-Control"] == "no-cache"
        assert sent < 40_000


@pytest.mark.parametrize("path", ["/console/", "/console/x.js", "/console/index.html",
                                  "/console/../app.js", "/console/page/app.js"])  # fmt: skip
async def test_nothing_else_is_there(served_page: Served, path: str) -> None:
    answer = await served_page.ask("GET", path)
    assert (answer.status, answer.code()) == (404, "unknown_path")
    assert (await served_page.ask("POST", "/", body=b"")).status == 405


async def test_the_policy_names_the_members_and_no_other() -> None:
    policy = page_policy(CLUSTER)
    rules = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["connect-src"].split() == ["'self'", *(m.client_url for m in CLUSTER.members)]
    assert "unsafe" not in policy
    hostile = [
        "http://a; script-src *", "http://a b", "http://*", "javascript:1", "http://u@a:1",
        "http://a:1/path", "", "http://a\r\nSet-Cookie: x",
    ]  # fmt: skip
    for url in hostile:
        member = msgspec.structs.replace(CLUSTER.members[0], client_url=url)
        cluster = msgspec.structs.replace(CLUSTER, members=(member,))
        assert "connect-src 'self';" in page_policy(cluster), url


async def test_pages_of_members_may_read_the_status_and_nothing_else() -> None:
    async with serving() as served:
        for path in ("/v1/status", "/v1/cluster"):
            answer = await served.ask("GET", path, headers={"Origin": MEMBER})
            assert answer.headers["Access-Control-Allow-Origin"] == MEMBER
            asked = {"Origin": MEMBER, "Access-Control-Request-Method": "GET"}
            allowed = await served.ask("OPTIONS", path, headers=asked)
            assert allowed.status == 200
            assert allowed.headers["Access-Control-Allow-Headers"] == "Authorization"
            for origin in ("http://evil.example", "null", MEMBER + ".evil.example"):
                answer = await served.ask("GET", path, headers={"Origin": origin})
                assert answer.headers["Vary"] == "Origin"
                assert "Access-Control-Allow-Origin" not in answer.headers
                refused = await served.ask("OPTIONS", path, headers={"Origin": origin})
                assert refused.code() == "foreign_origin"
        for path in ("/v1/kv/a", "/v1/kv", "/metrics", "/"):
            answer = await served.ask("GET", path, headers={"Origin": MEMBER})
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert (await served.ask("OPTIONS", "/v1/kv/a", headers={"Origin": MEMBER})).status == 405


def test_a_member_on_loopback_has_several_names() -> None:
    member = msgspec.structs.replace(CLUSTER.members[0], client_url="http://127.0.0.1:7400")
    cluster = msgspec.structs.replace(CLUSTER, members=(member,))
    for origin in ("http://127.0.0.1:7400", "http://localhost:7400", "http://[::1]:7400"):
        assert origin_of_member(origin, cluster) == origin
    for foreign in (
        "http://localhost:7401",
        "http://[::1]",
        "https://localhost:7400",
        "http://localhost",
        None,
    ):
        assert origin_of_member(foreign, cluster) is None


@pytest.mark.parametrize("url", ["http://n1:99999", "http://[1.2]:7400", "http://[::::]:7400"])
def test_an_address_that_is_none_stops_no_page(url: str) -> None:
    wrong = msgspec.structs.replace(CLUSTER.members[1], client_url=url)
    cluster = msgspec.structs.replace(CLUSTER, members=(wrong, CLUSTER.members[0]))
    assert origin_of_member(MEMBER, cluster) == MEMBER
    assert origin_of_member("http://evil.example", cluster) is None


async def test_the_page_needs_no_token_but_what_it_shows_does() -> None:
    async with serving(authenticate=nobody) as served:
        assert (await served.ask("GET", "/")).status == 200
        assert (await served.ask("GET", "/console/app.js")).status == 200
        assert (await served.ask("GET", "/v1/cluster")).status == 401
        headers = {"Origin": MEMBER}
        assert (await served.ask("OPTIONS", "/v1/cluster", headers=headers)).status == 200


def test_no_file_reaches_out_or_makes_markup_of_text() -> None:
    """No address but relative ones, nothing that parses, no inline handlers or styles."""
    names = {entry.name for entry in files("raftkv.server.console").joinpath("page").iterdir()}
    assert names == set(page_files())
    for name in names:
        text = text_of(name).replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.", text), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|"
            r"DOMParser|createContextualFragment|setHTMLUnsafe",
            text,
        ), name
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style", text_of(PAGE))
