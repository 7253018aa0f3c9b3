"""The `raftkv` command; `python -m raftkv` is the same.

Imports little at first. In a container `raftkv node` is process 1, to which a signal without a
handler does not exist: until one stands, a deleted pod would hang for its whole grace period, and
the imports alone take half a second. The commands are in `raftkv.cli`.
"""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["node"]:
        signal.signal(signal.SIGTERM, _leave)
    from raftkv.cli.main import main as command_line  # noqa: PLC0415 - the handler comes first

    command_line()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """The end of a node that has not begun; the running node has a handler of its own."""
    os._exit(0)  # nothing is open yet, and nothing that is half imported can be in the way


if __name__ == "__main__":
    main()
