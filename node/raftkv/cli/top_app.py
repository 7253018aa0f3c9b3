"""The terminal application of `raftkv top`, by textual."""

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, RichLog, Static

from raftkv.cli.cluster_view import Event, Row, summary_of
from raftkv.cli.top import HEADER, Look, Looker, Story, cells
from raftkv.client import ClientError

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

_STYLES: Final = {
    "leader": "bold cyan",
    "follower": "green",
    "learner": "magenta",
    "pre_candidate": "yellow",
    "candidate": "yellow",
    "silent": "bold red",
}
_NUMBERS: Final = range(2, 9)  # columns whose cells are aligned to the right


class Top(App[None]):
    """See `raftkv.cli.top`. ``looker`` is asked every ``interval_seconds``."""

    TITLE: str | None = "raftkv top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #summary { height: auto; padding: 0 1; text-style: bold; }
    #summary.bad { background: $error; color: $text; }
    #node { height: auto; padding: 0 1; color: $text-muted; }
    #members { height: auto; max-height: 60%; margin: 1 0; }
    #events { height: 1fr; border-top: solid $primary; padding: 0 1; border-title-color: $text; }
    #events:focus { border-top: solid $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("s", "sort", "Sort"),
        ("r", "turn", "Reverse"),
        ("p", "pause", "Pause"),
        ("d", "colours", "Dark/light"),
        ("tab", "app.focus_next", "Members/events"),
    ]

    def __init__(self, looker: Looker, *, interval_seconds: float = 1.0) -> None:
        super().__init__()
        self._looker = looker
        self._interval_seconds = interval_seconds
        self._story = Story()
        self._sorted_by = 0
        self._is_turned = False
        self._is_paused = False
        self._failing_since: float | None = None
        self._told: list[Event] = []

    @override
    def compose(self) -> ComposeResult:
        """Called by textual."""
        yield Static("asking", id="summary", markup=False)
        yield Static("", id="node", markup=False)
        yield DataTable[Text](id="members", cursor_type="row", zebra_stripes=True)
        yield RichLog(id="events", wrap=True, markup=False, max_lines=500)
        yield Footer()

    def on_mount(self) -> None:
        """Called by textual."""
        table = self._table
        for number, title in enumerate(HEADER):
            table.add_column(self._title(number, title), key=str(number))
        table.focus()
        self.query_one("#events", RichLog).border_title = "events"
        self.run_worker(self._look_again_and_again(), exclusive=True)

    @property
    def _table(self) -> "DataTable[Text]":
        return self.query_one("#members", DataTable)

    async def _look_again_and_again(self) -> None:
        while True:
            began = time.monotonic()
            if not self._is_paused:
                try:
                    self.show(await self._looker())
                except ClientError as error:
                    self._failed(error)
            await asyncio.sleep(max(0.05, self._interval_seconds - (time.monotonic() - began)))

    def show(self, look: Look) -> None:
        """Show what a node said."""
        self._failing_since = None
        self._story.tell(look)
        summary = summary_of(look.cluster, self._story.rows)
        self._say(summary.text, is_well=summary.is_well)
        status = look.status
        self.query_one("#node", Static).update(
            f"from {status['name']} at {look.endpoint.origin()} · revision {status['revision']:,}"
            f" · {status['keys']:,} keys · {status['db_bytes'] / 2**20:,.1f} MiB on disk"
            f" · {status['pending_requests']:,} requests wait"
        )
        self._show_rows()
        self._show_events()

    def _failed(self, error: ClientError) -> None:
        self._failing_since = self._failing_since or time.time()
        self._say(f"NOBODY ANSWERS since {_clock(self._failing_since)}: {error}", is_well=False)

    def _say(self, text: str, *, is_well: bool) -> None:
        line = self.query_one("#summary", Static)
        line.update(f"{text}{'  [paused]' if self._is_paused else ''}")
        line.set_class(not is_well, "bad")

    def _show_rows(self) -> None:
        table = self._table
        rows = sorted(self._story.rows, key=self._key, reverse=self._is_turned)
        at = table.cursor_row
        names = [row.name for row in rows]
        if names == [str(key.value) for key in table.rows]:
            for number, row in enumerate(rows):
                for column, cell in enumerate(_texts(row)):
                    place = Coordinate(number, column)
                    if table.get_cell_at(place) != cell:
                        table.update_cell_at(place, cell, update_width=True)
            return
        table.clear()
        for row in rows:
            table.add_row(*_texts(row), key=row.name)
        table.move_cursor(row=min(at, len(rows) - 1))

    def _key(self, row: Row) -> tuple[bool, object, str]:
        value = row[self._sorted_by]
        return (value is None, 0 if value is None else value, row.name)

    def _show_events(self) -> None:
        log = self.query_one("#events", RichLog)
        events = self._story.events
        new = [event for event in events if event not in self._told]
        if new and self._told and new[0].at < self._told[-1].at:
            log.clear()  # one was told late: write all anew, in order
            new = events
        for event in new:
            log.write(Text.assemble((_clock(event.at), "dim"), "  ", event.text))
        self._told = list(events)

    def _title(self, number: int, title: str) -> Text:
        mark = (" ▼" if self._is_turned else " ▲") if number == self._sorted_by else ""
        return Text(title + mark, justify="right" if number in _NUMBERS else "left")

    def _sort(self) -> None:
        for number, column in enumerate(self._table.columns.values()):
            column.label = self._title(number, HEADER[number])
        self._table.clear()
        self._show_rows()

    def action_sort(self) -> None:
        """By the next column."""
        self._sorted_by = (self._sorted_by + 1) % (len(HEADER) - 1)
        self._sort()

    def action_turn(self) -> None:
        """The other way round."""
        self._is_turned = not self._is_turned
        self._sort()

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._is_paused = not self._is_paused
        line = self.query_one("#summary", Static)
        line.set_class(False, "bad")
        if self._is_paused:
            line.update("PAUSED: p goes on")

    def action_colours(self) -> None:
        """Dark or light."""
        self.theme = "textual-light" if self.theme != "textual-light" else "textual-dark"


def _texts(row: Row) -> list[Text]:
    found = []
    for number, cell in enumerate(cells(row)):
        if cell is None:
            text = "-"
        elif isinstance(cell, int) and number != 2:
            text = f"{cell:,}"
        else:
            text = str(cell)
        style = _STYLES.get(row.role, "") if number == 1 else "bold" if number == 0 else ""
        found.append(Text(text, style, justify="right" if number in _NUMBERS else "left"))
    return found


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%H:%M:%S.%f}"[:-5]
