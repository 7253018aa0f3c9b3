"""Every slice of apply is measured, and the engine beneath is the one that is closed."""

import pytest

from raftkv.kv.engine import Table
from raftkv.kv.memory_engine import MemoryEngineFactory
from raftkv.server.timed_engine import TimedEngineFactory


def test_a_committed_transaction_is_measured_once() -> None:
    seconds: list[float] = []
    engine = TimedEngineFactory(MemoryEngineFactory(), seconds.append).open()
    with engine.write() as writer:
        writer.put(Table.CUR, b"k", b"v")
    assert len(seconds) == 1
    assert seconds[0] >= 0
    with engine.read() as reader:
        assert reader.get(Table.CUR, b"k") == b"v"
    assert len(seconds) == 1


def test_a_transaction_that_fails_is_rolled_back_and_not_measured() -> None:
    seconds: list[float] = []
    engine = TimedEngineFactory(MemoryEngineFactory(), seconds.append).open()

    def fail() -> None:
        with engine.write() as writer:
            writer.put(Table.CUR, b"k", b"v")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert seconds == []
    with engine.read() as reader:
        assert reader.get(Table.CUR, b"k") is None


def test_the_wrapped_engine_is_closed_and_found_again() -> None:
    factory = TimedEngineFactory(MemoryEngineFactory(), lambda _: None)
    engine = factory.open()
    with engine.write() as writer:
        writer.put(Table.CUR, b"k", b"v")
    factory.close_clean(engine)
    with factory.open().read() as reader:
        assert reader.get(Table.CUR, b"k") == b"v"
    with factory.rebuild().read() as reader:
        assert reader.get(Table.CUR, b"k") is None
