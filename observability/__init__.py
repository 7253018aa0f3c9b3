"""Dashboards and alerts, as Python: `make dashboards` writes the files that people import.

`alerts` holds the rules, `dashboards` the dashboards (with Grafana's typed SDK), `__main__` writes
both into the chart, `draw` draws a dashboard from a Prometheus without Grafana. Nothing of it is
in the image.
"""
