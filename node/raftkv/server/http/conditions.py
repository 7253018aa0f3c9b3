"""Entity tags and what If-Match and If-None-Match ask (RFC 9110, section 13). Pure.

The tag of a value is `"<mod revision>"`, that of its JSON form `"<mod revision>-j"`: two
representations never share a tag. On writes both name the same revision. Comparison is always
strong: a weak tag is well-formed and matches nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from raftkv.kv.commands import Condition
from raftkv.server.http.problems import BAD_HEADER, Refused

_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
_REVISION_TAG: Final = re.compile(r"([1-9][0-9]{0,18})(?:-j)?", re.ASCII)


def etag(mod_revision: int, *, as_json: bool = False) -> str:
    """The entity tag of a key's value, or of its JSON item."""
    return f'"{mod_revision}-j"' if as_json else f'"{mod_revision}"'


@dataclass(frozen=True, slots=True)
class EntityTags:
    """What a conditional header lists."""

    is_any: bool  # "*": any current representation
    tags: tuple[str, ...] = ()  # strong ones only, without quotes

    def matches(self, current: str) -> bool:
        """Whether the existing representation with the tag ``current`` is meant."""
        return self.is_any or current[1:-1] in self.tags


def parse_tags(name: str, lines: Sequence[str]) -> EntityTags | None:
    """What all ``lines`` of the header ``name`` list together; None when there is no line."""
    if not lines:
        return None
    text = ",".join(lines).strip()
    if text == "*":
        return EntityTags(is_any=True)
    tags: list[str] = []
    rest = text.lstrip(" \t,")
    while rest:
        match = _TAG.match(rest)
        if match is None:
            detail = f'{name} takes *, or entity tags in double quotes, as in {name}: "7"'
            raise Refused(BAD_HEADER, detail)
        if not match[1]:
            tags.append(match[2])
        rest = rest[match.end() :].lstrip(" \t")
        if rest and not rest.startswith(","):
            raise Refused(BAD_HEADER, f"{name}: entity tags are separated by commas")
        rest = rest.lstrip(" \t,")
    return EntityTags(is_any=False, tags=tuple(tags))


def write_condition(if_match: Sequence[str], if_none_match: Sequence[str]) -> Condition | None:
    """The precondition of a write, from the lines of both headers."""
    existing = parse_tags("If-Match", if_match)
    absent = parse_tags("If-None-Match", if_none_match)
    if existing is not None and absent is not None:
        raise Refused(BAD_HEADER, "If-Match and If-None-Match contradict each other on a write")
    if existing is not None:
        if existing.is_any:
            return Condition(exists=True)
        matches = filter(None, map(_REVISION_TAG.fullmatch, existing.tags))
        return Condition(revisions=tuple(sorted({int(match[1]) for match in matches})))
    if absent is not None:
        if not absent.is_any:
            raise Refused(BAD_HEADER, "on a write If-None-Match takes only *: create, not replace")
        return Condition(exists=False)
    return None
