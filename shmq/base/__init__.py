"""L0: errors, clock, durable files, checksum, log, fault points. Standard library only."""
