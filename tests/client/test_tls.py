"""https: who is trusted, and what is said when somebody is not."""

import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner

from raftkv.cli.main import main
from raftkv.client import Client, UnreachableError, ssl_context
from tests.certificates import Authority, Issued
from tests.client.contract_server import contract_server


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def mine(ours: Authority) -> Issued:
    return ours.issue("client")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "theirs")


def server_context(authority: Authority, *, asks_clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    node = authority.issue("node")
    context.load_cert_chain(node.cert, node.key)
    if asks_clients:
        context.load_verify_locations(str(authority.cert))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_trusted_node_is_talked_to(ours: Authority, mine: Issued) -> None:
    async with contract_server(server_context(ours, asks_clients=True)) as server:
        context = ssl_context(cacert=ours.cert, cert=mine.cert, key=mine.key)
        async with Client([server.url], ssl=context) as client:
            await client.put(b"k", b"v")
        assert len(server.executed) == 1


async def test_a_stranger_is_not_and_is_told_nothing(ours: Authority, theirs: Authority) -> None:
    async with contract_server(server_context(theirs)) as server:
        context = ssl_context(cacert=ours.cert)
        async with Client([server.url], ssl=context, token="s3cret", fail_fast=True) as client:
            with pytest.raises(UnreachableError, match="certificate is not trusted"):
                await client.put(b"k", b"v")
        assert not server.requests


async def test_a_node_that_asks_for_a_certificate_gets_none(ours: Authority) -> None:
    async with contract_server(server_context(ours, asks_clients=True)) as server:
        context = ssl_context(cacert=ours.cert)
        async with Client([server.url], ssl=context, timeout_seconds=0.5) as client:
            with pytest.raises(UnreachableError):
                await client.get(b"k")
        assert not server.requests


def test_files_that_cannot_be_used_are_named(
    ours: Authority, mine: Issued, theirs: Authority
) -> None:
    with pytest.raises(ValueError, match=r"client\.key holds no certificates"):
        ssl_context(cacert=mine.key)
    with pytest.raises(ValueError, match=r"gone\.pem holds no certificates"):
        ssl_context(cacert=ours.cert.with_name("gone.pem"))
    with pytest.raises(ValueError, match=r"client\.pem and its key cannot be used"):
        ssl_context(cert=mine.cert, key=theirs.issue("client").key)
    with pytest.raises(ValueError, match="a key needs the certificate"):
        ssl_context(key=mine.key)


def test_the_command_line_names_them_too(mine: Issued) -> None:
    for flags in (("--cacert", str(mine.key)), ("--key", str(mine.key)), ("--cert", "/gone")):
        failed = CliRunner().invoke(main, ["get", "k", *flags])
        assert failed.exit_code == 2
        assert failed.stderr.count("Error") == 1
