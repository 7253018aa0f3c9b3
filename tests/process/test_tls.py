"""Real processes with everything on: encrypted links, HTTPS, client certificates, tokens.

And what happens to them when files are replaced, and when the files are not right.
"""

import asyncio
import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.certificates import Authority, Issued
from tests.process.cluster import COMMAND, Cluster, NodeProcess, wait_until
from tests.process.ports import free_port

pytestmark = pytest.mark.process

ADMIN = "an-administrators-token-5d0f1c"
WRITER = "a-writers-token-93ab77"
READER = "a-readers-token-c40e2d"
UNKNOWN = "a-token-of-nobody-8b1a55"


def token_line(token: str, grant: str) -> str:
    return f"{hashlib.sha256(token.encode()).hexdigest()} {grant}\n"


class Secrets:
    """What all nodes read, as Kubernetes mounts it: links through one that is replaced."""

    NAMES = ("tls.crt", "tls.key", "ca.crt", "peer.crt", "peer.key", "peer-ca.crt", "tokens")

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.versions = 0
        self.clients = Authority(directory / "made", "clients-1")
        self.servers = Authority(directory / "made", "servers-1")
        self.peers = Authority(directory / "made", "peers-1")
        self.client = self.clients.issue("client", usage="clientAuth")
        self.files: dict[str, bytes] = {}
        self.put_pair("tls", self.servers.issue("server", usage="serverAuth"))
        self.put_pair("peer", self.peers.issue("peer"))
        self.put("ca.crt", self.clients.cert.read_bytes())
        self.put("peer-ca.crt", self.peers.cert.read_bytes())
        tokens = [(ADMIN, "admin"), (WRITER, "write app/"), (READER, "read")]
        self.put("tokens", "".join(token_line(*token) for token in tokens).encode())
        self.publish()
        for name in self.NAMES:
            (directory / name).symlink_to(f"..data/{name}")

    def put(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def put_pair(self, name: str, issued: Issued) -> None:
        self.put(f"{name}.crt", issued.cert.read_bytes())
        self.put(f"{name}.key", issued.key.read_bytes())

    def publish(self) -> None:
        """All at once, by renaming one link."""
        self.versions += 1
        made = self.directory / f"..v{self.versions}"
        made.mkdir()
        for name, data in self.files.items():
            (made / name).write_bytes(data)
        link = self.directory / "..new"
        link.symlink_to(made.name)
        link.rename(self.directory / "..data")

    def flags(self) -> tuple[str, ...]:
        place = self.directory
        return (
            *("--tls-cert", f"{place}/tls.crt", "--tls-key", f"{place}/tls.key"),
            *("--tls-ca", f"{place}/ca.crt", "--auth-token-file", f"{place}/tokens"),
            *("--peer-tls-cert", f"{place}/peer.crt", "--peer-tls-key", f"{place}/peer.key"),
            *("--peer-tls-ca", f"{place}/peer-ca.crt"),
        )

    def client_context(self) -> ssl.SSLContext:
        return self.servers.client_context(self.client)


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    place = tmp_path / "secrets"
    place.mkdir()
    return Secrets(place)


@asynccontextmanager
async def secured(tmp_path: Path, secrets: Secrets) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, extra=secrets.flags(), tls=secrets.client_context(), token=ADMIN)
    async with cluster:
        yield cluster


@dataclass
class Caller:
    """Sends requests with a certificate and a token, each on a connection of its own."""

    tls: ssl.SSLContext
    token: str | None = None
    bodies: list[bytes] = field(default_factory=list)  # of all answers
    location: str = ""

    async def __call__(self, method: str, url: str, body: bytes | None = None) -> int:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        connector = aiohttp.TCPConnector(ssl=self.tls, force_close=True)
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            self.bodies.append(await response.read())
            self.location = response.headers.get("Location", "")
            return response.status


async def metric(node: NodeProcess, caller: Caller, name: str) -> float:
    """A sample of /metrics; 0 if it is not there."""
    assert await caller("GET", f"{node.url}/metrics") == 200
    for line in caller.bodies[-1].decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return 0.0


async def wait_metric(
    node: NodeProcess, caller: Caller, name: str, least: float, seconds: float = 10.0
) -> None:
    async def look() -> bool | None:
        return (await metric(node, caller, name)) >= least or None

    await wait_until(f"{name} of {node.name} is {least}", look, seconds)


async def test_three_nodes_with_tls_and_tokens(tmp_path: Path, secrets: Secrets) -> None:
    tls = secrets.client_context()
    admin, writer, reader = (Caller(tls, token) for token in (ADMIN, WRITER, READER))
    async with secured(tmp_path, secrets) as cluster:
        leader = await cluster.wait_leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        key = "/v1/kv/app/one"
        assert await writer("PUT", follower.url + key, b"value") == 201
        for node in cluster.nodes:
            assert await reader("GET", node.url + key) == 200
            assert reader.bodies[-1] == b"value"

        # Row 23: each token does what it may, on whatever node.
        assert await reader("PUT", leader.url + key, b"x") == 403
        assert await writer("PUT", follower.url + "/v1/kv/other", b"x") == 403
        assert await writer("GET", follower.url + "/v1/kv") == 403
        assert await writer("GET", follower.url + "/v1/kv?prefix=app/") == 200
        assert await writer("POST", follower.url + "/v1/maintenance/drain") == 403
        assert await admin("PUT", follower.url + "/v1/kv/other", b"x") == 201
        # Row 22.
        for caller in (Caller(tls), Caller(tls, UNKNOWN), Caller(tls, "")):
            assert await caller("GET", leader.url + key) == 401
            assert await caller("GET", f"{leader.url}/readyz") == 200
            admin.bodies += caller.bodies
        # The leader's address comes from its settings (row 34).
        assert await writer("PUT", follower.url + key + "?redirect=true", b"x") == 307
        assert writer.location == leader.url + key + "?redirect=true"

        # Row 26: no certificate, one of another authority, no TLS.
        strangers = Authority(tmp_path / "strangers")
        spy = secrets.servers.client_context(strangers.issue("spy"))
        for wrong in (secrets.servers.client_context(), spy):
            with pytest.raises((aiohttp.ClientError, OSError)):
                await Caller(wrong, ADMIN)("GET", leader.url + key)
        with pytest.raises((aiohttp.ClientError, OSError)):
            await admin("GET", f"http://127.0.0.1:{leader.port}/livez")
        await wait_metric(leader, admin, "raftkv_tls_handshakes_failed_total", 3)
        assert leader.log.read_text().count("TLS with a client failed: peer did not return") == 1
        await by_command_line(secrets, follower.url)
        await watched(follower.url, tls, writer)

        status = await cluster.status(leader)
        assert status is not None
        assert (status["warnings"], status["insecure_listeners"]) == ([], [])
        await metric(leader, admin, "raftkv_term")
        scraped = admin.bodies[-1]
    bodies = [*admin.bodies, *writer.bodies, *reader.bodies, scraped]
    assert leaked(tmp_path, bodies, (ADMIN, WRITER, READER, UNKNOWN)) == []


async def watched(url: str, tls: ssl.SSLContext, writer: Caller) -> None:
    """A stream without end passes through TLS event by event."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls), headers={"Authorization": f"Bearer {READER}"}
    )
    async with session, session.get(f"{url}/v1/watch?prefix=app/") as stream:
        assert stream.status == 200
        for number in range(3):
            path = f"/v1/kv/app/watched-{number}"
            assert await writer("PUT", url + path, b"x" * 100_000) == 201
            async with asyncio.timeout(10):
                while f'"app/watched-{number}"' not in (await stream.content.readline()).decode():
                    pass


async def by_command_line(secrets: Secrets, url: str) -> None:
    """What `raftkv get` says with the right files and token, and with a wrong token."""
    environment = {
        **os.environ,
        "RAFTKV_ENDPOINTS": url,
        "RAFTKV_CACERT": str(secrets.servers.cert),
        "RAFTKV_CERT": str(secrets.client.cert),
        "RAFTKV_KEY": str(secrets.client.key),
    }
    for token, key, code, says in (
        (READER, "app/one", 0, "value"),
        (WRITER, "other", 1, "the token does not allow this"),
        (UNKNOWN, "app/one", 1, "the token is not valid"),
    ):
        ended = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, "get", key],
            env={**environment, "RAFTKV_TOKEN": token},
            capture_output=True,
            check=False,
            timeout=30,
            text=True,
        )
        assert ended.returncode == code
        assert says in ended.stdout + ended.stderr
        assert token not in ended.stdout + ended.stderr


def leaked(directory: Path, bodies: list[bytes], tokens: tuple[str, ...]) -> list[str]:
    """Where a token or its hash stands: in a log, on a disk or in what was answered."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    written = [path for path in files if "secrets" not in path.parts]
    assert any(path.suffix == ".log" for path in written)
    assert any("wal" in path.parts for path in written)
    places = {str(path): path.read_bytes() for path in written}
    places |= {f"answer {number}": body for number, body in enumerate(bodies)}
    digests = [hashlib.sha256(token.encode()) for token in tokens]
    sought = [token.encode() for token in tokens]
    sought += [digest.digest() for digest in digests]
    sought += [digest.hexdigest().encode() for digest in digests]
    return [place for place, data in places.items() if any(each in data for each in sought)]


@dataclass
class Load:
    """Writes without end, half of them on connections of their own; remembers every answer."""

    urls: list[str]
    tls: ssl.SSLContext
    acknowledged: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self, worker: int) -> None:
        """Until cancelled."""
        number = 0
        headers = {"Authorization": f"Bearer {WRITER}"}
        while True:
            connector = aiohttp.TCPConnector(ssl=self.tls)
            timeout = aiohttp.ClientTimeout(total=10)
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, headers=headers
            ) as session:
                for _ in range(1 if worker % 2 else 200):
                    number += 1
                    path = f"/v1/kv/app/{worker}-{number}"
                    url = self.urls[number % len(self.urls)] + path
                    try:
                        async with session.put(url, data=b"v") as response:
                            await response.read()
                            if response.status != 201:
                                self.failures.append(f"{path}: {response.status}")
                            self.acknowledged.append(path)
                    except (aiohttp.ClientError, OSError) as error:
                        self.failures.append(f"{path}: {error!r}")
                    await asyncio.sleep(0.01)


@pytest.mark.long
async def test_a_rotation_of_everything_under_load_loses_nothing(
    tmp_path: Path, secrets: Secrets
) -> None:
    """Trust old and new, show the new, trust the new alone; as docs/security.md says."""
    made = secrets.directory / "made"
    clients, servers, peers = (Authority(made, f"{n}-2") for n in ("clients", "servers", "peers"))
    new_client = clients.issue("new-client", usage="clientAuth")
    both = made / "both.pem"
    both.write_bytes(secrets.servers.cert.read_bytes() + servers.cert.read_bytes())

    def context(issued: Issued) -> ssl.SSLContext:
        made_context = ssl.create_default_context(cafile=str(both))
        made_context.load_cert_chain(issued.cert, issued.key)
        return made_context

    async with secured(tmp_path, secrets) as cluster:
        leader = await cluster.wait_leader()
        before = await cluster.status(leader)
        load = Load(cluster.urls, context(secrets.client))
        caller = Caller(load.tls, ADMIN)

        async def rotate(step: int) -> None:
            secrets.publish()
            for node in cluster.nodes:
                for files in ("tls", "peer_tls"):
                    await wait_metric(
                        node, caller, f'raftkv_reloads_total{{files="{files}"}}', step
                    )
            goal = len(load.acknowledged) + 50

            async def look() -> bool | None:
                return len(load.acknowledged) >= goal or bool(load.failures) or None

            await wait_until("50 more writes", look, 20)

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(load.run(number)) for number in range(4)]
            secrets.files["ca.crt"] += clients.cert.read_bytes()
            secrets.files["peer-ca.crt"] += peers.cert.read_bytes()
            await rotate(1)
            secrets.put_pair("tls", servers.issue("new-server", usage="serverAuth"))
            secrets.put_pair("peer", peers.issue("new-peer"))
            load.tls = caller.tls = context(new_client)
            await rotate(2)
            # The connections that are kept end after 200 requests; then all show the new one.
            secrets.put("ca.crt", clients.cert.read_bytes())
            secrets.put("peer-ca.crt", peers.cert.read_bytes())
            await rotate(3)
            for worker in workers:
                worker.cancel()
        assert load.failures == []
        assert len(load.acknowledged) > 150

        # Nobody had to vote; and nobody gets in with what was valid at the beginning.
        after = await wait_until_status(cluster, leader, context(new_client))
        assert before is not None
        assert (after["term"], after["leader"]) == (before["term"], before["leader"])
        with pytest.raises((aiohttp.ClientError, OSError)):
            await Caller(context(secrets.client), ADMIN)("GET", f"{leader.url}/livez")
        # A node that comes back finds its peers under the new authority.
        follower = next(node for node in cluster.nodes if node is not leader)
        follower.kill()
        follower.start()
        reader = Caller(context(new_client), READER)
        await wait_ready(follower, reader)
        for path in load.acknowledged:
            assert await reader("GET", f"{follower.url}{path}?consistency=local") == 200, path


async def wait_until_status(
    cluster: Cluster, node: NodeProcess, tls: ssl.SSLContext
) -> dict[str, object]:
    """`/v1/status`, asked with another context than the cluster's own."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls), headers={"Authorization": f"Bearer {ADMIN}"}
    )
    async with session, session.get(f"{node.url}/v1/status") as response:
        status: dict[str, object] = await response.json()
        return status


async def wait_ready(node: NodeProcess, caller: Caller) -> None:
    async def look() -> bool | None:
        try:
            return await caller("GET", f"{node.url}/readyz") == 200 or None
        except (aiohttp.ClientError, OSError):
            return None

    await wait_until(f"{node.name} ready", look, 20)


async def test_row_26_a_member_with_certificates_of_another_cluster_is_kept_out(
    tmp_path: Path, secrets: Secrets
) -> None:
    other = Secrets(tmp_path / "other")
    tls = secrets.client_context()
    admin = Caller(tls, ADMIN)
    async with secured(tmp_path, secrets) as cluster:
        leader = await cluster.wait_leader()
        status = await cluster.status(leader)
        victim = next(node for node in cluster.nodes if node is not leader)
        victim.kill()
        good = victim.arguments
        swaps = dict(zip(secrets.flags()[9:12:2], other.flags()[9:12:2], strict=True))
        victim.arguments = [swaps.get(argument, argument) for argument in good]
        victim.start()
        refused = 'raftkv_peer_connections_refused_total{reason="tls"}'
        await wait_metric(leader, admin, refused, 3)
        assert await admin("GET", f"{victim.url}/readyz") == 503
        assert await admin("PUT", f"{leader.url}/v1/kv/a", b"1") == 201
        now = await cluster.status(leader)
        assert status is not None
        assert now is not None
        assert now["term"] == status["term"]
        assert "cannot reach" in victim.log.read_text()
        victim.kill()
        victim.arguments = good
        victim.start()
        await cluster.wait_ready()
        assert await admin("GET", f"{victim.url}/v1/kv/a") == 200


async def test_a_broken_token_file_keeps_the_old_tokens(tmp_path: Path, secrets: Secrets) -> None:
    tls = secrets.client_context()
    writer, admin = Caller(tls, WRITER), Caller(tls, ADMIN)
    async with secured(tmp_path, secrets) as cluster:
        node = cluster.nodes[0]
        good = secrets.files["tokens"]
        secrets.put("tokens", good + b"my-secret-in-the-wrong-place write\n")
        secrets.publish()
        await wait_metric(node, admin, 'raftkv_reload_failing{files="tokens"}', 1)
        assert await writer("PUT", f"{node.url}/v1/kv/app/a", b"1") == 201
        status = await cluster.status(node)
        assert status is not None
        [warning] = status["warnings"]
        assert "line 4 of the token file" in warning
        assert "my-secret" not in warning
        # Row 24: what was valid a moment ago is not any more.
        secrets.put("tokens", token_line(ADMIN, "admin").encode())
        secrets.publish()
        for each in cluster.nodes:
            await wait_metric(each, admin, 'raftkv_reloads_total{files="tokens"}', 1)
            assert await writer("PUT", f"{each.url}/v1/kv/app/a", b"1") == 401
        log = node.log.read_text()
    assert log.count("line 4 of the token file") == 1
    assert "my-secret" not in log


def test_files_that_cannot_be_used_end_the_start_with_one_sentence(
    tmp_path: Path, secrets: Secrets
) -> None:
    place = secrets.directory
    bad = place / "bad"
    bad.write_text("neither a certificate nor a token\n")
    for flags, says in (
        (("--tls-cert", f"{place}/tls.crt", "--tls-key", f"{place}/gone"), "gone"),
        (("--tls-cert", f"{place}/tls.crt", "--tls-key", f"{place}/peer.key"), "key values"),
        (("--auth-token-file", str(bad)), "line 1 of the token file"),
        (("--auth-token-file", f"{place}/gone"), "gone"),
    ):
        ended = subprocess.run(
            [
                *COMMAND, "node", "--data", str(tmp_path / "data"),
                "--addr", f"127.0.0.1:{free_port()}", *flags,
            ],
            capture_output=True,
            check=False,
            timeout=30,
            text=True,
        )  # fmt: skip
        assert ended.returncode == 1
        assert says in ended.stderr.splitlines()[-1]
        assert "Traceback" not in ended.stderr
        assert not (tmp_path / "data").exists(), "nothing is touched before"


async def test_metrics_are_served_in_plain_text_on_their_own_port(
    tmp_path: Path, secrets: Secrets
) -> None:
    """Row 35: and nothing else is."""
    port = free_port()
    cluster = Cluster(
        tmp_path,
        1,
        (*secrets.flags(), "--metrics-addr", f"127.0.0.1:{port}"),
        tls=secrets.client_context(),
        token=ADMIN,
    )
    async with cluster, aiohttp.ClientSession() as session:
        for path, status in (
            ("/metrics", 200), ("/livez", 200), ("/readyz", 200), ("/v1/status", 404),
            ("/v1/kv", 404), ("/v1/kv/app/a", 404), ("/v1/maintenance/drain", 404),
        ):  # fmt: skip
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                assert response.status in (status, 405 if status == 404 else status), path
    shutil.rmtree(secrets.directory)
