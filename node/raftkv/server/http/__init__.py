"""The node's HTTP interface: `raftkv.server.http.app.create_server` makes one listener's server.

Requests flow down and answers up through these modules; all but the last two are pure.

- `routes`: the route table as data, and which row a method and a path select.
- `requests`, `conditions`, `targets`, `parameters`, `reading`, `writing`, `guards`, `bodies`: from
  a request's head and body to its meaning.
- `ranges`, `txns`, `leases`, `locks`, `membership`: the same and the answers' bodies, by concern.
- `render`, `problems`: from a node's answer to status, headers and body.
- `operations`, `openapi`: the same table for programs, as `/openapi.json`.
- `handlers`: what is done with every request; `calls`: one coroutine for each row of the table,
  from its meaning over a call of the node to the answer; `endpoint`: what they share.
- `app`, `connection`: the only modules that know aiohttp; deadlines and limits of connections.
"""
