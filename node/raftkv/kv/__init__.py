"""The replicated state machine: commands, store, engines."""
