"""Ranges, counters and the past through leader and follower of real processes."""

from pathlib import Path

import pytest

from raftkv.client import Client
from tests.process.cluster import Cluster

pytestmark = pytest.mark.process


async def test_ranges_through_leader_and_follower(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        leader = await cluster.wait_leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        async with Client([leader.url]) as one, Client([follower.url]) as other:
            for number in range(20):
                await one.put(b"k%02d" % number, b"v")
            first = await other.list(b"k", limit=15)
            deleted = await other.delete_prefix(b"k")
            assert deleted.deleted == 20
            # The rest of the pages, from another node, after everything was deleted.
            rest = await one.list(b"k", limit=15, cursor=first.next_cursor)
            keys = [item.key for item in (*first.items, *rest.items)]
            assert keys == [b"k%02d" % number for number in range(20)]
            assert (rest.revision, rest.next_cursor) == (first.revision, None)
            assert not (await one.list(b"k")).items
            old = await other.get(b"k00", revision=first.revision)
            assert old is not None
            assert old.value == b"v"
            assert await other.increment(b"n", 5) == 5
            assert await one.increment(b"n", -7) == -2
