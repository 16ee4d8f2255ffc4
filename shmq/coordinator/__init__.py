"""L6: the coordinator process."""
