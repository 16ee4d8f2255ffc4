"""Power cuts of a real broker, in user space: load, record of what is durable, cuts, recovery, verdict."""
