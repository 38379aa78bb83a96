"""Write the Grafana dashboard of runs, with Grafana's Foundation SDK.

pip install "videorl[monitoring]"
python -m jobs.workshop.dashboard --out cluster/monitoring/grafana/runs.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import command
from jobs.workshop.panels import ROWS, Panel
from videorl.errors import ConfigError
from videorl.files import write_text

_COLUMNS = 24
"""Width of Grafana's grid."""
_HEIGHT, _LOW = 8, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file."""
    parser = command.new_parser("python -m jobs.workshop.dashboard", __doc__)
    default = Path("cluster/monitoring/grafana/runs.json")
    command.add_option(parser, "--out", default, "the file", type=Path)
    options = parser.parse_args(argv)
    write_text(command.output_file(options.out), dashboard_json())
    print(options.out)
    return 0


def dashboard_json() -> str:
    """Return the dashboard as Grafana provisions it.

    Raises:
        ConfigError: The SDK is not installed.
    """
    try:
        from grafana_foundation_sdk.builders import dashboard
        from grafana_foundation_sdk.cog.encoder import JSONEncoder
        from grafana_foundation_sdk.models.dashboard import VariableRefresh, VariableSort
    except ImportError as error:
        raise ConfigError('the dashboard needs: pip install "videorl[monitoring]"') from error
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    runs = (
        dashboard.QueryVariable("run")
        .label("Run")
        .datasource(_datasource())
        .query("label_values(ray_videorl_training, run)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )
    board = (
        dashboard.Dashboard("videorl: runs")
        .uid("videorl-runs")
        .description("What every name means: docs/metrics.md of videorl")
        .tags(["videorl", "ray"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(source)
        .with_variable(runs)
    )
    for title, panels in ROWS:
        board.with_row(dashboard.Row(title))
        width = _width(panels)
        for panel in panels:
            board.with_panel(_panel(panel).span(width))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _width(panels: Sequence[Panel]) -> int:
    """Return the columns of each panel of a row: at most four panels side by side."""
    return _COLUMNS // (3 if len(panels) == 3 else 4)


def _datasource() -> Any:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef("prometheus", "${datasource}")


def _panel(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
    from grafana_foundation_sdk.models.common import (
        BigValueGraphMode,
        LegendPlacement,
        StackingMode,
    )

    if panel.is_number:
        made: Any = stat.Panel().height(_LOW).graph_mode(BigValueGraphMode.AREA)
    else:
        legend = common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
        made = timeseries.Panel().height(_HEIGHT).legend(legend.calcs(["lastNotNull"]))
        made.fill_opacity(40 if panel.is_stacked else 0)
    if panel.is_stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    made.title(panel.title).description(panel.about).unit(panel.unit).datasource(_datasource())
    for index, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend)
        made.with_target(target.ref_id(chr(ord("A") + index)))
    return made


if __name__ == "__main__":
    raise SystemExit(command.run(main))
