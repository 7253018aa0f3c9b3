"""The configuration file: what it takes, and where it is wrong."""

import pytest

from raftkv.server.config_file import (
    ConfigError,
    Entry,
    Value,
    kind_of_flags,
    parse_config,
    write_config,
)
from raftkv.server.settings import Flags


def test_entries_have_the_names_of_flags() -> None:
    text = """# a comment
addr = "0.0.0.0:7400"
"quota-bytes" = 4_294_967_296

  drain_seconds = 3   # seconds
rebuild=true
'data' = '/var/lib/raftkv'
"""
    assert parse_config(text) == {
        "addr": Entry("0.0.0.0:7400", 2),
        "quota_bytes": Entry(4_294_967_296, 3),
        "drain_seconds": Entry(3, 5),
        "rebuild": Entry(True, 6),
        "data": Entry("/var/lib/raftkv", 7),
    }
    assert parse_config("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("addr", "not TOML: .*line 1"),
        ("\naddr = 'a'\naddr = 'b'", "not TOML: .*line 3"),
        ("\nadress = 'a:1'", "line 2: there is no setting 'adress'"),
        ("config = 'a'", "line 1: there is no setting 'config'"),
        ("print-config = true", "line 1: there is no setting 'print-config'"),
        ("\n\n[node]\naddr = 'a:1'", "line 3: there is no setting 'node'"),
        ("--addr = 'a:1'", "there is no setting '--addr'"),
        ("addr = 7400", "line 1: addr is a string, not a whole number"),
        ("addr = ['a:1']", "line 1: addr is a string, not a list"),
        ("addr.port = 1", "line 1: addr is a string, not a table"),
        ("addr = 2026-01-01", "line 1: addr is a string, not a date or time"),
        ("quota-bytes = '2GiB'", "line 1: quota-bytes is a whole number, not a string"),
        ("quota-bytes = 1e9", "line 1: quota-bytes is a whole number, not a number"),
        ("quota-bytes = true", "line 1: quota-bytes is a whole number, not true or false"),
        ("drain-seconds = true", "line 1: drain-seconds is a number, not true or false"),
        ("rebuild = 1", "line 1: rebuild is true or false, not a whole number"),
        ("rebuild = 'true'", "line 1: rebuild is true or false, not a string"),
        ("log-level = 'info'\nlog_level = 'info'", "line 2: log_level is given twice"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(text)


def test_every_flag_has_a_kind() -> None:
    kinds = kind_of_flags()
    assert set(kinds) == set(Flags.__slots__)
    assert kinds["data"] is kinds["tls_ca"] is kinds["peers"] is str
    assert kinds["heartbeat_ms"] is int
    assert kinds["drain_seconds"] is float
    assert kinds["rebuild"] is bool


def test_what_is_written_is_read_back() -> None:
    values: dict[str, Value] = {
        "id": 'n"1\\ \x7f\t\x01 ü 😀',
        "quota_bytes": 2**40,
        "drain_seconds": 8.0,
        "rebuild": False,
    }
    text = write_config({name: (value, "default") for name, value in values.items()})
    assert {name: entry.value for name, entry in parse_config(text).items()} == values
    assert write_config({"tls_cert": (None, "default")}) == "# tls-cert is not set\n"
