"""Members, maintenance and backups."""

import json

import pytest

from raftkv.client import Client, DamagedBackupError, OutcomeUnknownError
from tests.client.contract_server import Fault, contract_server

ID = "00000000000000b2"


async def test_changes_of_the_membership_are_asked_for_as_the_api_spells_them() -> None:
    async with (
        contract_server() as server,
        Client([server.url], prefer_leader=False) as client,
    ):
        await client.add_member(
            ID, name="n4", peer_url="h:1", client_url="http://h:2", promote=True, config_index=7
        )
        assert json.loads(server.bodies[-1]) == {
            "id": ID,
            "name": "n4",
            "peer_url": "h:1",
            "client_url": "http://h:2",
            "promote": "auto",
        }
        await client.promote_member(ID)
        await client.replace_member(ID, by="00000000000000c3")
        assert json.loads(server.bodies[-1]) == {"by": "00000000000000c3"}
        assert (await client.remove_member(ID, config_index=9))["if_match"] == '"9"'
        await client.transfer_leader(ID)
        await client.transfer_leader()
        await client.compact(42)
        await client.snapshot()
        await client.snapshot(client.endpoints[0])
        members = f"/v1/cluster/members/{ID}"
        assert [(method, path.partition("?")[0]) for method, path in server.executed] == [
            ("POST", "/v1/cluster/members"),
            ("POST", f"{members}/promote"),
            ("POST", f"{members}/replace"),
            ("DELETE", members),
            ("POST", "/v1/cluster/leader"),
            ("POST", "/v1/cluster/leader"),
            ("POST", "/v1/maintenance/compact"),
            ("POST", "/v1/maintenance/snapshot"),
            ("POST", "/v1/maintenance/snapshot"),
        ]
        assert not any("Idempotency-Key" in request.headers for request in server.requests)


async def test_rule_18_a_change_of_the_membership_is_never_sent_twice() -> None:
    async with (
        contract_server() as server,
        Client([server.url], prefer_leader=False) as client,
    ):
        server.faults = lambda _: Fault(after=True)
        with pytest.raises(OutcomeUnknownError):
            await client.remove_member(ID)
        assert len(server.requests) == 1


async def test_members() -> None:
    async with contract_server() as server, Client([server.url]) as client:
        fields = {"peer_url": "h:1", "client_url": "http://h:2", "role": "leader", "voter": True}
        server.members = [{"id": ID, "name": "n2", "match_index": 9, **fields}]
        (member,) = await client.members()
        assert (member.id, member.name, member.match_index, member.healthy) == (ID, "n2", 9, None)
        assert (await client.cluster())["config_index"] == 7
        assert (await client.status())["name"] == "n1"


async def test_a_backup_arrives_whole() -> None:
    async with contract_server() as server, Client([server.url]) as client:
        async with client.backup() as backup:
            assert (backup.size_bytes, backup.revision) == (len(server.backup), 105)
            data = b"".join([chunk async for chunk in backup])
        assert data == server.backup


async def test_a_backup_with_a_flipped_bit_is_damaged() -> None:
    async with contract_server() as server, Client([server.url]) as client:

        async def take() -> None:
            async with client.backup() as backup:
                async for _ in backup:
                    pass

        for at in (0, len(server.backup) // 2, len(server.backup) - 1):
            good = server.backup
            server.backup = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
            with pytest.raises(DamagedBackupError, match="is damaged"):
                await take()
            server.backup = good[:at]
            with pytest.raises(DamagedBackupError, match="is damaged"):
                await take()
            server.backup = good
        await take()


async def test_a_backup_that_breaks_off_is_damaged() -> None:
    async with contract_server() as server, Client([server.url]) as client:
        server.backup = b"x" * (8 << 20)

        async def take() -> None:
            async with client.backup() as backup:
                async for _ in backup:
                    transport = server.requests[-1].transport
                    if transport is not None:
                        transport.abort()

        with pytest.raises(DamagedBackupError, match="broke off"):
            await take()
