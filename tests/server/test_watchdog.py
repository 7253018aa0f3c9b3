"""A loop that hangs ends the process; a process that was stopped does not count as one."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from raftkv.server.watchdog import Watchdog


def test_rule_12_a_loop_that_hangs_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()
    watchdog = Watchdog(3.0, ended.set, beat_seconds=0.01)
    try:
        assert ended.wait(10.0)
    finally:
        watchdog.close()
    # Where it hangs is what is left to find out why.
    assert "test_rule_12_a_loop_that_hangs" in capfd.readouterr().err


def test_rule_12_a_loop_that_beats_goes_on() -> None:
    ended, beats = threading.Event(), 0
    watchdog = Watchdog(1000.0, ended.set, beat_seconds=0.001)
    try:
        while watchdog._missed < 20 and beats < 10_000:
            beats += 1
            ended.wait(0.001)
        assert watchdog._missed >= 20
        watchdog.beat()
        assert watchdog._missed < 20
        assert not ended.is_set()
    finally:
        watchdog.close()


STOPPED = """
import sys, threading
from raftkv.server.watchdog import Watchdog
watchdog = Watchdog(20.0, beat_seconds=0.02)
print("runs", flush=True)
for line in sys.stdin:
    watchdog.beat()
    print("beats", flush=True)
"""


def test_rule_12_a_process_that_was_stopped_goes_on() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        os.kill(process.pid, signal.SIGSTOP)
        try:
            # Forty times a beat, twice what ends one that hangs.
            threading.Event().wait(0.8)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "beats\n"
        process.stdin.close()
        assert process.wait(10) == 0
