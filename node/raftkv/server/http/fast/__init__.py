"""The short way of one key's GET, PUT, DELETE and POST: from socket to node without a task.

A connection begins here. As long as its requests are in the *canonical subset* of HTTP/1.1 that
`head` recognises, they are answered here; the first one that is not is handed to aiohttp with
all bytes that follow, and the connection stays there. So no byte is ever judged by two parsers
(reference/faults.md, section 6, row 5).

- `head`: the strict recogniser. Pure.
- `wire`: from an answer to the bytes that aiohttp would have sent for it. Pure but for the date.
- `exchange`: what a request asks of the node, and what its answer becomes. Meaning and refusals
  are those of `raftkv.server.http.requests` and `render`; a request that is refused before it
  reaches the node is left to aiohttp too.
- `connection`: one client's socket: order, flow control, deadlines, handing over.
- `path`: what the connections of a listener share, and the timer that cuts off slow ones.
"""
