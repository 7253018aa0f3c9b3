"""The panels that the dashboards are made of. Thin over Grafana's SDK: one look for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)

DATASOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: What Grafana puts in the place of the range of a rate: at least four scrapes.
RATE: Final = "$__rate_interval"
#: The cluster that is shown: clusters are told apart by the label `job` (docs/monitoring.md).
JOB: Final = '{job="$job"}'
HEIGHT: Final = 8
_COLUMNS: Final = 24

Panel = Builder[model.Panel]


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and how its series are named."""

    expr: str
    legend: str = ""


def _targets(queries: Sequence[Query], *, is_instant: bool) -> list[prometheus.Dataquery]:
    made = []
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = (
            prometheus.Dataquery()
            .ref_id(letter)
            .datasource(DATASOURCE)
            .expr(query.expr)
            .legend_format(query.legend or "__auto")
        )
        made.append(target.instant() if is_instant else target.range())
    return made


def _steps(thresholds: Mapping[float | None, str]) -> ThresholdsConfig:
    steps = [model.Threshold(value=value, color=color) for value, color in thresholds.items()]
    return ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    is_stacked: bool = False,
    limit: float | None = None,
    minimum: float | None = 0.0,
) -> timeseries.Panel:
    """Lines over time. ``limit`` is the threshold of the alert that watches the same."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .line_width(1)
        .fill_opacity(30 if is_stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if minimum is not None:
        panel = panel.min(minimum)
    if is_stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limit is not None:
        panel = panel.thresholds(_steps({None: "green", limit: "red"})).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
        )
    for target in _targets(queries, is_instant=False):
        panel = panel.with_target(target)
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    thresholds: Mapping[float | None, str] | None = None,
    names: Mapping[str, tuple[str, str]] | None = None,
) -> stat.Panel:
    """One value of now. ``names`` gives values a word and a color."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(_steps(thresholds or {None: "blue"}))
        .color_mode(BigValueColorMode.BACKGROUND if thresholds else BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if unit == "none":
        panel = panel.decimals(0)
    if names:
        panel = panel.mappings([_mapping(names)])
    for target in _targets([query], is_instant=True):
        panel = panel.with_target(target)
    return panel


def timeline(
    title: str, description: str, query: Query, names: Mapping[str, tuple[str, str]]
) -> statetimeline.Panel:
    """A colored bar for each series; ``names`` gives each value a word and a color."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .mappings([_mapping(names)])
        .show_value(VisibilityMode.NEVER)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    for target in _targets([query], is_instant=False):
        panel = panel.with_target(target)
    return panel


def _mapping(names: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    options = {
        value: model.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(names.items())
    }
    return model.ValueMap(options=options)


def quantile(q: float, metric: str, by: str, where: str) -> str:
    """A quantile of a histogram for each value of the labels ``by``."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{where}[{RATE}])))"


class Layout:
    """Puts panels on a dashboard, row by row, in the order in which they come."""

    def __init__(self, uid: str, title: str, description: str, variables: Sequence[str]) -> None:
        """``variables`` are metrics; the first names clusters by its label `job`."""
        self._dashboard = (
            Dashboard(title)
            .uid(uid)
            .description(description)
            .tags(["raftkv"])
            .refresh("10s")
            .time("now-1h", "now")
            .timezone("browser")
            .editable()
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        )
        for metric in variables:
            self._dashboard = self._dashboard.with_variable(
                QueryVariable("job")
                .label("Cluster" if metric == "raftkv_term" else "Operator")
                .datasource(DATASOURCE)
                .query(f"label_values({metric}, job)")
                .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
                .sort(model.VariableSort.ALPHABETICAL_ASC)
            )
        self._y = 0
        self._id = 0

    def heading(self, title: str) -> None:
        """A row's title; what follows is below it."""
        self._dashboard = self._dashboard.with_row(
            Row(title).grid_pos(model.GridPos(x=0, y=self._y, w=_COLUMNS, h=1))
        )
        self._y += 1

    def row(
        self, *panels: "timeseries.Panel | stat.Panel | statetimeline.Panel", height: int = HEIGHT
    ) -> None:
        """Panels of about equal width, side by side."""
        for number_in_row, panel in enumerate(panels):
            self._id += 1
            # Whole columns, which together fill the row.
            left = number_in_row * _COLUMNS // len(panels)
            right = (number_in_row + 1) * _COLUMNS // len(panels)
            placed = panel.id(self._id).grid_pos(
                model.GridPos(x=left, y=self._y, w=right - left, h=height)
            )
            self._dashboard = self._dashboard.with_panel(placed)
        self._y += height

    def build(self) -> model.Dashboard:
        """The dashboard, ready for the SDK's encoder."""
        return self._dashboard.build()
