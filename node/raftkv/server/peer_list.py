"""The value of `--peers`: who is to found a cluster together. Pure.

Two forms (API contract, 'Command line'): named, ``n1=HOST:PORT,n2=HOST:PORT``, which includes
the node itself; and the classic bare one, ``HOST:PORT,HOST:PORT``, with or without the node
itself. Every node is given the same list; `PeerList.digest` is how they compare it.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from raftkv.server.addresses import Address, parse_address

PEERS_MAX: Final = 31


@dataclass(frozen=True, slots=True, order=True)
class ListedPeer:
    """One entry. In the bare form the label is the address."""

    label: str
    address: Address

    def describe(self) -> str:
        """For messages: who, and where."""
        address = str(self.address)
        return address if self.label == address else f"{self.label} ({address})"


@dataclass(frozen=True, slots=True)
class PeerList:
    """All entries, the node's own among them, sorted; the first one is the founder."""

    entries: tuple[ListedPeer, ...]
    own: ListedPeer
    is_named: bool

    @property
    def founder(self) -> ListedPeer:
        """The node whose name or address sorts first."""
        return self.entries[0]

    @property
    def others(self) -> tuple[ListedPeer, ...]:
        """All but this node."""
        return tuple(entry for entry in self.entries if entry != self.own)

    @property
    def digest(self) -> str:
        """The same on two nodes if and only if they were given the same list."""
        text = ",".join(f"{entry.label}={entry.address}" for entry in self.entries)
        return hashlib.sha256(text.encode()).hexdigest()


def parse_named(text: str, own_name: str) -> PeerList:
    """The list in its named form. Raises ValueError, a sentence."""
    entries = []
    for part in _parts(text):
        label, equals, address = (piece.strip() for piece in part.partition("="))
        if not equals or not label:
            raise ValueError(f"--peers mixes NAME=HOST:PORT with {part!r}; name all or none")
        entries.append(ListedPeer(label, _canonical(parse_address(address))))
    own = next((entry for entry in entries if entry.label == own_name), None)
    if own is None:
        listed = ", ".join(sorted(entry.label for entry in entries))
        raise ValueError(f"--peers lists {listed}, but this node's --id is {own_name}")
    return _checked(entries, own, is_named=True)


def parse_bare(text: str, own_address: Address) -> PeerList:
    """The list in its bare form; this node is added if it is missing. Raises ValueError."""
    own_address = _canonical(own_address)
    addresses = [_canonical(parse_address(part)) for part in _parts(text)]
    if own_address not in addresses:
        addresses.append(own_address)
    entries = [ListedPeer(str(address), address) for address in addresses]
    return _checked(entries, ListedPeer(str(own_address), own_address), is_named=False)


def is_named(text: str) -> bool:
    """Whether ``text`` is the named form."""
    return "=" in text


def _parts(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"--peers has an empty entry: {text!r}")
    return parts


def _checked(entries: list[ListedPeer], own: ListedPeer, *, is_named: bool) -> PeerList:
    for what, values in (
        ("name", [entry.label for entry in entries]),
        ("address", [str(entry.address) for entry in entries]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"--peers lists the {what} {twice} twice")
    if len(entries) > PEERS_MAX:
        raise ValueError(f"--peers lists {len(entries)} nodes; at most {PEERS_MAX} can vote")
    return PeerList(tuple(sorted(entries)), own, is_named)


def _canonical(address: Address) -> Address:
    """Nodes compare their lists as text, and people write both names of the loopback."""
    return Address("127.0.0.1", address.port) if address.host == "localhost" else address
