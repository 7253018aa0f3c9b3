"""An fdatasync that the kernel performs and reports: no thread of ours waits for it.

Linux' asynchronous I/O (`IOCB_CMD_FDSYNC`, since Linux 4.18) by way of `caio`. A thread that
waits needs the interpreter lock before and after each fdatasync. With it, write and fdatasync
took 201 us on a quiet machine and cost the process 95 us of CPU; this way 145 us and 20 us
(docs/adr/0009-the-kernel-waits-for-the-disk.md).

Where it is not offered (another system than Linux, a sandbox that forbids the calls, a file
system without it) `open_kernel_sync` returns None, and threads wait as before.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Final, Protocol

from raftkv.storage.disk import DiskError, Fdatasync, Handle

Done = Callable[[DiskError | None], None]

# For the first one, which shows whether the kernel does it at all. The loop stands still meanwhile.
_PROBE_SECONDS_MAX: Final = 5


class KernelSync(Protocol):
    """One fdatasync at a time, under way in the kernel. All calls from one thread."""

    @property
    def fileno(self) -> int:
        """To be watched: readable when the one under way has ended, and `collect` is due."""
        ...

    def start(self, op: Fdatasync, done: Done) -> bool:
        """Begin ``op``; False if the kernel did not take it, which leaves everything as it was."""
        ...

    def collect(self) -> None:
        """If the one under way has ended, call its ``done``; may be called in vain."""
        ...


def open_kernel_sync(handle: Handle) -> KernelSync | None:
    """What the kernel offers for files like ``handle``, shown by one fdatasync of it.

    Blocks until that one has ended. None if it is not offered.
    """
    # caio has no such module where its first call of the kernel was refused.
    if sys.platform != "linux" or linux_aio is None:
        return None
    try:
        sync = LinuxKernelSync()
    except SystemError:  # io_setup was refused, or there are no contexts left
        return None
    return sync if sync.is_offered_for(handle) else None


if sys.platform == "linux":
    from caio import linux_aio

    class LinuxKernelSync:
        """See `KernelSync`."""

        def __init__(self) -> None:
            """Raises SystemError if the system does not offer it."""
            self._context = linux_aio.Context(1)
            self._under_way: tuple[Fdatasync, Done] | None = None
            self._result: int | None = None

        @property
        def fileno(self) -> int:
            """See `KernelSync`."""
            return self._context.fileno

        def is_offered_for(self, handle: Handle) -> bool:
            """Whether an fdatasync of ``handle`` succeeds this way."""
            answers: list[DiskError | None] = []
            if not self.start(Fdatasync(handle), answers.append):
                return False
            self._take(1, _PROBE_SECONDS_MAX)
            self.collect()
            return answers == [None]

        def start(self, op: Fdatasync, done: Done) -> bool:
            """See `KernelSync`."""
            assert self._under_way is None, "one at a time"
            operation = linux_aio.Operation.fdsync(op.handle)
            operation.set_callback(self._ended)
            try:
                accepted = self._context.submit(operation)
            except (SystemError, ValueError, OverflowError):
                accepted = 0
            if accepted != 1:
                return False
            self._under_way = op, done
            return True

        def collect(self) -> None:
            """See `KernelSync`."""
            with contextlib.suppress(BlockingIOError):
                self._context.poll()
            if self._result is None:
                self._take(0, 0)
            result, under_way = self._result, self._under_way
            if result is None or under_way is None:
                return
            self._result = self._under_way = None
            op, done = under_way
            done(_error(op, result))

        def _take(self, count_min: int, seconds: int) -> None:
            """Let `_ended` hear of what has ended, of ``count_min`` at least within ``seconds``."""
            while True:
                try:
                    self._context.process_events(1, count_min, seconds)
                except SystemError as error:
                    if error.args[0] != errno.EINTR:  # a signal came first
                        raise
                else:
                    return

        def _ended(self, result: int) -> None:
            # What is raised in here would be lost.
            self._result = result


def _error(op: Fdatasync, result: int) -> DiskError | None:
    """``result`` as the kernel says it: 0, or the error's number, negated, in 64 bits."""
    if result == 0:
        return None
    number = -result % (1 << 64)
    return DiskError(op, number, os.strerror(number))
