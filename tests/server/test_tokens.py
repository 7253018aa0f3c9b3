"""The file of tokens, and what is let in by it."""

import hashlib
import logging
from pathlib import Path

import pytest
from multidict import CIMultiDict

from raftkv.server.http.authorisation import Grant, Role
from raftkv.server.http.problems import Refused
from raftkv.server.metrics import Metrics
from raftkv.server.reload import Reloader, WatchedFiles
from raftkv.server.tokens import FILE_BYTES_MAX, TokenFileError, Tokens, parse_tokens


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


HASH = digest("secret")


def headers(*lines: str) -> CIMultiDict[str]:
    return CIMultiDict([("Authorization", line) for line in lines])


def test_a_file_of_tokens() -> None:
    text = f"""
# who may do what
{HASH} read
{digest("w").upper()}\twrite   a%2Fb/%00\r
{digest("w")} read c
   {digest("a")} admin
"""
    assert parse_tokens(text.encode()) == {
        hashlib.sha256(b"secret").digest(): (Grant(Role.READ),),
        hashlib.sha256(b"w").digest(): (Grant(Role.WRITE, b"a/b/\0"), Grant(Role.READ, b"c")),
        hashlib.sha256(b"a").digest(): (Grant(Role.ADMIN),),
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{HASH} admin a/", "cannot limit"),
        (f"{HASH} owner", "role is read, write or admin"),
        (f"{HASH} Read", "role is read, write or admin"),
        (f"{HASH}", "a line is"),
        (f"{HASH} read a b", "a line is"),
        (f"{HASH[:-1]} read", "SHA-256"),
        (f"{HASH[:-1]}g read", "SHA-256"),
        ("secret read", "SHA-256"),
        (f"{HASH} read a%2", "percent-encoded"),
        (f"{HASH} read a%zz", "percent-encoded"),
        (f"{HASH} read ä", "percent-encoded"),
        (f"{HASH} read {'a' * 512}", "longer than any key"),
    ],
)
def test_a_broken_line_is_named_and_not_shown(line: str, says: str) -> None:
    with pytest.raises(TokenFileError) as caught:
        parse_tokens(f"# first\n{HASH} read\n{line}\n".encode())
    sentence = str(caught.value)
    assert sentence.startswith("line 3 of the token file: ")
    assert says in sentence
    assert not any(word in sentence for word in line.split() if len(word) > 5)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nobody\n"])
def test_a_file_without_a_token_is_broken(data: bytes) -> None:
    with pytest.raises(TokenFileError, match="no token"):
        parse_tokens(data)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text(f"{HASH} write a/\n")
    loaded = Tokens(path)
    loaded.load()
    return loaded


@pytest.mark.parametrize("line", ["Bearer secret", "bearer secret", "BEARER secret"])
def test_a_valid_token_has_its_grants(tokens: Tokens, line: str) -> None:
    assert tokens.authenticate(headers(line)).grants() == (Grant(Role.WRITE, b"a/"),)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        ("Bearer  ",),
        ("Bearer  secret",),
        ("Bearer secret ",),
        ("Bearer secret, Bearer secret",),
        ("Bearer secret", "Bearer secret"),
        ("Bearer secret", ""),
        ("Bearer Secret",),
        ("Bearer secret\n",),
        ("Bearer sécret",),
        (f"Bearer {HASH}",),
        ("Basic c2VjcmV0",),
        ("secret",),
        ("Bearer " + "a" * 65536,),
    ],
)
def test_row_22_anything_else_is_401(tokens: Tokens, lines: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        tokens.authenticate(headers(*lines))
    problem = caught.value.problem
    assert (problem.kind.status, problem.kind.code) == (401, "unauthenticated")
    assert problem.headers == (("WWW-Authenticate", "Bearer"),)
    assert "ecret" not in problem.detail


def test_row_24_a_revoked_token_is_refused_also_where_it_was_let_in(tokens: Tokens) -> None:
    bearer = tokens.authenticate(headers("Bearer secret"))
    tokens.path.write_text(f"{HASH} read b/\n")
    tokens.load()
    assert bearer.grants() == (Grant(Role.READ, b"b/"),)
    tokens.path.write_text(f"{digest('other')} read\n")
    tokens.load()
    with pytest.raises(Refused) as caught:
        bearer.grants()
    assert caught.value.problem.kind.status == 401


def test_a_broken_file_keeps_the_old_tokens_and_is_told_once(
    tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    reloader = Reloader(metrics)
    reloader.add(WatchedFiles("tokens", (tokens.path,), tokens.load))
    value = metrics.registry.get_sample_value
    reloader.look()
    assert value("raftkv_reload_failing", {"files": "tokens"}) == 0
    tokens.path.write_text(f"{HASH} write a/\nsecret-that-is-no-hash read\n")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            reloader.look()
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "line 2 of the token file" in record.getMessage()
    assert "secret-that" not in caplog.text
    assert value("raftkv_reload_failing", {"files": "tokens"}) == 1
    assert value("raftkv_reloads_total", {"files": "tokens"}) == 0
    [warning] = reloader.warnings()
    assert "line 2" in warning
    tokens.authenticate(headers("Bearer secret"))

    tokens.path.write_text(f"{digest('other')} read\n")
    reloader.look()
    tokens.authenticate(headers("Bearer other"))
    assert value("raftkv_reload_failing", {"files": "tokens"}) == 0
    assert value("raftkv_reloads_total", {"files": "tokens"}) == 1
    assert reloader.warnings() == ()


def test_a_file_that_is_put_back_as_it_was_is_no_failure(tokens: Tokens) -> None:
    reloader = Reloader(Metrics())
    reloader.add(WatchedFiles("tokens", (tokens.path,), tokens.load))
    kept = tokens.path.with_name("kept")
    tokens.path.rename(kept)
    reloader.look()
    assert len(reloader.warnings()) == 1
    kept.rename(tokens.path)
    reloader.look()
    assert reloader.warnings() == ()


def test_a_swapped_link_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes replaces a mounted Secret: a link to a directory is renamed over."""
    for name, token in (("v1", "one"), ("v2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(f"{digest(token)} read\n")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    tokens = Tokens(tmp_path / "tokens")
    reloader = Reloader(Metrics())
    reloader.add(WatchedFiles("tokens", (tokens.path,), tokens.load))
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    reloader.look()
    tokens.authenticate(headers("Bearer two"))
    with pytest.raises(Refused):
        tokens.authenticate(headers("Bearer one"))


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    with path.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    with pytest.raises(TokenFileError, match="larger than"):
        Tokens(path).load()
