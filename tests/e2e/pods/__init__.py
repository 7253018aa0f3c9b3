"""What runs inside the cluster under test: mounted into pods of the RaftKV image."""
