"""The commands that make nodes."""

from typing import Final

from raftkv.demo.cluster import make_conf, make_config_entry, make_entry
from raftkv.demo.command import (
    CommandError,
    CommandSet,
    UsageError,
    command,
    parse_id,
    parse_ids,
    parse_number,
    parse_terms,
)
from raftkv.raft import ConfState

_GROUP: Final = "Making nodes"
_LIMITS: Final = (
    "append_bytes_max",
    "apply_bytes_max",
    "inflight_appends_max",
    "promote_lag_entries_max",
    "uncommitted_bytes_max",
)


class Making(CommandSet):
    """Making nodes, with whatever past is wanted."""

    @command(_GROUP, "founded VOTERS [learners=IDS] [outgoing=IDS]")
    def founded(self, voters: str, learners: str = "", outgoing: str = "") -> None:
        """Make nodes of a cluster that was just founded, such as: founded 1,2,3.

        Each holds the entry 1@1, which is the first configuration. With outgoing= the
        configuration is a joint one: decisions need a majority of both sets of voters.
        """
        self.config(voters, learners, outgoing)
        self.cluster.add_founded(self.conf, [member for member, _ in self.conf.sessions])

    @command(_GROUP, "empty IDS")
    def empty(self, nodes: str) -> None:
        """Make nodes with an empty disk, which belong to no cluster."""
        self.cluster.add_empty(parse_ids(nodes))

    @command(_GROUP, "config VOTERS [learners=IDS] [outgoing=IDS]")
    def config(self, voters: str, learners: str = "", outgoing: str = "") -> None:
        """Say which configuration the entry 1@1 holds in what `node` makes."""
        self.conf = make_conf(parse_ids(voters), parse_ids(learners), parse_ids(outgoing))

    @command(_GROUP, "node N terms=TERMS [commit=INDEX] [term=TERM] [vote=ID]")
    def node(
        self, node: str, terms: str, commit: str = "0", term: str = "", vote: str = "none"
    ) -> None:
        """Make a node that restarts with entries of these terms, such as: node 1 terms=1,1,2.

        1@1 is the configuration that `config` or `founded` named last.
        """
        entry_terms = parse_terms(terms)
        if not entry_terms or self.conf == ConfState():
            raise CommandError("1@1 needs a configuration: say `config 1,2,3` before")
        if entry_terms != sorted(entry_terms):
            raise UsageError(f"terms never fall along a log, {terms} do")
        entries = [
            make_entry(index, entry_term)
            if index > 1
            else make_config_entry(1, entry_term, self.conf)
            for index, entry_term in enumerate(entry_terms, 1)
        ]
        self.cluster.add_with_log(
            parse_id(node),
            entries,
            term=parse_number(term, entry_terms[-1]) if term else None,
            vote=None if vote == "none" else parse_id(vote),
            commit=parse_number(commit, 0, len(entries)),
        )

    @command(_GROUP, "limits NAME=VALUE ...")
    def limits(self, **limits: str) -> None:
        """Set limits of the nodes that are made or restarted from now on.

        append_bytes_max (of one Append), apply_bytes_max (of one turn), inflight_appends_max (to
        one peer, at least 1), promote_lag_entries_max (of a learner), uncommitted_bytes_max
        (beyond it proposals are dropped).
        """
        for name in limits:
            if name not in _LIMITS:
                raise UsageError(f"there is no limit {name!r}; there are: {', '.join(_LIMITS)}")
        self.settings.update(
            {
                name: parse_number(value, 1 if name == "inflight_appends_max" else 0)
                for name, value in limits.items()
            }
        )
