"""The commands that show something and change nothing."""

from typing import Final

from raftkv.demo.command import CommandError, CommandSet, command, parse_ids
from raftkv.raft import Role
from raftkv.raft.describe import describe_entry, describe_id

_GROUP: Final = "Looking"


class Looking(CommandSet):
    """What the nodes hold."""

    @command(_GROUP, "status [IDS]")
    def status(self, nodes: str = "") -> None:
        """Show what each node is: role, term, vote, leader, and the ends of its log."""
        ids = [self.host(str(n)).id for n in parse_ids(nodes)] or list(self.cluster.hosts)
        for node in ids:
            if not self.cluster.hosts[node].is_up:
                self.say(f"{describe_id(node)} down")
                continue
            raft = self.cluster.raft(node)
            line = (
                f"{describe_id(node)} {raft.role} term={raft.term} vote={describe_id(raft.vote)}"
                f" leader={describe_id(raft.leader_id)} commit={raft.commit_index}"
                f" durable={raft.durable_index} last={raft.last_index}@{raft.last_term}"
            )
            if raft.dropped_messages:
                line += f" dropped={raft.dropped_messages}"
            self.say(line)

    @command(_GROUP, "log N")
    def log(self, node: str) -> None:
        """Show the entries in N's memory, committed or not."""
        raft = self.raft(node)
        for entry in raft.entries(raft.first_index, raft.last_index + 1):
            self.say(describe_entry(entry))

    @command(_GROUP, "progress N")
    def progress(self, node: str) -> None:
        """Show what the leader N knows of each of its peers' logs."""
        raft = self.raft(node)
        if raft.role is not Role.LEADER:
            raise CommandError(f"{describe_id(raft.id)} does not lead; `status` says who does")
        for peer, progress in raft.progress.items():
            if peer != raft.id:
                learner = " learner" if progress.is_learner else ""
                learner += " leaving" if progress.leaves_at is not None else ""
                self.say(
                    f"{describe_id(peer)} {progress.state} match={progress.match}"
                    f" next={progress.next}{learner}"
                )

    @command(_GROUP, "removed")
    def removed(self) -> None:
        """Show which nodes know that they are no members any more."""
        removed = [host.id for host in self.cluster.up() if host.raft.is_removed]
        self.say(f"removed: {','.join(map(describe_id, removed)) or 'none'}")
