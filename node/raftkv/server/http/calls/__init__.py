"""One coroutine for each row of the route table: its meaning, a call of the node, the answer.

Listed in `raftkv.server.http.handlers`. They know no HTTP library, so another edge can call them
unchanged. A call that is cancelled (the client went away) cancels its call of the node.
"""
