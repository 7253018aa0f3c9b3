"""Network addresses as people write them: "HOST:PORT". Pure."""

import sys
from dataclasses import dataclass

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host name or IP address, and a port. ``str`` gives back what `parse_address` takes."""

    host: str
    port: int

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK_NAMES or self.host == "::1" or self.host.startswith("127.")

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface: fit for listening, not for being found."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104


def parse_address(text: str) -> Address:
    """The address in ``text``; an IPv6 host stands in brackets. Raises ValueError, a sentence."""
    host, colon, port_text = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is not HOST:PORT (an IPv6 address stands in brackets)")
    if not colon or not host or any(char.isspace() or char in "/,=@[]" for char in host):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text[:6]) < 65536):
        raise ValueError(f"{text!r} has no port between 1 and 65535")
    return Address(host, int(port_text))
