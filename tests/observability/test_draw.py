"""The pictures: what is drawn is what the dashboard's file says (`observability.draw`)."""

import json

import pytest

from observability.dashboards import dashboards
from observability.draw import Series, Span, number_text, page, page_size_px

SPAN = Span(1000.0, 1060.0, 30.0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0 s"),
        (0.00025, "s", "250 µs"),
        (0.0123, "s", "12.3 ms"),
        (2.5, "s", "2.5 s"),
        (600.0, "s", "10 min"),
        (0.934, "percentunit", "93.4%"),
        (3.0, "none", "3"),
        (12_345.0, "short", "12.35 K"),
        (512.0, "bytes", "512 B"),
        (3 << 20, "bytes", "3 MiB"),
        (41.0, "reqps", "41/s"),
    ],
)
def test_values_are_written_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert number_text(value, unit) == text


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_every_panel_is_drawn_with_and_without_data(name: str) -> None:
    dashboard = json.loads(dashboards()[name])
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    series = [
        Series("<n1>", [(1000.0, 0.0), (1030.0, 1.0), (1060.0, 4.0)]),
        Series("n2", [(1000.0, 2.0)]),
    ]
    full = page(dashboard, {panel["id"]: series for panel in panels}, SPAN, "a note")
    empty = page(dashboard, {panel["id"]: [] for panel in panels}, SPAN, "a note")
    for text in (full, empty):
        assert text.count('class="panel"') == len(panels)
        assert "a note" in text
        assert "nan" not in text.lower()
    assert "<n1>" not in full
    assert "No data" not in full
    width, height = page_size_px(dashboard)
    assert width > 1000
    assert height > 500


def test_a_timeline_shows_each_value_in_its_color() -> None:
    dashboard = json.loads(dashboards()["cluster.json"])
    roles = next(panel for panel in dashboard["panels"] if panel["title"] == "Roles")
    dashboard["panels"] = [roles]
    series = [Series("n1", [(1000.0, 0.0), (1015.0, 0.0), (1030.0, 4.0)])]
    text = page(dashboard, {roles["id"]: series}, Span(1000.0, 1060.0, 15.0), "")
    assert text.count("<rect") == 2
    assert text.index('fill="#5794f2"') < text.index('fill="#73bf69"')
    assert "leader" in text


def test_missing_samples_are_a_gap_and_not_a_line() -> None:
    dashboard = json.loads(dashboards()["cluster.json"])
    drawn = [panel for panel in dashboard["panels"] if panel["title"] in ("Roles", "Term")]
    dashboard["panels"] = drawn
    series = [Series("n1", [(1000.0, 4.0), (1005.0, 4.0), (1050.0, 4.0), (1055.0, 4.0)])]
    span = Span(1000.0, 1060.0, 5.0)
    text = page(dashboard, {panel["id"]: series for panel in drawn}, span, "")
    assert text.count("<rect") == 2
    assert text.count('stroke-width="1.3"') == 2
