"""What the documentation names exists, and what must be documented is."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from raftkv.server.http.routes import ROUTES
from raftkv.server.metrics import Metrics

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
TESTING = ROOT / "docs" / "testing.md"
HTTP_API = ROOT / "docs" / "http-api.md"
CLI = ROOT / "docs" / "cli.md"
PAGES = (
    ROOT / "README.md",
    ARCHITECTURE,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
# The map says once where the packages are; its tables leave that out.
PACKAGES = (ROOT, ROOT / "node" / "raftkv", ROOT / "operator" / "raftkv_operator")

# Of curl, helm, kubectl and etcdctl, of the operator, and of what `make` starts.
FOREIGN_FLAGS = {
    *("--path-as-is", "--set", "--replicas", "--rev", "--consistency", "--lease-namespace"),
    *("--only", "--length"),
}

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.*-]+(/[\w.*-]+)*(/|\.(py|md|txt|yaml|toml))|[\w.*-]+(/[\w.*-]+)+")
_FLAG = re.compile(r"--[a-z][a-z-]*[a-z]")
# In code, or as a line of an example.
_COMMAND = re.compile(r"(?:`|^ {4,}(?:\$ )?)(?:\.venv/bin/)?(raftkv(?: [^`\n]*)?)", re.MULTILINE)
_MAKE = re.compile(r"(?:`|^ {4,})make ([a-z0-9-]+)", re.MULTILINE)
_TARGET = re.compile(r"^([a-z0-9-]+):", re.MULTILINE)
_TEST_ENTRY = re.compile(r"`(tests/[\w./*-]+?)(?:::([\w*]+))?`")

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def table_rows(page: Path) -> Iterator[str]:
    return (line for line in page.read_text().splitlines() if line.startswith("|"))


@cache
def functions_of(module: Path) -> frozenset[str]:
    tree = ast.walk(ast.parse(module.read_text()))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree if isinstance(node, kinds))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@by_page
def test_every_relative_link_resolves(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@by_page
def test_no_diagram_holds_what_mermaid_takes_for_the_end_of_a_statement(page: Path) -> None:
    diagrams = re.findall(r"```mermaid\n(.*?)```", page.read_text(), re.DOTALL)
    assert [line for text in diagrams for line in text.splitlines() if ";" in line] == []


@by_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    assert set(_MAKE.findall(page.read_text())) <= targets


def test_paths_in_the_tables_of_the_architecture_exist() -> None:
    paths = {
        code
        for row in table_rows(ARCHITECTURE)
        for code in _CODE.findall(row)
        if _PATH.fullmatch(code)
    }
    assert len(paths) > 30
    missing = [path for path in sorted(paths) if not any(any(p.glob(path)) for p in PACKAGES)]
    assert missing == []


def test_pages_that_the_readme_lists_exist() -> None:
    paths = [
        code for row in table_rows(PAGES[0]) for code in _CODE.findall(row) if _PATH.fullmatch(code)
    ]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_page_has_its_place_on_the_site() -> None:
    text = (ROOT / "docs" / "site" / "_toc.yml").read_text()
    placed = set(re.findall(r"(?:file|root): (\S+)", text))
    pages = {str(page.relative_to(ROOT).with_suffix("")) for page in PAGES}
    assert pages - placed == {page for page in pages if page.startswith("docs/adr/0")}
    assert placed <= pages


def options_by_command() -> dict[str, set[str]]:
    """What each command takes, a group what its commands do; by docs/cli.md, which is generated."""
    text = CLI.read_text()
    of_every = set(_FLAG.findall(text.partition("## Options of every client command")[2]))
    options: dict[str, set[str]] = {}
    for section in text.split("\n### ")[1:]:
        name = section.partition("\n")[0]
        for group in (name, name.rpartition(" ")[0]):
            options.setdefault(group, set()).update(of_every, _FLAG.findall(section))
    return options


# Of the others one is made from the commands, and one shows a file that begins with "raftkv".
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in {"cli.md", "file-formats.md"}],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_command_that_a_page_shows_exists_and_takes_its_options(page: Path) -> None:
    options = options_by_command()
    assert len(options) > 30
    wrong = []
    for shown in _COMMAND.findall(page.read_text().replace("\\\n", " ")):
        words = shown.partition("#")[0].partition(" -- ")[0].split()
        names = [" ".join(words[:length]) for length in (3, 2) if length <= len(words)]
        known = [name for name in names if name in options]
        if len(words) > 1 and not words[1].startswith("-"):
            flags = {flag for word in words for flag in _FLAG.findall(word)}
            wrong += [shown] if not known or not flags <= options[known[0]] else []
    assert wrong == []


@by_page
def test_every_flag_that_a_page_names_exists(page: Path) -> None:
    known = set(_FLAG.findall(CLI.read_text())) | FOREIGN_FLAGS
    named = re.findall(r"`(--[a-z][a-z-]*)", page.read_text())
    assert [flag for flag in named if flag not in known and not flag.endswith("-")] == []


def test_every_route_is_documented() -> None:
    rows = list(table_rows(HTTP_API))
    for route in ROUTES:
        documented = [row for row in rows if f"`{route.path}" in row]
        assert any(route.method in row for row in documented), route


def test_every_metric_is_documented() -> None:
    text = HTTP_API.read_text()
    families = [
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in Metrics().registry.collect()
    ]
    names = [name for name in families if not name.startswith("process_")]
    assert len(names) > 20
    # The name is followed by its labels or by the end of the code, not by more of another name.
    assert [name for name in names if not re.search(rf"`{name}[`{{]", text)] == []


def entries_of_the_test_tables() -> list[tuple[str, str]]:
    """Path (may be a glob) and function pattern ("" for the whole file) of every entry."""
    return [entry for row in table_rows(TESTING) for entry in _TEST_ENTRY.findall(row)]


def test_every_test_named_in_the_documentation_exists() -> None:
    entries = entries_of_the_test_tables()
    assert len(entries) > 50
    for path, pattern in entries:
        files = list(ROOT.glob(path))
        assert files, path
        if pattern:
            functions = {name for file in files for name in functions_of(file)}
            assert any(fnmatchcase(name, pattern) for name in functions), f"{path}::{pattern}"


def test_every_test_named_after_a_rule_is_in_the_documentation() -> None:
    entries = entries_of_the_test_tables()
    unlisted = [
        f"{path}::{name}"
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        for path in [str(file.relative_to(ROOT))]
        for name in sorted(functions_of(file))
        if re.match(r"test_(operator_)?rule_\d", name)
        and not any(fnmatchcase(path, p) and fnmatchcase(name, f) for p, f in entries if f)
    ]
    traces = [path.name for path in (ROOT / "tests/raft/testdata").glob("rule_*.txt")]
    globs = [Path(path).name for path, _ in entries if path.startswith("tests/raft/testdata/")]
    unlisted += [name for name in traces if not any(fnmatchcase(name, glob) for glob in globs)]
    assert unlisted == []
