"""What must survive: write-ahead log, identity, recovery, over a disk spoken to in values."""
