"""L2: the control page and everything processes share through it. Knows no messages."""
