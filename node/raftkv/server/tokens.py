"""Bearer tokens: the file that says what each allows, and who sent a request.

    # sha256 of the token                                            role   key prefix
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 write  app/orders/

Roles are read, write (includes read) and admin (everything, never with a prefix). The prefix is
percent-encoded; without one, all keys are meant. A token with several lines has all their grants.
The file holds no secret, a token is never stored, and nothing that a client sent stands in a log
line or an error.

Each node reads its own file. A node that a request reached decides; the leader trusts its peers.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from multidict import istr

from raftkv.server.http.authorisation import CHALLENGE, Grant, Role
from raftkv.server.http.problems import UNAUTHENTICATED, Refused
from raftkv.server.http.requests import Headers
from raftkv.server.http.targets import KEY_BYTES_MAX

FILE_BYTES_MAX: Final = 1 << 20  # read at once on the event loop: 25 ms
TOKEN_BYTES_MAX: Final = 4096

_AUTHORIZATION: Final = istr("Authorization")
_BEARER: Final = re.compile(r"bearer ([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_DIGEST: Final = re.compile(rb"[0-9a-fA-F]{64}")
_PREFIX: Final = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")
_ROLES: Final = {b"read": Role.READ, b"write": Role.WRITE, b"admin": Role.ADMIN}

Grants = tuple[Grant, ...]


class TokenFileError(ValueError):
    """The file is broken; the message names the line, and nothing that stands in it."""


def parse_tokens(data: bytes) -> dict[bytes, Grants]:
    """The grants of each token, by its SHA-256. Raises TokenFileError."""
    grants: dict[bytes, Grants] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(b"#"):
            continue
        try:
            digest, grant = _parse_line(fields)
        except ValueError as error:
            raise TokenFileError(f"line {number} of the token file: {error}") from None
        grants[digest] = (*grants.get(digest, ()), grant)
    if not grants:
        # Also what is seen of a file that is being written in place.
        raise TokenFileError("the token file holds no token, so nobody could do anything")
    return grants


def _parse_line(fields: list[bytes]) -> tuple[bytes, Grant]:
    if len(fields) > 3 or len(fields) < 2:
        raise ValueError("a line is the SHA-256 of a token, a role, and a key prefix or nothing")
    if _DIGEST.fullmatch(fields[0]) is None:
        raise ValueError("the first word is not the SHA-256 of a token in 64 hexadecimal digits")
    role = _ROLES.get(fields[1])
    if role is None:
        raise ValueError("the role is read, write or admin")
    if len(fields) == 2:
        return bytes.fromhex(fields[0].decode()), Grant(role)
    if role is Role.ADMIN:
        raise ValueError("a prefix cannot limit what an administrator does")
    if _PREFIX.fullmatch(fields[2]) is None:
        raise ValueError("the prefix is not percent-encoded")
    prefix = unquote_to_bytes(fields[2])
    if len(prefix) > KEY_BYTES_MAX:
        raise ValueError(f"the prefix is longer than any key ({KEY_BYTES_MAX} bytes)")
    return bytes.fromhex(fields[0].decode()), Grant(role, prefix)


class Tokens:
    """The tokens that are valid now."""

    def __init__(self, path: Path) -> None:
        """`load` comes before the first use."""
        self.path = path
        self._grants: dict[bytes, Grants] = {}

    def load(self) -> None:
        """Use the file as it is now. Raises OSError or TokenFileError, and changes nothing then."""
        with self.path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise TokenFileError(f"the token file is larger than {FILE_BYTES_MAX} bytes")
        self._grants = parse_tokens(data)

    def authenticate(self, headers: Headers) -> "Bearer":
        """Who sent the request. Raises Refused (401) without exactly one valid token."""
        lines = headers.getall(_AUTHORIZATION, [])
        if not lines:
            raise _unauthenticated("a token is needed: Authorization: Bearer TOKEN")
        if len(lines) > 1:
            raise _unauthenticated("Authorization is given more than once")
        match = _BEARER.fullmatch(lines[0])
        if match is None or len(match[1]) > TOKEN_BYTES_MAX:
            raise _unauthenticated("Authorization does not hold one bearer token")
        bearer = Bearer(self, hashlib.sha256(match[1].encode("ascii")).digest())
        bearer.grants()
        return bearer

    def grants_of(self, digest: bytes) -> Grants:
        """What the token with this SHA-256 allows now. Raises Refused (401): it is not valid.

        How long this takes tells nothing of the tokens that exist: it depends on a digest, of
        which a client can choose not a single byte.
        """
        grants = self._grants.get(digest)
        if grants is not None:
            return grants
        raise _unauthenticated("the token is not valid")


class Bearer:
    """Whoever sent a token. Implements `raftkv.server.http.authorisation.Identity`."""

    __slots__ = ("_digest", "_tokens")

    def __init__(self, tokens: Tokens, digest: bytes) -> None:
        self._tokens = tokens
        self._digest = digest

    def grants(self) -> Sequence[Grant]:
        """See `Identity`."""
        return self._tokens.grants_of(self._digest)


def _unauthenticated(detail: str) -> Refused:
    return Refused(UNAUTHENTICATED, detail, CHALLENGE)
