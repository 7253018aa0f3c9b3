"""Side by side with etcd on one machine: same disk, same fsync, same consistency (`make bench`).

- `machine`: what it ran on, and how long its disk takes to make a write durable;
- `systems`: three nodes of RaftKV or etcd, behind one interface: the only place that knows APIs;
- `workloads`: what is asked of them, as data;
- `wrk`: the closed-loop load generator, and what one run of it measured;
- `runs`: the rounds, and the invariants that make a number count;
- `report`: the table for the terminal and `docs/benchmarks.md`.

To add a system, give it the methods of `systems.System`; to add a workload, add a row to
`workloads.WORKLOADS`.
"""
