"""The operator: observe -> plan (pure) -> execute; kopf wiring only at the edge."""

__version__ = "0.1.0"
