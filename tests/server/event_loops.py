"""The event loops that a node may run on, and the tests that run on which."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

_LOOPS: Final[Mapping[str, LoopFactory]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def loops_for(item: pytest.Item, usual: str) -> Mapping[str, LoopFactory]:
    """The ``usual`` one; for modules that say ``BOTH_LOOPS = True``, both.

    Those are about sockets, where the loops differ.
    """
    module = item.getparent(pytest.Module)
    if module is not None and getattr(module.obj, "BOTH_LOOPS", False):
        return _LOOPS
    return {usual: _LOOPS[usual]}
