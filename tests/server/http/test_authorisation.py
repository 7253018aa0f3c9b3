"""What the grants of a token allow: roles, prefixes, and where a range ends."""

import pytest

from raftkv.server.http.authorisation import (
    Access,
    Admin,
    AnyRole,
    CreateLease,
    Grant,
    ReadKey,
    ReadLease,
    ReadRange,
    Role,
    WriteKey,
    WriteLease,
    WriteRange,
    allows,
)

READ_A = Grant(Role.READ, b"a/")
WRITE_A = Grant(Role.WRITE, b"a/")
WRITE_ALL = Grant(Role.WRITE)
ADMIN = Grant(Role.ADMIN)


@pytest.mark.parametrize(
    ("grants", "access", "is_allowed"),
    [
        ((READ_A,), ReadKey(b"a/1"), True),
        ((READ_A,), ReadKey(b"a/"), True),
        ((READ_A,), ReadKey(b"a"), False),
        ((READ_A,), ReadKey(b"b/1"), False),
        ((READ_A,), WriteKey(b"a/1"), False),
        ((WRITE_A,), WriteKey(b"a/1"), True),
        ((WRITE_A,), ReadKey(b"a/1"), True),
        ((WRITE_A,), WriteKey(b"A/1"), False),
        ((WRITE_ALL,), WriteKey(b"\x00"), True),
        ((WRITE_ALL,), Admin(), False),
        ((WRITE_A,), AnyRole(), True),
        ((READ_A,), AnyRole(), True),
        ((), AnyRole(), False),
        ((), ReadKey(b"a"), False),
        ((ADMIN,), Admin(), True),
        ((ADMIN,), WriteRange(b"", None), True),
        # A range lies under the prefix as a whole, or is refused.
        ((READ_A,), ReadRange(b"a/", b"a0"), True),
        ((READ_A,), ReadRange(b"a/1", b"a/2"), True),
        ((READ_A,), ReadRange(b"a/", b"a1"), False),
        ((READ_A,), ReadRange(b"a/", b"a0\x00"), False),
        ((READ_A,), ReadRange(b"a.", b"a/2"), False),
        ((READ_A,), ReadRange(b"a/", None), False),
        ((READ_A,), ReadRange(b"", None), False),
        ((READ_A,), WriteRange(b"a/1", b"a/2"), False),
        ((WRITE_A,), WriteRange(b"a/", b"a0"), True),
        ((WRITE_A,), WriteRange(b"a/", b"a1"), False),
        ((WRITE_ALL,), ReadRange(b"", None), True),
        ((Grant(Role.READ, b"\xff"),), ReadRange(b"\xff", None), True),
        ((Grant(Role.READ, b"a\xff"),), ReadRange(b"a\xff", b"b"), True),
        ((Grant(Role.READ, b"a\xff"),), ReadRange(b"a\xff", b"b\x00"), False),
        # Several grants of one token: each key under any of them, a range under one.
        ((READ_A, Grant(Role.WRITE, b"b/")), WriteKey(b"b/1"), True),
        ((READ_A, Grant(Role.WRITE, b"b/")), WriteKey(b"a/1"), False),
        ((READ_A, Grant(Role.READ, b"a0")), ReadRange(b"a/", b"a1"), False),
        # A lease is what is attached to it.
        ((READ_A,), CreateLease(), False),
        ((WRITE_A,), CreateLease(), True),
        ((READ_A,), ReadLease((b"a/1", b"a/2")), True),
        ((READ_A,), ReadLease((b"a/1", b"b/1")), False),
        ((READ_A,), ReadLease(()), True),
        ((READ_A,), WriteLease((b"a/1",)), False),
        ((READ_A,), WriteLease(()), False),
        ((WRITE_A,), WriteLease((b"a/1",)), True),
        ((WRITE_A,), WriteLease((b"a/1", b"b/1")), False),
        ((WRITE_A, Grant(Role.WRITE, b"b/")), WriteLease((b"a/1", b"b/1")), True),
        ((WRITE_A, Grant(Role.READ, b"b/")), WriteLease((b"a/1", b"b/1")), False),
    ],
)
def test_grants(grants: tuple[Grant, ...], access: Access, is_allowed: bool) -> None:
    assert allows(grants, access) is is_allowed
