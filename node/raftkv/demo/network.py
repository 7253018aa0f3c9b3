"""The commands that decide what becomes of messages, and those that crash nodes."""

from typing import Any, Final, get_args

import msgspec

from raftkv.demo.cluster import make_conf, make_config_entry, make_entry
from raftkv.demo.command import (
    CommandError,
    CommandSet,
    UsageError,
    command,
    parse_id,
    parse_ids,
    parse_number,
    parse_position,
    parse_terms,
    parse_value,
)
from raftkv.raft import Append, Input, Message
from raftkv.raft.describe import describe_id, describe_message

_NETWORK: Final = "Network"
_FAULTS: Final = "Crashes"
_FORGING: Final = "Made-up messages"
_IN_FLIGHT_MAX: Final = 10_000
# All but Append, which has commands of its own.
_KINDS: Final[dict[str, type[Message]]] = {
    kind.__name__: kind
    for kind in sorted(get_args(Message), key=lambda kind: kind.__name__)
    if kind is not Append
}


class Network(CommandSet):
    """Messages in flight, links, crashes, and messages that nobody sent."""

    def _matching(self, from_: str, to: str, type_: str) -> list[Input]:
        senders, receivers, kinds = parse_ids(from_), parse_ids(to), type_.split(",")
        return [
            message
            for message in self.cluster.in_flight
            if (not from_ or message.sender in senders)
            and (not to or message.receiver in receivers)
            and (not type_ or message.__class__.__name__ in kinds)
        ]

    def _some(self, from_: str, to: str, type_: str) -> list[Input]:
        messages = self._matching(from_, to, type_)
        if not messages:
            raise CommandError("no such message is in flight; `flight` shows those that are")
        return messages

    @command(_NETWORK, "deliver [from=IDS] [to=IDS] [type=KINDS]")
    def deliver(self, from_: str = "", to: str = "", type: str = "") -> None:  # noqa: A002
        """Deliver the messages now in flight, or those that match, such as: deliver to=2,3."""
        for message in self._some(from_, to, type):
            self.cluster.deliver(message)

    @command(_NETWORK, "drop [from=IDS] [to=IDS] [type=KINDS]")
    def drop(self, from_: str = "", to: str = "", type: str = "") -> None:  # noqa: A002
        """Lose the messages now in flight, or those that match, such as: drop type=Vote."""
        for message in self._some(from_, to, type):
            self.cluster.in_flight.remove(message)
            self.say(f"dropped {describe_message(message)}")
            self.cluster.lost(message)

    @command(_NETWORK, "duplicate [from=IDS] [to=IDS] [type=KINDS]")
    def duplicate(self, from_: str = "", to: str = "", type: str = "") -> None:  # noqa: A002
        """Let the messages now in flight, or those that match, arrive twice."""
        messages = self._some(from_, to, type)
        if len(self.cluster.in_flight) + len(messages) > _IN_FLIGHT_MAX:
            raise CommandError(f"no more than {_IN_FLIGHT_MAX} messages can be in flight")
        self.cluster.in_flight += messages

    @command(_NETWORK, "flight")
    def flight(self) -> None:
        """Show the messages in flight."""
        for message in self.cluster.in_flight:
            self.say(describe_message(message))

    @command(_NETWORK, "cut A B")
    def cut(self, sender: str, receiver: str) -> None:
        """Lose everything that A sends to B from now on; the way back stays open."""
        self.cluster.cut.add((parse_id(sender), parse_id(receiver)))

    @command(_NETWORK, "isolate IDS")
    def isolate(self, nodes: str) -> None:
        """Cut these nodes off from all others, both ways."""
        inside = [self.host(str(node)).id for node in parse_ids(nodes)]
        self.cluster.isolate(inside, [node for node in self.cluster.hosts if node not in inside])

    @command(_NETWORK, "heal")
    def heal(self) -> None:
        """Let all links work again. What was lost stays lost."""
        self.cluster.cut.clear()

    # ---- crashes ----------------------------------------------------------------------------

    @command(_FAULTS, "crash N")
    def crash(self, node: str) -> None:
        """Crash node N: it keeps what its disk holds, and of a write in flight nothing."""
        self.host(node).crash()

    @command(_FAULTS, "restart N")
    def restart(self, node: str) -> None:
        """Start node N from what its disk holds; one that is up crashes first."""
        host = self.host(node)
        host.crash()
        host.start()

    @command(_FAULTS, "half_persist N")
    def half_persist(self, node: str) -> None:
        """Of N's write that holds a snapshot, let only the snapshot be durable. Then crash it."""
        host = self.host_that_is_up(node)
        if host.write is None or host.write.snapshot is None:
            raise CommandError(f"{describe_id(host.id)} writes no snapshot")
        host.disk.snapshot(host.write.snapshot, host.files[host.write.snapshot.last])

    # ---- made-up messages -------------------------------------------------------------------

    @command(_FORGING, "inject KIND sender=ID receiver=ID term=TERM FIELD=VALUE ...")
    def inject(self, kind: str, **fields: str) -> None:
        """Deliver a message that nobody sent.

        Such as: inject TimeoutNow sender=1 receiver=2 term=2.
        Raft trusts its members: with a message that no node would send you can break it.
        """
        if kind not in _KINDS:
            raise UsageError(f"there is no kind {kind[:40]!r}; there are: {', '.join(_KINDS)}")
        self._forge(_KINDS[kind](**_checked(_KINDS[kind], fields)))

    @command(
        _FORGING,
        "append sender=ID receiver=ID term=TERM base=INDEX@TERM [terms=TERMS] [commit=INDEX]"
        " [session=INDEX]",
    )
    def append(
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
        """Deliver an Append that nobody sent, with entries of the given terms after base."""
        prev_index, prev_term = parse_position(base)
        entries = tuple(
            make_entry(index, entry_term)
            for index, entry_term in enumerate(parse_terms(terms), prev_index + 1)
        )
        self._forge(
            Append(
                parse_id(sender),
                parse_id(receiver),
                parse_number(term),
                parse_number(session),
                prev_term,
                prev_index,
                parse_number(commit),
                entries,
            )
        )

    @command(
        _FORGING,
        "inject_config sender=ID receiver=ID term=TERM base=INDEX@TERM voters=IDS",
    )
    def inject_config(
        self, *, sender: str, receiver: str, term: str, base: str, voters: str
    ) -> None:
        """Deliver an Append that nobody sent, with one entry: the configuration of these voters."""
        prev_index, prev_term = parse_position(base)
        number = parse_number(term)
        entry = make_config_entry(prev_index + 1, number, make_conf(parse_ids(voters)))
        ends = parse_id(sender), parse_id(receiver)
        self._forge(Append(*ends, number, 1, prev_term, prev_index, 0, (entry,)))

    def _forge(self, message: Message) -> None:
        self.say(describe_message(message))
        self.cluster.hand_over(message)


def _checked(kind: type[Message], texts: dict[str, str]) -> dict[str, Any]:
    """The fields of a message, of the right types."""
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    wanted = ", ".join(known)
    missing = [f.name for f in known.values() if f.required and f.name not in texts]
    if missing or not known.keys() >= texts.keys():
        raise UsageError(f"the fields of {kind.__name__} are: {wanted}")
    values = {name: parse_value(text) for name, text in texts.items()}
    for name, value in values.items():
        try:
            msgspec.convert(value, known[name].type)
        except msgspec.ValidationError as error:
            raise UsageError(f"{name}={texts[name]}: {error}") from None
    return values
