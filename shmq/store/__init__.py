"""L3: CommitLog, ConsumeQueue, IndexFile, recovery, flush. Knows no commands."""
