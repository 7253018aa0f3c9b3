"""Runs golden traces: text files of commands and of everything that happened because of them.

A file proves one fact, which its first line states. Then come blocks, separated by empty lines:

    # An optional comment.
    propose 1 hello
    settle
    ----
    n1 write 3 [3@2]
    ...

To accept new output, run with the environment variable REWRITE_TRACES=1 and read the diff as
what it is: a change of behaviour.

Commands (nodes are small numbers; ``a=b`` arguments may come in any order)

    founded VOTERS [learners=..] [outgoing=..]   nodes that hold 1@1, e.g. ``founded 1,2,3``
    config VOTERS [learners=..] [outgoing=..]    what `node` uses as 1@1
    node N terms=1,1,2 [commit=] [term=] [vote=] a node that restarts with entries of these terms
    empty IDS                                    nodes of no cluster
    limits NAME=VALUE ...                        Config fields of nodes made after this
    bootstrap N VOTERS | campaign N | propose N TEXT | read N CONTEXT | transfer N TARGET
    add N ID [name=] [auto=true] | promote N ID | remove N ID | swap N OLD NEW | leave N
                                                 propose a change of the configuration to N
    promotable N                                 what the host of N should propose to promote
    compact N INDEX                              drop entries from N's memory
    snapshot N                                   N's disk holds what is applied as a snapshot
    send_snapshots N                             send those that N's core wants
    send_snapshot N PEER                         send N's newest one, asked for or not
    snapshot_failed N PEER                       N's host could not send it
    tick N [COUNT] | timeout N | heartbeat N     let time pass, also: by an election timeout
    miss IDS                                     they miss the leader, and their campaigns are lost
    ready N | persist N | apply N                single duties of a host
    settle [IDS]                                 all duties and deliveries, until nothing is left
    deliver|drop|duplicate [from=] [to=] [type=] messages now in flight (all that match)
    cut A B | isolate IDS | heal                 links that lose messages: one way, around IDS
    inject KIND sender= receiver= term= ...      step a made-up message
    append sender= receiver= term= base=I@T terms=1,1   step a made-up Append
    inject_config sender= ... base=I@T voters=   step an Append of one configuration
    crash N | restart N                          lose what is not durable; start from disk
    half_persist N                               of a write with a snapshot only that is durable
    status [IDS] | log N | progress N | flight | removed    print
    quiet COMMAND                                run without printing: what the fact is not about
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftkv.raft import (
    AddLearner,
    Append,
    AppendResp,
    BootstrapRefused,
    ConfigChange,
    ConfigChangeRefused,
    ConfState,
    Heartbeat,
    HeartbeatResp,
    Input,
    LeaveJoint,
    Message,
    PreVote,
    PreVoteResp,
    PromoteLearner,
    ProposalDropped,
    ReadDropped,
    ReadIndex,
    ReadIndexResp,
    RemoveMember,
    ReplaceMember,
    TimeoutNow,
    Vote,
    VoteResp,
)
from raftkv.raft.describe import (
    describe_conf_state,
    describe_entry,
    describe_entry_id,
    describe_id,
    describe_message,
)
from tests.raft.cluster_env import (
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    Cluster,
    make_conf,
    make_config_entry,
    make_entry,
    make_member,
)

KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Append,
        AppendResp,
        Heartbeat,
        HeartbeatResp,
        PreVote,
        PreVoteResp,
        ReadIndex,
        ReadIndexResp,
        TimeoutNow,
        Vote,
        VoteResp,
    )
}


@dataclass
class Block:
    """Comments and commands, and what they are expected to print."""

    head: list[str]
    expected: list[str]

    @property
    def commands(self) -> list[str]:
        return [line for line in self.head if not line.startswith("#")]


@dataclass
class Trace:
    fact: str
    blocks: list[Block]

    def text(self) -> str:
        parts = [f"# {self.fact}"]
        parts += ["\n".join([*block.head, "----", *block.expected]) for block in self.blocks]
        return "\n\n".join(parts) + "\n"


def parse_trace(text: str) -> Trace:
    first, *rest = [part for part in text.strip().split("\n\n") if part.strip()]
    fact = " ".join(line.removeprefix("#").strip() for line in first.splitlines())
    blocks = []
    for part in rest:
        lines = part.strip("\n").splitlines()
        cut = lines.index("----") if "----" in lines else len(lines)
        blocks.append(Block(lines[:cut], lines[cut + 1 :]))
    return Trace(fact, blocks)


def run_trace(trace: Trace) -> Trace:
    """Run all commands; returns the trace with what they printed in place of ``expected``."""
    runner = TraceRunner()
    return Trace(
        trace.fact,
        [Block(block.head, list(runner.run_block(block.commands))) for block in trace.blocks],
    )


def run_file(path: Path) -> tuple[str, str]:
    """Returns the file's text and what it should be according to the code."""
    text = path.read_text()
    return text, run_trace(parse_trace(text)).text()


def _ids(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _value(text: str) -> Any:
    return (
        {"none": None, "true": True, "false": False}.get(text, text)
        if not text.isdigit()
        else int(text)
    )


class TraceRunner:
    """Performs commands on a `Cluster`."""

    def __init__(self) -> None:
        self._settings: dict[str, int] = {}
        self.cluster = Cluster(settings=self._settings)
        self._conf = ConfState()

    def run_block(self, commands: list[str]) -> Iterator[str]:
        for command in commands:
            self.run(command)
        lines = self.cluster.lines[:]
        self.cluster.lines.clear()
        yield from lines or ["ok"]

    def run(self, command: str) -> None:
        if command.startswith("quiet "):
            said = len(self.cluster.lines)
            self.run(command.removeprefix("quiet "))
            del self.cluster.lines[said:]
            return
        words = command.split()
        name = words[0]
        positional = [word for word in words[1:] if "=" not in word]
        named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        method: Callable[..., None] = getattr(self, f"do_{name}")
        try:
            method(*positional, **{"from_" if key == "from" else key: named[key] for key in named})
        except (ProposalDropped, ReadDropped, BootstrapRefused, ConfigChangeRefused) as error:
            self._say(f"{type(error).__name__}: {error}")

    def _say(self, line: str) -> None:
        self.cluster.lines.append(line)

    # ---- building ---------------------------------------------------------------------------

    def do_config(self, voters: str, learners: str = "", outgoing: str = "") -> None:
        self._conf = make_conf(
            _ids(voters), _ids(learners) if learners else (), _ids(outgoing) if outgoing else ()
        )

    def do_founded(self, voters: str, learners: str = "", outgoing: str = "") -> None:
        self.do_config(voters, learners, outgoing)
        members = [member for member, _ in self._conf.sessions]
        self.cluster.add_founded(self._conf, members)

    def do_node(
        self, node: str, terms: str, commit: str = "0", term: str = "", vote: str = "none"
    ) -> None:
        entries = [
            make_entry(index, entry_term)
            if index > 1
            else make_config_entry(1, entry_term, self._conf)
            for index, entry_term in enumerate(_ids(terms), 1)
        ]
        self.cluster.add_with_log(
            int(node),
            entries,
            term=int(term) if term else None,
            vote=_value(vote),
            commit=int(commit),
        )

    def do_empty(self, nodes: str) -> None:
        self.cluster.add_empty(_ids(nodes))

    def do_limits(self, **limits: str) -> None:
        self._settings.update({name: int(value) for name, value in limits.items()})

    # ---- inputs -----------------------------------------------------------------------------

    def do_bootstrap(self, node: str, voters: str) -> None:
        self.cluster.raft(int(node)).bootstrap(make_conf(_ids(voters)))

    def do_campaign(self, node: str) -> None:
        self.cluster.raft(int(node)).campaign()

    def do_propose(self, node: str, text: str) -> None:
        entry_id = self.cluster.raft(int(node)).propose(text.encode())
        self._say(f"{describe_id(int(node))} appends {describe_entry_id(entry_id)} {text}")

    def _change(self, node: str, change: ConfigChange) -> None:
        raft = self.cluster.raft(int(node))
        entry_id = raft.propose_config(change)
        conf = describe_conf_state(raft.conf_state)
        self._say(f"{describe_id(int(node))} appends {describe_entry_id(entry_id)} {conf}")

    def do_add(self, node: str, learner: str, name: str = "", auto: str = "") -> None:
        self._change(node, AddLearner(make_member(int(learner), name), auto == "true"))

    def do_promote(self, node: str, learner: str) -> None:
        self._change(node, PromoteLearner(int(learner)))

    def do_remove(self, node: str, member: str) -> None:
        self._change(node, RemoveMember(int(member)))

    def do_swap(self, node: str, old: str, new: str) -> None:
        self._change(node, ReplaceMember(int(old), int(new)))

    def do_leave(self, node: str) -> None:
        self._change(node, LeaveJoint())

    def do_promotable(self, node: str) -> None:
        learners = self.cluster.raft(int(node)).learners_to_promote()
        self._say(",".join(map(describe_id, learners)) or "none")

    def do_compact(self, node: str, index: str) -> None:
        self.cluster.raft(int(node)).compact(int(index))

    def do_snapshot(self, node: str) -> None:
        base = self.cluster.hosts[int(node)].take_snapshot()
        self._say(f"{describe_id(int(node))} has a snapshot of {describe_entry_id(base.last)}")

    def do_send_snapshots(self, node: str) -> None:
        assert self.cluster.send_wanted_snapshots(self.cluster.hosts[int(node)])

    def do_send_snapshot(self, node: str, peer: str) -> None:
        self.cluster.send_snapshot(int(node), int(peer))

    def do_snapshot_failed(self, node: str, peer: str) -> None:
        self.cluster.raft(int(node)).snapshot_failed(int(peer))

    def do_read(self, node: str, context: str) -> None:
        self.cluster.raft(int(node)).read_index(int(context))

    def do_transfer(self, node: str, target: str) -> None:
        self.cluster.raft(int(node)).transfer_leader(int(target))

    def do_tick(self, node: str, count: str = "1") -> None:
        self.cluster.tick(int(node), int(count))

    def do_timeout(self, node: str) -> None:
        self.cluster.tick(int(node), ELECTION_TICKS)

    def do_heartbeat(self, node: str) -> None:
        self.cluster.tick(int(node), HEARTBEAT_TICKS)

    def do_miss(self, nodes: str) -> None:
        for node in _ids(nodes):
            self.cluster.tick(node, ELECTION_TICKS)
            self.cluster.take_ready(node)
        self.cluster.in_flight = [m for m in self.cluster.in_flight if not isinstance(m, PreVote)]

    # ---- a host's duties --------------------------------------------------------------------

    def do_ready(self, node: str) -> None:
        self.cluster.take_ready(int(node))

    def do_persist(self, node: str) -> None:
        self.cluster.finish_write(int(node))

    def do_apply(self, node: str) -> None:
        self.cluster.hosts[int(node)].apply()

    def do_settle(self, nodes: str = "") -> None:
        self.cluster.settle(_ids(nodes) if nodes else None)

    # ---- the network ------------------------------------------------------------------------

    def _matching(self, from_: str = "", to: str = "", type: str = "") -> list[Input]:  # noqa: A002
        return [
            message
            for message in self.cluster.in_flight
            if (not from_ or message.sender in _ids(from_))
            and (not to or message.receiver in _ids(to))
            and (not type or message.__class__.__name__ in type.split(","))
        ]

    def do_deliver(self, **selection: str) -> None:
        messages = self._matching(**selection)
        assert messages, "nothing to deliver"
        for message in messages:
            self.cluster.deliver(message)

    def do_drop(self, **selection: str) -> None:
        messages = self._matching(**selection)
        assert messages, "nothing to drop"
        for message in messages:
            self.cluster.in_flight.remove(message)
            self._say(f"dropped {describe_message(message)}")
            self.cluster.lost(message)

    def do_duplicate(self, **selection: str) -> None:
        messages = self._matching(**selection)
        assert messages, "nothing to duplicate"
        self.cluster.in_flight += messages

    def do_flight(self) -> None:
        for message in self.cluster.in_flight:
            self._say(describe_message(message))

    def do_cut(self, sender: str, receiver: str) -> None:
        self.cluster.cut.add((int(sender), int(receiver)))

    def do_isolate(self, nodes: str) -> None:
        inside = _ids(nodes)
        self.cluster.isolate(inside, [node for node in self.cluster.hosts if node not in inside])

    def do_heal(self) -> None:
        self.cluster.cut.clear()

    def do_inject(self, kind: str, **fields: str) -> None:
        arguments = {name: _value(value) for name, value in fields.items()}
        message = KINDS[kind](**arguments)
        self._say(describe_message(message))
        self.cluster.hand_over(message)

    def do_append(
        self,
        *,
        sender: str,
        receiver: str,
        term: str,
        base: str,
        terms: str = "",
        commit: str = "0",
        session: str = "1",
    ) -> None:
        prev_index, prev_term = (int(part) for part in base.split("@"))
        entries = tuple(
            make_entry(index, entry_term)
            for index, entry_term in enumerate(_ids(terms) if terms else (), prev_index + 1)
        )
        message = Append(
            int(sender),
            int(receiver),
            int(term),
            int(session),
            prev_term,
            prev_index,
            int(commit),
            entries,
        )
        self._say(describe_message(message))
        self.cluster.hand_over(message)

    def do_inject_config(
        self, *, sender: str, receiver: str, term: str, base: str, voters: str
    ) -> None:
        prev_index, prev_term = (int(part) for part in base.split("@"))
        entry = make_config_entry(prev_index + 1, int(term), make_conf(_ids(voters)))
        message = Append(
            int(sender), int(receiver), int(term), 1, prev_term, prev_index, 0, (entry,)
        )
        self._say(describe_message(message))
        self.cluster.hand_over(message)

    # ---- faults -----------------------------------------------------------------------------

    def do_crash(self, node: str) -> None:
        self.cluster.hosts[int(node)].crash()

    def do_restart(self, node: str) -> None:
        self.cluster.hosts[int(node)].start()

    def do_half_persist(self, node: str) -> None:
        host = self.cluster.hosts[int(node)]
        assert host.write is not None
        assert host.write.snapshot is not None
        host.disk.snapshot(host.write.snapshot, host.files[host.write.snapshot.last])

    # ---- printing ---------------------------------------------------------------------------

    def do_status(self, nodes: str = "") -> None:
        for node in _ids(nodes) if nodes else list(self.cluster.hosts):
            if not self.cluster.hosts[node].is_up:
                self._say(f"{describe_id(node)} down")
                continue
            raft = self.cluster.raft(node)
            line = (
                f"{describe_id(node)} {raft.role} term={raft.term} vote={describe_id(raft.vote)}"
                f" leader={describe_id(raft.leader_id)} commit={raft.commit_index}"
                f" durable={raft.durable_index} last={raft.last_index}@{raft.last_term}"
            )
            if raft.dropped_messages:
                line += f" dropped={raft.dropped_messages}"
            self._say(line)

    def do_removed(self) -> None:
        removed = [host.id for host in self.cluster.up() if host.raft.is_removed]
        self._say(f"removed: {','.join(map(describe_id, removed)) or 'none'}")

    def do_log(self, node: str) -> None:
        raft = self.cluster.raft(int(node))
        for entry in raft.entries(raft.first_index, raft.last_index + 1):
            self._say(describe_entry(entry))

    def do_progress(self, node: str) -> None:
        raft = self.cluster.raft(int(node))
        for peer, progress in raft.progress.items():
            if peer != raft.id:
                learner = " learner" if progress.is_learner else ""
                learner += " leaving" if progress.leaves_at is not None else ""
                self._say(
                    f"{describe_id(peer)} {progress.state} match={progress.match}"
                    f" next={progress.next}{learner}"
                )
