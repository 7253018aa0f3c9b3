"""The web console: one page at `/`, its files under `/console/`, and which pages may read here.

The page is in `page/`: plain HTML, CSS and JavaScript modules without a build step, which ask this
API and nothing else. Their URLs are relative, so that a Service, a port-forward or a proxy that
adds a path can stand in between.

The page is served by a node that may die. It then goes on with the other members, as far as the
browser reaches them: the policy of the page names their addresses (`page_policy`), and a node lets
pages of members read its status (`origin_of_member`). Nothing else is open to other origins, and
writes of foreign pages are refused as ever (`raftkv.server.http.requests.check_head`).
"""

import gzip
import re
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from raftkv.node.status import ClusterStatus

#: Where the page is, beneath `/console/`.
PAGE: Final = "index.html"

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# A policy has a bound, as every header; more members than this are not reached after a failure.
_MEMBERS_MAX: Final = 32
# What may stand in a policy: an origin, of whose host nothing could end the directive.
_ORIGIN: Final = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


class File(NamedTuple):
    """A file of the page."""

    content_type: str
    body: bytes
    packed: bytes  # the same by gzip: a third


@cache
def page_files() -> dict[str, File]:
    """All files of the page by name."""
    found = {}
    for entry in files(__package__).joinpath("page").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            found[entry.name] = File(kind, body, gzip.compress(body, 9, mtime=0))
    return found


def page_policy(cluster: ClusterStatus) -> str:
    """The Content-Security-Policy of the page.

    Own scripts and styles only, nothing inline, no frames; connections to this node and to the
    members. Trusted types: no text can become markup, whatever a key or value holds.
    """
    others = "".join(f" {origin}" for origin in _origins(cluster))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self'{others}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def origin_of_member(origin: str | None, cluster: ClusterStatus) -> str | None:
    """``origin`` if it is that of a page which a member of the cluster serves, else None.

    On loopback a member has several names, and a person may have used another than it was told.
    """
    if origin is None:
        return None
    for known in _origins(cluster):
        scheme, _, authority = known.partition("://")
        host = authority[: authority.index("]") + 1] if "]" in authority else ""
        host = host or authority.partition(":")[0]
        names = [known]
        if host in _LOOPBACK:
            names += [f"{scheme}://{name}{authority[len(host) :]}" for name in _LOOPBACK]
        # What is answered is our own text, not the client's.
        for name in names:
            if name == origin:
                return name
    return None


def _origins(cluster: ClusterStatus) -> list[str]:
    """Where members serve clients, as origins."""
    urls = (member.client_url.rstrip("/") for member in cluster.members[:_MEMBERS_MAX])
    return [url for url in dict.fromkeys(urls) if _ORIGIN.fullmatch(url)]
