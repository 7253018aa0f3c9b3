"""What is fuzzed: each target takes any bytes and raises only if a promise was broken.

A target drives one decoder the way the product does, and lets through only the errors that the
decoder's docstring names. Checksums would keep random bytes out, so most targets seal what they
are given: the fuzzer then meets what lies behind the checksum. The first byte chooses how.

Run by `tests.fuzz` under atheris for as long as one likes, and by `test_targets.py` on the seeds
and a few thousand changed ones.
"""

from collections.abc import Mapping
from typing import Final

from tests.fuzz.http_targets import http_head, http_target, json_body
from tests.fuzz.log_targets import env_state, identity, snapshot_header, wal_frame, wal_recovery
from tests.fuzz.peer_targets import configuration, peer_message, peer_stream
from tests.fuzz.support import Target

TARGETS: Final[Mapping[str, Target]] = {
    target.__name__: target
    for target in (
        wal_frame,
        wal_recovery,
        identity,
        env_state,
        snapshot_header,
        peer_stream,
        peer_message,
        configuration,
        http_head,
        http_target,
        json_body,
    )
}
