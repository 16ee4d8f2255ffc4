"""L7: shmq-admin."""
