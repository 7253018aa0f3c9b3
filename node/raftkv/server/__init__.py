"""The process around a node: sockets, timers, disk threads, HTTP, metrics."""
