"""The rare paths that a campaign must have taken: else it proves less than it says."""

from collections.abc import Mapping
from typing import Final

#: Counted by the faults, the clients and the checkers.
RARE: Final = frozenset(
    {
        # faults
        "LMDB",
        "all down",
        "ancient message",
        "clog",
        "crash around a snapshot",
        "crash around an election",
        "crash before it applied",
        "crash in a write of the log",
        "crash in an installation",
        "crash in recovery",
        "cut amid a change of members",
        "cut between two majorities",
        "damage mended",
        "damage refused",
        "damaged disk replaced",
        "damage without consequence",
        "disk hangs for 1 s",
        "disk hangs for 10 s",
        "disk hangs for 25 s",
        "disk hangs for 4 s",
        "disk lost",
        "kill",
        "kill leader",
        "leader cut off with an old entry on a majority",
        "leader cut off with its first entry",
        "leader that slept alone",
        "leader that slept through a write",
        "partition: bridge",
        "partition: deaf",
        "partition: isolate",
        "partition: mute",
        "partition: scattered",
        "partition: split",
        "pause",
        "power loss",
        "slow disk",
        "slow member",
        "stop after a failed sync",
        "stop after a long stall",
        "swizzle",
        "thin pipe",
        "voter that leaves reaches all others alone",
        # inside the nodes
        "configuration rolled back",
        "leader that leaves",
        "log truncated",
        "read waited for a commit of the own term",
        "snapshot installed",
        "snapshot made",
        "torn tail cut",
        "vote refused for an old log",
        # what clients and administrators met
        "asked another node again",
        "compacted under a follower",
        "confirmed AddLearner",
        "confirmed PromoteLearner",
        "confirmed RemoveMember",
        "confirmed ReplaceMember",
        "confirmed return of a removed member",
        "follower ahead of a node",
        "history compacted",
        "idempotency record expired",
        "idempotent replay",
        "leadership transferred",
        "lease expired",
        "lock expired",
        "lock waited for",
        "machine wiped",
        "read of history",
        "state compared with the model",
    }
)


def never_reached(reached: Mapping[str, int]) -> list[str]:
    """Those that stayed at zero, sorted."""
    return sorted(name for name in RARE if not reached.get(name))
