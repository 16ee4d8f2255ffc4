"""L3: tag and SQL-92 expressions."""
