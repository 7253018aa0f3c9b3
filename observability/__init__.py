"""Dashboards and alerts, as Python: `make dashboards` writes the files that people import.

`alerts` holds the rules; `cluster`, `node` and `operator` hold the dashboards, made of the parts in
`panels` (with Grafana's typed SDK), and `dashboards` lists them. `__main__` writes all of it into
the chart, `draw` draws a dashboard from a Prometheus without Grafana. Nothing of it is in the
image.
"""
