"""What must survive: write-ahead log, snapshots, identity; over a disk spoken to in values."""
