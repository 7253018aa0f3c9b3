"""The node's HTTP interface: `raftkv.server.http.app.create_server` makes one listener's server.

Requests flow down and answers up through these modules; all but the last two are pure.

- `routes`: the route table as data, and which row a method and a path select.
- `requests`, `conditions`, `targets`: from a request's head and body to its meaning.
- `render`, `problems`: from a node's answer to status, headers and body.
- `handlers`: one coroutine for each row of the table: meaning, call of the node, answer.
- `app`, `connection`: the only modules that know aiohttp; deadlines and limits of connections.
"""
