"""RaftKV on a real Kubernetes. `python -m tests.e2e --list` names the scenarios."""
