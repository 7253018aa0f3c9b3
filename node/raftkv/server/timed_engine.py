"""Measures how long the state machine takes to apply: one write transaction is one slice.

A wrapper around the engine factory, because neither the node class nor the store reads a clock.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import BinaryIO

from raftkv.kv.engine import Engine, EngineCopy, EngineReader, EngineWriter
from raftkv.kv.environment import EngineFactory, EngineInstall


class TimedEngine:
    """An `Engine` that reports the seconds of each write transaction."""

    def __init__(self, engine: Engine, observe: Callable[[float], None]) -> None:
        self.engine = engine
        self._observe = observe
        self.read: Callable[[], AbstractContextManager[EngineReader]] = engine.read
        self.begin_copy: Callable[[], EngineCopy] = engine.begin_copy
        self.size_bytes: Callable[[], int] = engine.size_bytes
        self.close: Callable[[], None] = engine.close

    def write(self) -> AbstractContextManager[EngineWriter]:
        """See `Engine.write`."""
        return _TimedWrite(self.engine.write(), self._observe)


class _TimedWrite:
    """A write transaction that reports its seconds when it was committed."""

    __slots__ = ("_observe", "_started_at", "_transaction")

    def __init__(
        self, transaction: AbstractContextManager[EngineWriter], observe: Callable[[float], None]
    ) -> None:
        self._transaction = transaction
        self._observe = observe

    def __enter__(self) -> EngineWriter:
        self._started_at = time.perf_counter()
        return self._transaction.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._transaction.__exit__(kind, error, traceback)
        if kind is None:
            self._observe(time.perf_counter() - self._started_at)


class TimedEngineFactory:
    """An `EngineFactory` whose engines are timed."""

    def __init__(self, factory: EngineFactory, observe: Callable[[float], None]) -> None:
        self._factory = factory
        self._observe = observe

    def open(self) -> Engine:
        """See `EngineFactory.open`."""
        return TimedEngine(self._factory.open(), self._observe)

    def rebuild(self) -> Engine:
        """See `EngineFactory.rebuild`."""
        return TimedEngine(self._factory.rebuild(), self._observe)

    def begin_install(self) -> EngineInstall:
        """See `EngineFactory.begin_install`."""
        return _TimedInstall(self._factory.begin_install(), self._observe)

    def close_clean(self, engine: Engine) -> None:
        """See `EngineFactory.close_clean`."""
        assert isinstance(engine, TimedEngine), "not an engine of this factory"
        self._factory.close_clean(engine.engine)


class _TimedInstall:
    """An `EngineInstall` whose engine is timed."""

    def __init__(self, install: EngineInstall, observe: Callable[[float], None]) -> None:
        self._install = install
        self._observe = observe
        self.read_from: Callable[[BinaryIO, int], None] = install.read_from
        self.abort: Callable[[], None] = install.abort

    def finish(self) -> Engine:
        """See `EngineInstall.finish`."""
        return TimedEngine(self._install.finish(), self._observe)
