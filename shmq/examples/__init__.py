"""Runnable examples: python -m shmq.examples.NAME."""
