"""The `raftkv` command."""
