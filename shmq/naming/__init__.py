"""L4: the NameServer."""
