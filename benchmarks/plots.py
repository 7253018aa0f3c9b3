"""Plots as SVG: bars with ranges, readable on light and on dark pages."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.samples import ETCD, GRPC, JSON, OURS, Row

_WIDTH: Final = 760
_LABELS: Final = 310
_VALUES: Final = 90
_BAR: Final = 14
_GAP: Final = 14
_TOP: Final = 56
_CLASSES: Final = {OURS: "a", GRPC: "b", JSON: "c", ETCD: "b"}
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600;font-size:14px}"
    ".a{fill:#1f6feb}.b{fill:#d4733a}.c{fill:#8d7ab8}.r{stroke:#1f2328;stroke-width:1.5}"
    ".g{stroke:#d0d7de}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{fill:#58a6ff}.b{fill:#f0883e}"
    ".c{fill:#b9a7e0}.r{stroke:#e6edf3}.g{stroke:#3d444d}}"
)


def bars(title: str, shown: Sequence[Row]) -> str:
    """A group of horizontal bars for each row: medians, with a line from lowest to highest.

    All rows are of one unit. Empty, if nothing was measured.
    """
    shown = [row for row in shown if row.systems]
    if not shown:
        return ""
    most = max(each.high for row in shown for each in row.systems.values()) or 1.0
    scale = (_WIDTH - _LABELS - _VALUES) / most
    names = [name for name in _CLASSES if any(name in row.systems for row in shown)]
    parts = [f'<text class="t" x="8" y="20">{escape(title)}</text>', *_legend(names)]
    y = _TOP
    for row in shown:
        metric = row.metric
        height = len(row.systems) * _BAR
        parts.append(
            f'<text x="{_LABELS - 10}" y="{y + height / 2 + 4:.0f}" text-anchor="end">'
            f"{escape(metric.what)}</text>"
        )
        for name in (each for each in _CLASSES if each in row.systems):
            found = row.systems[name]
            middle, end = y + _BAR / 2, _LABELS + found.median * scale
            low, high = _LABELS + found.low * scale, _LABELS + found.high * scale
            parts += [
                f'<rect class="{_CLASSES[name]}" x="{_LABELS}" y="{y + 1}" height="{_BAR - 2}" '
                f'width="{max(1.0, end - _LABELS):.1f}"><title>{escape(name)}</title></rect>',
                f'<line class="r" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
                f'<text x="{max(end, high) + 6:.1f}" y="{middle + 4}">'
                f"{found.median:,.{metric.digits}f}</text>",
            ]
            y += _BAR
        y += _GAP
    parts.append(f'<line class="g" x1="{_LABELS}" x2="{_LABELS}" y1="{_TOP - 4}" y2="{y - 8}"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" '
        f'height="{y}" role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        + "".join(parts)
        + "</svg>\n"
    )


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], 8
    for name in names:
        parts += [
            f'<rect class="{_CLASSES[name]}" x="{x}" y="32" width="12" height="12"/>',
            f'<text x="{x + 18}" y="42">{escape(name)}</text>',
        ]
        x += 100
    return parts
