"""RaftKV: a replicated key-value store spoken to over plain HTTP. ARCHITECTURE.md is the map."""

__version__ = "0.1.0"
