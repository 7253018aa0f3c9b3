"""Draws a dashboard's panels as one HTML page, from what Prometheus answered. Not by Grafana.

For pictures in the documentation, where there is no Grafana. What is drawn are the titles, places,
queries, units, thresholds and value names of the dashboard's own JSON; Grafana draws the same
finer. Pure: who asks Prometheus is tests/observability/screenshots.py.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

_COLORS: Final = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0",
    "#37872d", "#fade2a", "#c0d8ff", "#ffa6b0",
)  # fmt: skip
_NAMED: Final = {
    "green": "#73bf69",
    "red": "#f2495c",
    "orange": "#ff9830",
    "yellow": "#fade2a",
    "blue": "#5794f2",
    "purple": "#b877d9",
}
_CELL_PX: Final = 52  # of 24 columns
_ROW_PX: Final = 27
_LEGENDS_MAX: Final = 8

_STYLE: Final = """
body{margin:0;background:#111217;color:#ccccdc;font:13px Inter,"DejaVu Sans",Helvetica,sans-serif}
h1{font-size:17px;font-weight:500;margin:0;padding:12px 14px 2px}
p{margin:0;padding:0 14px 8px;color:#8e8ea0;font-size:12px}
.page{position:relative}
.panel{position:absolute;background:#181b1f;border:1px solid #2a2d33;border-radius:3px;
  box-sizing:border-box;overflow:hidden}
.panel h2{font-size:12.5px;font-weight:500;margin:0;padding:6px 9px;white-space:nowrap}
.row{position:absolute;font-size:14px;font-weight:500;padding:5px 4px}
.stat{position:absolute;inset:26px 0 0 0;display:flex;align-items:center;justify-content:center;
  font-size:30px;font-weight:500}
.legend{position:absolute;left:9px;right:6px;bottom:4px;font-size:11px;line-height:15px;
  max-height:31px;overflow:hidden}
.legend i{display:inline-block;width:11px;height:3px;margin:0 4px 3px 0;border-radius:1px}
.legend span{margin-right:10px;white-space:nowrap}
text{fill:#8e8ea0;font-size:10.5px}
"""


@dataclass(frozen=True)
class Series:
    """A named line; times in seconds, values never NaN."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Span:
    """The time that is shown, in seconds since 1970."""

    start: float
    end: float
    step: float  # between two samples of a series

    def x(self, time: float, left: float, right: float) -> float:
        """Where ``time`` is between ``left`` and ``right``."""
        return left + (time - self.start) / (self.end - self.start) * (right - left)


def number_text(value: float, unit: str) -> str:
    """A value as a person reads it, in one of the units that the dashboards use."""
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "s":
        return _seconds_text(value)
    suffixes = ["", " KiB", " MiB", " GiB"] if unit == "bytes" else ["", " K", " M", " G"]
    base = 1024.0 if unit == "bytes" else 1000.0
    place = 0
    while abs(value) >= base and place < len(suffixes) - 1:
        value /= base
        place += 1
    text = f"{value:.4g}{suffixes[place]}"
    if unit == "bytes" and place == 0:
        return f"{text} B"
    return f"{text}/s" if unit in ("ops", "reqps") else text


def _seconds_text(value: float) -> str:
    for factor, suffix in ((1e-6, "µs"), (1e-3, "ms")):
        if 0 < abs(value) < factor * 1000:
            return f"{value / factor:.3g} {suffix}"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def page(dashboard: dict[str, Any], drawn: dict[int, list[Series]], span: Span, note: str) -> str:
    """The whole page; ``drawn`` are the series by the id of the panel."""
    parts, height = [], 0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        top, left = place["y"] * _ROW_PX, place["x"] * _CELL_PX + 6
        height = max(height, (place["y"] + place["h"]) * _ROW_PX)
        if panel["type"] == "row":
            parts.append(f'<div class="row" style="top:{top}px;left:8px">{panel["title"]}</div>')
            continue
        width, tall = place["w"] * _CELL_PX - 6, place["h"] * _ROW_PX - 6
        inner = _panel(panel, drawn[panel["id"]], span, width, tall)
        style = f"top:{top}px;left:{left}px;width:{width}px;height:{tall}px"
        parts.append(
            f'<div class="panel" style="{style}"><h2>{escape(panel["title"])}</h2>{inner}</div>'
        )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(dashboard["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(dashboard['title'])}</h1><p>{escape(note)}</p>"
        f'<div class="page" style="height:{height + 6}px">{"".join(parts)}</div>'
    )


def page_size_px(dashboard: dict[str, Any]) -> tuple[int, int]:
    """Width and height of `page`."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    return 24 * _CELL_PX + 10, rows * _ROW_PX + 66


def _panel(panel: dict[str, Any], series: list[Series], span: Span, width: int, tall: int) -> str:
    if panel["type"] == "stat":
        return _stat(panel, series)
    if panel["type"] == "state-timeline":
        return _timeline(panel, series, span, width, tall)
    return _graph(panel, series, span, width, tall)


def _names(panel: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Words and colors of values."""
    mappings = panel["fieldConfig"]["defaults"].get("mappings") or []
    return {key: value for mapping in mappings for key, value in mapping["options"].items()}


def _color(name: str) -> str:
    return _NAMED.get(name, name)


def _stat(panel: dict[str, Any], series: list[Series]) -> str:
    if not series or not series[0].points:
        return '<div class="stat">No data</div>'
    value = series[0].points[-1][1]
    defaults = panel["fieldConfig"]["defaults"]
    color = "#5794f2"
    for step in (defaults.get("thresholds") or {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            color = _color(step["color"])
    named = _names(panel).get(f"{value:g}")
    text = number_text(
        round(value) if defaults.get("decimals") == 0 else value, defaults.get("unit", "none")
    )
    if named is not None:
        text, color = named["text"], _color(named["color"])
    is_filled = panel["options"].get("colorMode") == "background"
    style = f"background:{color};color:#111217" if is_filled else f"color:{color}"
    return f'<div class="stat" style="{style}">{escape(text)}</div>'


def _timeline(
    panel: dict[str, Any], series: list[Series], span: Span, width: int, tall: int
) -> str:
    names = _names(panel)
    widest = max((len(item.name) for item in series), default=4)
    left, right, top = min(230, 14 + widest * 6), width - 10, 30
    bar = min(44.0, (tall - top - 44) / max(1, len(series)))
    shapes = []
    for row, item in enumerate(series):
        y = top + row * bar
        shapes.append(f'<text x="9" y="{y + bar / 2 + 4:.1f}">{escape(item.name)}</text>')
        for time, following, value in _bars(item.points, span):
            x = span.x(time, left, right)
            wide = span.x(following, left, right) - x
            color = _color(names.get(f"{value:g}", {"color": "#444"})["color"])
            shapes.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{bar * 0.8:.1f}"'
                f' fill="{color}"/>'
            )
    y = tall - 24
    shapes += _times(span, left, right, y)
    legend = [(item["text"], _color(item["color"])) for item in names.values()]
    return _svg(shapes, width, tall) + _legend(legend)


def _bars(
    points: Sequence[tuple[float, float]], span: Span
) -> Iterator[tuple[float, float, float]]:
    """Begin, end and value of each stretch in which a series had one value."""
    for part in _unbroken(points, span):
        began_at, held = part[0]
        for time, value in part[1:]:
            if value != held:
                yield began_at, time, held
                began_at, held = time, value
        yield began_at, min(part[-1][0] + span.step, span.end), held


def _unbroken(points: Sequence[tuple[float, float]], span: Span) -> list[list[tuple[float, float]]]:
    """The points, cut where samples are missing."""
    parts: list[list[tuple[float, float]]] = []
    for point in points:
        if not parts or point[0] - parts[-1][-1][0] > 1.5 * span.step:
            parts.append([])
        parts[-1].append(point)
    return parts


def _graph(panel: dict[str, Any], series: list[Series], span: Span, width: int, tall: int) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults.get("unit", "none")
    is_stacked = (defaults["custom"].get("stacking") or {}).get("mode") == "normal"
    lines = _stacked(series) if is_stacked else list(series)
    values = [value for item in lines for _, value in item.points]
    low = min([0.0, *values]) if defaults.get("min") is not None else min(values, default=0.0)
    high = max(values, default=1.0)
    limit = _limit(defaults)
    if limit is not None and limit <= high * 4:
        high = max(high, limit)
    if high <= low:
        low, high = (low, low + 1) if low == 0 else (low - 1, low + 1)
    high += (high - low) * 0.05
    left, right, top, bottom = 58, width - 12, 32, tall - 56

    def y_of(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    shapes = []
    for value in _ticks(low, high, 1024.0 if unit == "bytes" else 10.0):
        y = y_of(value)
        shapes.append(f'<path d="M{left},{y:.1f}H{right}" stroke="#24272d"/>')
        label = escape(number_text(value, unit))
        shapes.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    shapes += _times(span, left, right, bottom + 14)
    if limit is not None and low <= limit <= high:
        shapes.append(
            f'<path d="M{left},{y_of(limit):.1f}H{right}" stroke="#f2495c"'
            ' stroke-dasharray="7 5" opacity="0.8"/>'
        )
    # The largest sum is behind the others.
    for number, item in reversed(list(enumerate(lines))):
        color = _COLORS[number % len(_COLORS)]
        for part in _unbroken(item.points, span):
            places = [(span.x(time, left, right), y_of(value)) for time, value in part]
            floor = y_of(max(low, 0.0))
            shapes += _line(places, floor, color, fill=0.3 if is_stacked else 0.07)
    legend = [(item.name, _COLORS[n % len(_COLORS)]) for n, item in enumerate(series)]
    return _svg(shapes, width, tall) + _legend(legend)


def _line(places: list[tuple[float, float]], floor: float, color: str, fill: float) -> list[str]:
    if len(places) == 1:
        return [f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2" fill="{color}"/>']
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    area = f"M{places[0][0]:.1f},{floor:.1f}L{path}L{places[-1][0]:.1f},{floor:.1f}Z"
    return [
        f'<path d="{area}" fill="{color}" opacity="{fill}"/>',
        f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.3"/>',
    ]


def _limit(defaults: dict[str, Any]) -> float | None:
    style = (defaults["custom"].get("thresholdsStyle") or {}).get("mode", "off")
    steps = (defaults.get("thresholds") or {}).get("steps", [])
    return steps[-1]["value"] if style != "off" and steps else None


def _stacked(series: list[Series]) -> list[Series]:
    sums: dict[float, float] = {}
    made = []
    for item in series:
        for time, value in item.points:
            sums[time] = sums.get(time, 0.0) + value
        made.append(Series(item.name, [(time, sums[time]) for time, _ in item.points]))
    return made


def _ticks(low: float, high: float, base: float) -> list[float]:
    """About five values that are round to this base."""
    step = base ** math.floor(math.log((high - low) / 4, base))
    factors = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
    step *= next(factor for factor in factors if (high - low) / (step * factor) <= 5)
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]


def _times(span: Span, left: int, right: int, y: int) -> list[str]:
    seconds = span.end - span.start
    room = max(1, (right - left) // 62)
    step = next(step for step in (15, 30, 60, 120, 300, 900, 86400) if seconds / step <= room)
    marks = []
    for before in range(0, int(seconds) + 1, step):
        x = span.x(span.end - before, left, right)
        text = "now" if before == 0 else f"-{before // 60}:{before % 60:02d}"
        anchor = "start" if x < left + 30 else "end"
        marks.append(f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{text}</text>')
    return marks


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    shown = [
        f'<span><i style="background:{color}"></i>{escape(name)}</span>'
        for name, color in entries[:_LEGENDS_MAX]
    ]
    return f'<div class="legend">{"".join(shown)}</div>'


def _svg(shapes: Sequence[str], width: int, tall: int) -> str:
    style = "position:absolute;left:0;top:0"
    return f'<svg width="{width}" height="{tall}" style="{style}">{"".join(shapes)}</svg>'
