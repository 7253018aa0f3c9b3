"""The process around a node: sockets, timers, disk lanes, HTTP, metrics."""
