"""L6: the supervisor process."""
