"""What the flags of a node mean together, and which contradictions are refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftkv.server.addresses import Address, parse_address
from raftkv.server.settings import Flags, ServerSettings, SettingsError, resolve

NAMED = "n1=10.0.0.1:7401,n2=10.0.0.2:7401,n3=10.0.0.3:7401"


def settings(**flags: Any) -> ServerSettings:
    return resolve(Flags(data=Path("d"), **flags), "host-a")


def refusal(**flags: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(**flags)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_defaults() -> None:
    made = settings()
    assert made.name == "host-a"
    assert made.addr == Address("127.0.0.1", 7400)
    assert made.peer_addr == made.advertise_peer == Address("127.0.0.1", 7401)
    assert made.advertise_client == "http://127.0.0.1:7400"
    assert (made.peers, made.admin_addr, made.metrics_addr) == (None, None, None)
    assert made.warnings == ()


def test_rule_17_default_times() -> None:
    node = settings().node_settings("1")
    assert node.tick_seconds * node.heartbeat_ticks == pytest.approx(0.080)
    shortest = node.tick_seconds * node.election_ticks
    assert shortest == pytest.approx(0.300)
    assert shortest + node.tick_seconds * node.election_jitter_ticks == pytest.approx(
        0.550, abs=node.tick_seconds
    )


@pytest.mark.parametrize(("heartbeat_ms", "election_ms"), [(10, 30), (100, 1000), (500, 5000)])
def test_other_times_keep_their_proportions(heartbeat_ms: int, election_ms: int) -> None:
    node = settings(heartbeat_ms=heartbeat_ms, election_ms=election_ms).node_settings("1")
    assert node.tick_seconds * node.heartbeat_ticks * 1000 == pytest.approx(heartbeat_ms)
    assert node.tick_seconds * node.election_ticks * 1000 == pytest.approx(election_ms)
    assert node.election_jitter_ticks >= node.election_ticks / 2


def test_the_peer_port_follows_the_client_port() -> None:
    made = settings(addr="10.0.0.9:9000")
    assert made.peer_addr == Address("10.0.0.9", 9001)
    assert made.advertise_client == "http://10.0.0.9:9000"


def test_a_wildcard_is_listened_on_but_never_advertised() -> None:
    made = settings(addr="0.0.0.0:7400")
    assert made.peer_addr == Address("0.0.0.0", 7401)
    assert made.advertise_peer == Address("host-a", 7401)
    assert made.advertise_client == "http://host-a:7400"
    assert "no address that a peer" in refusal(advertise_peer="0.0.0.0:1")
    assert "no address that a client" in refusal(advertise_client="http://0.0.0.0:1")


def test_listening_beyond_loopback_without_tls_warns_once() -> None:
    [warning] = settings(addr="10.0.0.9:7400", admin_addr="127.0.0.1:7403").warnings
    assert "without TLS" in warning
    assert "10.0.0.9:7400" in warning
    assert "7403" not in warning
    assert settings(addr="10.0.0.9:7400").http_settings().warnings == (warning,)


def test_what_is_served_by_tls_warns_of_nothing() -> None:
    pem = Path("a.pem")
    open_to_all: dict[str, Any] = {"addr": "10.0.0.9:7400", "admin_addr": "10.0.0.9:7403"}
    for_clients: dict[str, Any] = {"tls_cert": pem, "tls_key": pem}
    for_peers: dict[str, Any] = {"peer_tls_cert": pem, "peer_tls_key": pem, "peer_tls_ca": pem}
    plain = settings(**open_to_all)
    assert plain.insecure_listeners == ("clients", "peers", "administrators")
    assert plain.http_settings().insecure_listeners == plain.insecure_listeners
    assert settings(**open_to_all, **for_clients).insecure_listeners == ("peers",)
    by_peers = settings(**open_to_all, **for_peers, auth_token_file=Path("t"))
    assert by_peers.insecure_listeners == ("clients", "administrators")
    assert "tokens can be read" in by_peers.warnings[0]
    assert (
        settings(**open_to_all, **for_clients, auth_token_file=Path("t"))
        .warnings[0]
        .endswith("for peers (10.0.0.9:7401)")
    )
    both = settings(**open_to_all, **for_clients, **for_peers)
    assert (both.insecure_listeners, both.warnings) == ((), ())
    # What only this machine can reach, and metrics, which are public by design.
    assert settings(metrics_addr="10.0.0.9:7402").insecure_listeners == ()


def test_the_advertised_url_says_how_clients_are_served() -> None:
    pem = Path("a.pem")
    assert settings(tls_cert=pem, tls_key=pem).advertise_client == "https://127.0.0.1:7400"
    for given, secure, says in (
        ("h:1", True, "https://h:1"),
        ("h:1", False, "http://h:1"),
        ("https://h:1/", False, "https://h:1"),  # something in front of the node speaks TLS
        ("HTTP://h:1", True, "http://h:1"),
    ):
        tls: dict[str, Any] = {"tls_cert": pem, "tls_key": pem} if secure else {}
        assert settings(advertise_client=given, **tls).advertise_client == says


def test_limits_reach_the_node() -> None:
    made = settings(
        history_keep="1.5h", quota_bytes=1 << 21, snapshot_min_bytes=4096, max_watchers=7
    )
    node = made.node_settings("1")
    assert (node.history_keep_ms, node.quota_bytes, node.snapshot_bytes_min) == (
        5_400_000, 1 << 21, 4096,
    )  # fmt: skip
    assert made.http_settings().watchers_max == 7
    plain = settings().node_settings("1")
    assert (plain.history_keep_ms, plain.snapshot_bytes_min) == (600_000, 64 << 20)


def test_quota_is_what_the_volume_bears(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    volume = SimpleNamespace(f_blocks=1 << 18, f_frsize=4096)  # 1 GiB
    asked = []

    def statvfs(path: Path) -> SimpleNamespace:
        asked.append(path)
        return volume

    monkeypatch.setattr("os.statvfs", statvfs)
    made = resolve(Flags(data=tmp_path / "not" / "there"), "host-a")
    assert made.node_settings("1").quota_bytes == (1 << 28) - (50 << 20)
    assert asked == [tmp_path], "of the directory in which the data will be"
    volume.f_blocks <<= 4
    assert made.node_settings("1").quota_bytes == 2 << 30, "the default"
    volume.f_blocks = 1
    assert made.node_settings("1").quota_bytes == 1 << 20, "the least that the flag takes"
    assert settings(quota_bytes=4 << 30).node_settings("1").quota_bytes == 4 << 30, "as told"


def test_named_peers_say_where_this_node_is_found() -> None:
    made = settings(id="n2", addr="0.0.0.0:7400", peers=NAMED)
    assert made.peers is not None
    assert made.peers.own.label == "n2"
    assert made.advertise_peer == Address("10.0.0.2", 7401)


def test_bare_peers_name_the_node_after_its_address() -> None:
    bare = "127.0.0.1:7411,127.0.0.1:7421"
    made = settings(peers=bare)
    assert made.name == "127.0.0.1:7401"
    assert made.peers is not None
    assert [entry.label for entry in made.peers.entries] == [
        "127.0.0.1:7401", "127.0.0.1:7411", "127.0.0.1:7421",
    ]  # fmt: skip
    assert settings(id="a", peers=bare).name == "a"
    with_itself = settings(peers=bare + ",localhost:7401").peers
    assert with_itself == made.peers


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"heartbeat_ms": 101, "election_ms": 302}, "less than three heartbeats"),
        ({"heartbeat_ms": 9}, "--heartbeat-ms"),
        ({"election_ms": 60_001}, "--election-ms"),
        ({"drain_seconds": -1.0}, "--drain-seconds"),
        ({"drain_seconds": 41.0}, "--drain-seconds"),
        ({"drain_seconds": float("nan")}, "--drain-seconds"),
        ({"max_value_bytes": 0}, "--max-value-bytes"),
        ({"max_watchers": -1}, "--max-watchers"),
        ({"quota_bytes": (1 << 20) - 1}, "--quota-bytes is between 1048576 and"),
        ({"quota_bytes": 1 << 60}, "--quota-bytes"),
        ({"snapshot_min_bytes": 0}, "--snapshot-min-bytes"),
        ({"history_keep": "10"}, "--history-keep '10' is no duration"),
        ({"history_keep": "0.9s"}, "--history-keep"),
        ({"history_keep": "8d"}, "--history-keep"),
        ({"history_keep": "-1m"}, "--history-keep"),
        ({"tls_cert": Path("c")}, "--tls-cert: --tls-key is needed as well"),
        ({"tls_ca": Path("c")}, "--tls-ca: --tls-cert and --tls-key is needed as well"),
        ({"peer_tls_cert": Path("c"), "peer_tls_key": Path("k")}, "--peer-tls-ca is needed"),
        ({"advertise_client": "ftp://h:1"}, "by http or https"),
        ({"addr": "7400"}, "--addr: '7400' is not HOST:PORT"),
        ({"addr": ":7400"}, "':7400' is not HOST:PORT"),
        ({"addr": "::1:7400"}, "brackets"),
        ({"addr": "h:0"}, "port"),
        ({"addr": "h:65536"}, "port"),
        ({"addr": "h:٣"}, "port"),
        ({"addr": "http://h:1"}, "HOST:PORT"),
        ({"addr": "h:65535"}, "--peer-addr is needed"),
        ({"peer_addr": "127.0.0.1:7400"}, "cannot share 127.0.0.1:7400"),
        ({"addr": "h:1", "admin_addr": "h:2"}, "cannot share h:2"),
        ({"id": "a b"}, "--id 'a b'"),
        ({"id": "a\nb"}, "--id"),
        ({"id": "n4", "peers": NAMED}, "lists n1, n2, n3, but this node's --id is n4"),
        ({"id": "n1", "peers": "n1=h:7401,n1=h:2"}, "the name n1 twice"),
        ({"id": "n1", "peers": "n1=h:7401,n2=h:7401"}, "the address h:7401 twice"),
        ({"id": "n1", "peers": "n1=h:7401,h:2"}, "mixes"),
        ({"id": "n1", "peers": "n1=h:7401,,"}, "empty entry"),
        ({"id": "n1", "peers": "n1=h:7402"}, "listens for peers at 127.0.0.1:7401"),
        ({"id": "n1", "peers": "n1=h:1", "advertise_peer": "i:1"}, "--advertise-peer is i:1"),
        ({"peers": ",".join(f"h:{n}" for n in range(1, 33))}, "at most 31"),
        ({"peers": "h:x"}, "port"),
    ],
)
def test_contradictions_are_refused_with_one_sentence(flags: dict[str, Any], says: str) -> None:
    assert says in refusal(**flags)


def test_a_translated_port_is_advertised_by_hand() -> None:
    made = settings(id="n1", peers="n1=h:30001,n2=h:30002", advertise_peer="h:30001")
    assert made.peer_addr == Address("127.0.0.1", 7401)
    assert made.advertise_peer == Address("h", 30001)


@pytest.mark.parametrize("text", ["[::1]:7400", "n-0.peers.ns.svc:7401", "127.0.0.1:1", "h:65535"])
def test_addresses_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.9.9.9", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host: str, is_loopback: bool) -> None:
    assert Address(host, 1).is_loopback is is_loopback
