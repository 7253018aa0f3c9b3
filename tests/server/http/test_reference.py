"""docs/http-reference.md says what `/openapi.json` says."""

from pathlib import Path

from raftkv.server.http.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "http-reference.md"


def test_the_page_is_current() -> None:
    hint = "run: .venv/bin/python -m raftkv.server.http.reference > docs/http-reference.md"
    assert PAGE.read_text() == reference(), hint
