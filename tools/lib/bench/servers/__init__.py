"""Servers the bench starts and stops: one module per kind, each with a folder of its own for a run."""
