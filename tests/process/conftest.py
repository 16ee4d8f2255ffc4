"""Fixtures of the process tests: private brokers (`broker`, `make_broker`, `shared_broker`)."""

from __future__ import annotations

from shmq.testing import broker, make_broker, shared_broker

__all__ = ["broker", "make_broker", "shared_broker"]
