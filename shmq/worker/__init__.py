"""L6: the broker worker process."""
