"""Entity tags and conditions (API contract, 'If-Match')."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.kv.commands import Condition
from raftkv.server.http.conditions import EntityTags, etag, parse_tags, write_condition
from raftkv.server.http.problems import Refused


@pytest.mark.parametrize(
    ("lines", "condition"),
    [
        ([], None),
        (["*"], Condition(exists=True)),
        ([" * "], Condition(exists=True)),
        (['"7"'], Condition(revisions=(7,))),
        (['"7-j"'], Condition(revisions=(7,))),
        (['"9", "7-j","7"'], Condition(revisions=(7, 9))),
        (['"9"', '"7"'], Condition(revisions=(7, 9))),
        ([',, "7" ,,'], Condition(revisions=(7,))),
        (['W/"7"'], Condition(revisions=())),  # weak tags never match
        (['W/"7", "8"'], Condition(revisions=(8,))),
        # Well-formed tags that no key can have match nothing.
        (['"0"', '"07"', '"-1"', '"+7"', '"7.0"', '""', '"x"', '"7-J"'], Condition(revisions=())),
        (['"99999999999999999999999"'], Condition(revisions=())),
        (['"\u0667"'], Condition(revisions=())),
    ],
)
def test_if_match_on_a_write(lines: list[str], condition: Condition | None) -> None:
    assert write_condition(lines, []) == condition


@pytest.mark.parametrize("line", ["7", '"7', '7"', "w/'7'", '"7" "8"', "**", '*, "7"', '"a"b'])
def test_malformed_tags(line: str) -> None:
    with pytest.raises(Refused, match="If-Match"):
        write_condition([line], [])


def test_if_none_match_on_a_write_means_create_only() -> None:
    assert write_condition([], ["*"]) == Condition(exists=False)
    with pytest.raises(Refused, match="only \\*"):
        write_condition([], ['"7"'])
    with pytest.raises(Refused, match="contradict"):
        write_condition(["*"], ["*"])


def test_matching_a_representation() -> None:
    tags = parse_tags("If-None-Match", ['"7", W/"8"'])
    assert tags is not None
    assert tags.matches(etag(7))
    assert not tags.matches(etag(8))
    assert not tags.matches(etag(7, as_json=True))  # another representation
    assert EntityTags(is_any=True).matches(etag(1))


@given(st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=5), st.booleans())
def test_our_own_tags_come_back(revisions: list[int], as_json: bool) -> None:
    line = ", ".join(etag(revision, as_json=as_json) for revision in revisions)
    expected = Condition(revisions=tuple(sorted(set(revisions))))
    assert write_condition([line], []) == expected


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30))
def test_any_header_value_is_parsed_or_refused(value: str) -> None:
    try:
        condition = write_condition([value], [])
    except Refused:
        return
    assert condition is not None
