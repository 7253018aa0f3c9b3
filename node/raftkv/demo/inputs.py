"""The commands that a node's host gives its core, and the duties of a host."""

from typing import Final

from raftkv.demo.cluster import ELECTION_TICKS, HEARTBEAT_TICKS, make_conf, make_member
from raftkv.demo.command import (
    NODE_ID_MAX,
    TEXT_CHARACTERS_MAX,
    CommandError,
    CommandSet,
    UsageError,
    command,
    parse_id,
    parse_ids,
    parse_number,
)
from raftkv.raft import (
    AddLearner,
    ConfigChange,
    LeaveJoint,
    PreVote,
    PromoteLearner,
    RemoveMember,
    ReplaceMember,
    Role,
)
from raftkv.raft.describe import describe_conf_state, describe_entry_id, describe_id

_TIME: Final = "Time"
_ASKING: Final = "Asking"
_MEMBERS: Final = "Members"
_SNAPSHOTS: Final = "Snapshots"
_DUTIES: Final = "Duties of a host"
_TICKS_MAX: Final = 1000


class Inputs(CommandSet):
    """What a core is told, and what is done with what it hands out."""

    # ---- time -------------------------------------------------------------------------------

    @command(_TIME, "timeout N")
    def timeout(self, node: str) -> None:
        """Let an election timeout pass on node N.

        A follower then campaigns; a leader that heard no majority meanwhile steps down.
        """
        self.cluster.tick(self.host_that_is_up(node).id, ELECTION_TICKS)

    @command(_TIME, "heartbeat N")
    def heartbeat(self, node: str) -> None:
        """Let a heartbeat interval pass on node N."""
        self.cluster.tick(self.host_that_is_up(node).id, HEARTBEAT_TICKS)

    @command(_TIME, "tick N [COUNT]")
    def tick(self, node: str, count: str = "1") -> None:
        """Let COUNT ticks pass on node N: 3 are a heartbeat interval, 10 an election timeout."""
        host = self.host_that_is_up(node)
        self.cluster.tick(host.id, parse_number(count, 1, _TICKS_MAX))

    @command(_TIME, "miss IDS")
    def miss(self, nodes: str) -> None:
        """Let these nodes miss their leader, and lose their campaigns.

        Who heard from a leader lately would not answer another candidate; these now will.
        """
        hosts = [self.host_that_is_up(str(node)) for node in parse_ids(nodes)]
        for host in hosts:
            self.cluster.tick(host.id, ELECTION_TICKS)
            self.cluster.take_ready(host.id)
        self.cluster.in_flight = [m for m in self.cluster.in_flight if not isinstance(m, PreVote)]

    # ---- asking -----------------------------------------------------------------------------

    @command(_ASKING, "campaign N")
    def campaign(self, node: str) -> None:
        """Let node N campaign at once, as if its election timeout had passed."""
        self.raft(node).campaign()

    @command(_ASKING, "propose N TEXT", takes_text=True)
    def propose(self, node: str, text: str) -> None:
        """Ask node N to append TEXT to the log. Only a leader does."""
        if len(text) > TEXT_CHARACTERS_MAX:
            raise UsageError(f"propose: TEXT has more than {TEXT_CHARACTERS_MAX} characters")
        entry_id = self.raft(node).propose(text.encode(errors="backslashreplace"))
        self.say(f"{describe_id(parse_id(node))} appends {describe_entry_id(entry_id)} {text}")

    @command(_ASKING, "read N CONTEXT")
    def read(self, node: str, context: str) -> None:
        """Ask node N from which index on a read is linearizable; CONTEXT is a number of yours.

        The answer names it, so take another number for each read.
        """
        self.raft(node).read_index(parse_number(context))

    @command(_ASKING, "transfer N TARGET")
    def transfer(self, node: str, target: str) -> None:
        """Ask the leader N to hand leadership to TARGET."""
        raft = self.raft(node)
        if raft.role is not Role.LEADER:
            raise CommandError(f"{describe_id(raft.id)} does not lead; `status` says who does")
        to = parse_id(target)
        if to == raft.id or to not in raft.conf_state.voters:
            raise CommandError(f"{describe_id(to)} is not another voter")
        raft.transfer_leader(to)

    @command(_ASKING, "bootstrap N VOTERS")
    def bootstrap(self, node: str, voters: str) -> None:
        """Let the empty node N found a cluster of VOTERS."""
        self.raft(node).bootstrap(make_conf(parse_ids(voters)))

    # ---- members ----------------------------------------------------------------------------

    def _change(self, node: str, change: ConfigChange) -> None:
        raft = self.raft(node)
        entry_id = raft.propose_config(change)
        conf = describe_conf_state(raft.conf_state)
        self.say(f"{describe_id(raft.id)} appends {describe_entry_id(entry_id)} {conf}")

    @command(_MEMBERS, "add N ID [name=NAME] [auto=true]")
    def add(self, node: str, learner: str, name: str = "", auto: str = "") -> None:
        """Ask the leader N to add ID, made by `empty`, as learner: it gets the log, but no vote.

        With auto=true `promotable` lists it as soon as it has caught up.
        """
        self._change(
            node,
            AddLearner(make_member(parse_number(learner, 0, NODE_ID_MAX), name), auto == "true"),
        )

    @command(_MEMBERS, "promote N ID")
    def promote(self, node: str, learner: str) -> None:
        """Ask the leader N to make the learner ID a voter."""
        self._change(node, PromoteLearner(parse_id(learner)))

    @command(_MEMBERS, "remove N ID")
    def remove(self, node: str, member: str) -> None:
        """Ask the leader N to remove ID, for good."""
        self._change(node, RemoveMember(parse_id(member)))

    @command(_MEMBERS, "swap N OLD NEW")
    def swap(self, node: str, old: str, new: str) -> None:
        """Ask the leader N to give the vote of OLD to the learner NEW, by joint consensus."""
        self._change(node, ReplaceMember(parse_id(old), parse_id(new)))

    @command(_MEMBERS, "leave N")
    def leave(self, node: str) -> None:
        """Ask the leader N to end a joint configuration. It does so by itself, too."""
        self._change(node, LeaveJoint())

    @command(_MEMBERS, "promotable N")
    def promotable(self, node: str) -> None:
        """Show which learners the host of N should propose to promote."""
        learners = self.raft(node).learners_to_promote()
        self.say(",".join(map(describe_id, learners)) or "none")

    # ---- snapshots --------------------------------------------------------------------------

    @command(_SNAPSHOTS, "snapshot N")
    def snapshot(self, node: str) -> None:
        """Let N's disk hold all that is applied as a snapshot."""
        host = self.host_that_is_up(node)
        if not host.state or host.raft.is_installing:
            raise CommandError(f"{describe_id(host.id)} has applied nothing that it could keep")
        base = host.take_snapshot()
        self.say(f"{describe_id(host.id)} has a snapshot of {describe_entry_id(base.last)}")

    @command(_SNAPSHOTS, "compact N INDEX")
    def compact(self, node: str, index: str) -> None:
        """Drop the entries up to INDEX from N's memory, as far as they are applied."""
        self.raft(node).compact(parse_number(index))

    @command(_SNAPSHOTS, "send_snapshots N")
    def send_snapshots(self, node: str) -> None:
        """Send the snapshots that N's core wants to be sent. `settle` does so, too."""
        host = self.host_that_is_up(node)
        if not self.cluster.send_wanted_snapshots(host):
            raise CommandError(f"{describe_id(host.id)} wants no snapshot to be sent")

    @command(_SNAPSHOTS, "send_snapshot N PEER")
    def send_snapshot(self, node: str, peer: str) -> None:
        """Send N's newest snapshot to PEER, asked for or not."""
        host = self.host_that_is_up(node)
        if host.newest_snapshot().last.index == 0:
            raise CommandError(f"{describe_id(host.id)} has no snapshot; say: snapshot {host.id}")
        self.cluster.send_snapshot(host.id, parse_id(peer))

    @command(_SNAPSHOTS, "snapshot_failed N PEER")
    def snapshot_failed(self, node: str, peer: str) -> None:
        """Tell N's core that the snapshot for PEER could not be sent."""
        self.raft(node).snapshot_failed(parse_id(peer))

    # ---- a host's duties --------------------------------------------------------------------

    @command(_DUTIES, "settle [IDS]")
    def settle(self, nodes: str = "") -> None:
        """Do everything until nothing is left to do: deliver, write, apply; no time passes.

        With IDS only these nodes do something; messages to others stay in flight.
        """
        self.cluster.settle([self.host(str(n)).id for n in parse_ids(nodes)] if nodes else None)

    @command(_DUTIES, "ready N")
    def ready(self, node: str) -> None:
        """Take what N's core hands out: send its messages, start its write to disk.

        A write takes its time: `persist` ends it.
        """
        host = self.host_that_is_up(node)
        self.cluster.take_ready(host.id)

    @command(_DUTIES, "persist N")
    def persist(self, node: str) -> None:
        """Let N's write be durable; messages that promise it leave only now."""
        host = self.host_that_is_up(node)
        if host.write is None:
            raise CommandError(f"{describe_id(host.id)} writes nothing; `ready {host.id}` first")
        self.cluster.finish_write(host.id)

    @command(_DUTIES, "apply N")
    def apply(self, node: str) -> None:
        """Let N apply the committed entries that its core handed out."""
        self.host_that_is_up(node).apply()
