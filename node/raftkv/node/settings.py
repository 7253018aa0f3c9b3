"""The knobs that a node's logic depends on; where they come from is the server's business."""

from dataclasses import dataclass

from raftkv.raft.messages import NodeId
from raftkv.raft.rawnode import Config


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """All times in ticks or seconds of the injected clock, all sizes in bytes."""

    name: str
    peer_url: str  # where peers find this node: "host:port"
    client_url: str  # where a client may be redirected to: "http://host:port"
    version: str

    # Defaults of node design rule 17: heartbeat 80 ms, election 300 to 550 ms.
    tick_seconds: float = 0.02
    heartbeat_ticks: int = 4
    election_ticks: int = 15
    election_jitter_ticks: int = 12

    append_bytes_max: int = 1 << 20
    inflight_appends_max: int = 4
    uncommitted_bytes_max: int = 64 << 20
    # What the core hands out to be applied at once, and how much of it one slice of the loop
    # takes: about 2 ms of work at 4 to 8 us a command (rule 26).
    apply_bytes_max: int = 1 << 20
    slice_commands_max: int = 256
    segment_bytes: int = 64 << 20

    # A store beyond this takes no writes but those that make room (507).
    quota_bytes: int = 2 << 30
    # Beyond either, no writes under a new idempotency key (429); no record ends early for it.
    once_count_max: int = 1_000_000
    once_bytes_max: int = 256 << 20
    # How long what was replaced or removed can still be read and watched.
    history_keep_ms: int = 600_000
    # A snapshot is made when the log has grown by so much since the last one.
    snapshot_bytes_min: int = 64 << 20

    # How long news of a commit wait for something else that goes to the same follower.
    commit_news_seconds: float = 0.002
    # Commands that one entry or one forwarded frame may gather.
    batch_commands_max: int = 256
    batch_bytes_max: int = 1 << 20
    # Writes and reads that may wait at once, beyond which new ones are refused (429).
    pending_requests_max: int = 16384
    pending_bytes_max: int = 128 << 20
    # What may be on its way to the leader unanswered: well below what a frame can hold.
    forwarded_bytes_max: int = 8 << 20

    # The stall ladder (rule 12): a leader whose disk write takes longer hands leadership on ...
    disk_stall_transfer_seconds: float = 3.0
    # ... and a node whose disk write takes longer ends.
    disk_stall_exit_seconds: float = 20.0

    # How much of the log stays in memory for followers that are a little behind, beyond what is
    # not applied yet. Who is farther behind is sent a snapshot.
    log_bytes_max: int = 32 << 20
    # Free for the log beside a snapshot that is made or received.
    snapshot_keep_free_bytes: int = 128 << 20

    check_invariants: bool = False

    def raft_config(self, member_id: NodeId) -> Config:
        """The consensus core's share of these settings."""
        return Config(
            id=member_id,
            election_ticks=self.election_ticks,
            election_jitter_ticks=self.election_jitter_ticks,
            heartbeat_ticks=self.heartbeat_ticks,
            append_bytes_max=self.append_bytes_max,
            inflight_appends_max=self.inflight_appends_max,
            uncommitted_bytes_max=self.uncommitted_bytes_max,
            apply_bytes_max=self.apply_bytes_max,
            check_invariants=self.check_invariants,
        )
