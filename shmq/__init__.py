"""shmq: a durable message broker for one Linux host."""

__version__ = "0.1.0"
