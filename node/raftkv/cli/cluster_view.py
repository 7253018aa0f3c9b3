"""From a node's `/v1/cluster` to what `raftkv top` shows: rows, a summary, events. Pure.

The web console does the same in `server/console/page/model.js`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

Json = Mapping[str, Any]

# Who has been asked for so long without an answer has fallen silent.
SILENT_SECONDS: Final = 2.0
EVENTS_MAX: Final = 200

ROLES: Final = {
    "leader": "leader",
    "follower": "follower",
    "learner": "learner",
    "pre_candidate": "pre-candidate",
    "candidate": "candidate",
    "silent": "not answering",
    "unknown": "asking",
}


class Row(NamedTuple):
    """One member. None: not known."""

    name: str
    role: str  # a key of `ROLES`
    term: int | None
    last: int | None
    durable: int | None
    match: int | None
    commit: int | None
    applied: int | None
    lag: int | None  # entries that the leader has and the member is not known to have
    heard_seconds: float | None
    note: str


class Event(NamedTuple):
    """Something that happened, at this time of the shell's clock."""

    at: float
    text: str
    key: str = ""  # of what nodes tell with every answer; "": it is new


class Summary(NamedTuple):
    """What stands above the table."""

    text: str
    is_well: bool


def rows_of(cluster: Json) -> list[Row]:
    """The members in the order of their names."""
    reports = {member["id"]: member.get("report") for member in cluster["members"]}
    leader = reports.get(cluster["leader"])
    known = [leader] if leader else [report for report in reports.values() if report]
    newest = max((report["last_log_index"] for report in known), default=0)
    rows = [_row(member, cluster, newest) for member in cluster["members"]]
    return sorted(rows, key=lambda row: row.name)


def _row(member: Json, cluster: Json, newest: int) -> Row:
    report = member.get("report")
    matches = [member.get("match_index"), report and report["match_index"]]
    match = next((each for each in matches if each), None)
    # What a member knows to be committed it has, also when a new leader does not know it yet.
    held = max(match or 0, report["commit_index"] if report else 0)
    notes = []
    if not member["voter"] and member["role"] != "learner":
        notes.append("no vote")
    if cluster["joint"]:
        is_new, is_old = (member["id"] in cluster[each] for each in ("voters", "voters_outgoing"))
        notes += ["joining"] if is_new and not is_old else ["leaving"] if is_old > is_new else []
    if member.get("diverged"):
        notes.append("STATE DIFFERS")
    return Row(
        name=member["name"],
        role=_role(member, cluster),
        term=report and report["term"],
        last=report and report["last_log_index"],
        durable=report and report["durable_index"],
        match=match,
        commit=report and report["commit_index"],
        applied=report and report["applied_index"],
        lag=max(0, newest - held) if report or match else None,
        heard_seconds=report and report["age_seconds"],
        note=", ".join(notes),
    )


def _role(member: Json, cluster: Json) -> str:
    report = member.get("report")
    open_seconds = member.get("unanswered_seconds", 0.0)
    if member["healthy"] is False or open_seconds > SILENT_SECONDS:
        return "silent"
    if member["id"] == cluster["leader"]:
        return "leader"
    if not report:
        return "learner" if member["role"] == "learner" else "unknown"
    if report["role"] == "leader" and (cluster["leader"] or report["term"] < cluster["term"]):
        # It led, and does not know yet, or cannot say any more, that another one does.
        return "follower" if open_seconds < SILENT_SECONDS / 2 else "silent"
    role: str = report["role"]
    return role


def summary_of(cluster: Json, rows: Sequence[Row]) -> Summary:
    """One line about the whole."""
    silent = {row.name for row in rows if row.role == "silent"}
    names = {member["id"]: member["name"] for member in cluster["members"]}
    halves = [half for half in (cluster["voters"], cluster["voters_outgoing"]) if half]
    spare = min(
        (sum(names.get(each) not in silent for each in half) - len(half) // 2 - 1)
        for half in halves
    ) if halves else -1  # fmt: skip
    leader = cluster["leader_name"]
    parts = [
        f"leader {leader}" if leader else "NO LEADER",
        f"term {cluster['term']}",
        f"{len(rows) - len(silent)} of {len(rows)} answer",
        "quorum lost" if spare < 0 else f"{spare} more may fail",
        f"configuration {cluster['config_index']}",
    ]
    if cluster["joint"]:
        parts.append("JOINT CHANGE under way")
    return Summary(" · ".join(parts), leader is not None and spare >= 0)


def elections_of(cluster: Json, name: str, now: float) -> list[Event]:
    """What the node ``name`` remembers of elections, the oldest first."""
    return [
        Event(
            now - change["seconds_ago"],
            _sentence(change, name),
            f"{name} {change['number']} {change['term']} {change['role']}",
        )
        for change in cluster.get("role_changes", ())
    ]


def _sentence(change: Json, name: str) -> str:
    term, leader = change["term"], change["leader_name"]
    match change["role"]:
        case "leader":
            return f"{name} leads term {term}"
        case "candidate":
            return f"{name} stands for election in term {term}"
        case "pre_candidate":
            return f"{name} asks whether it could win an election, term {term}"
        case _:
            return f"{leader} leads term {term}" if leader else f"no leader known in term {term}"


def differences(before: Sequence[Row], now: Sequence[Row], at: float) -> list[Event]:
    """What happened to members between two looks."""
    was = {row.name: row.role for row in before}
    events = []
    for row in now:
        old = was.pop(row.name, None)
        if old is None:
            events.append(Event(at, f"{row.name} was added"))
        elif (old == "silent") != (row.role == "silent"):
            text = "does not answer" if row.role == "silent" else "answers again"
            events.append(Event(at, f"{row.name} {text}"))
    return [*events, *(Event(at, f"{name} was removed") for name in was)]


def merged(known: Iterable[Event], more: Iterable[Event]) -> list[Event]:
    """Both, each told once, in order; the oldest may be forgotten."""
    events = list(known)
    keys = {event.key for event in events}
    # The election of one leader is told by each node that is asked.
    leads = {event.text for event in events if " leads term " in event.text}
    events += [
        event
        for event in more
        if not event.key or (event.key not in keys and event.text not in leads)
    ]
    return sorted(events, key=lambda event: event.at)[-EVENTS_MAX:]
