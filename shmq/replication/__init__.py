"""L4: replication to a peer host."""
