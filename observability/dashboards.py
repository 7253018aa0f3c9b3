"""All dashboards, as the files that people import."""

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.cluster import cluster
from observability.node import latency, storage, watches
from observability.operator import operator


def dashboards() -> dict[str, str]:
    """All dashboards as JSON, by the name of their file."""
    pages = {
        "cluster": cluster(),
        "latency": latency(),
        "storage": storage(),
        "watches": watches(),
        "operator": operator(),
    }
    return {
        f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(page.build()) + "\n"
        for name, page in pages.items()
    }
