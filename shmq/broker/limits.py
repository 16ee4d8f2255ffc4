"""Every bound of a worker in one place: counts, bytes and milliseconds. Reaching one is counted and answered.

RocketMQ's capacities (Apache RocketMQ 5.3, BrokerConfig.java) where it has one.
"""

from __future__ import annotations

HOLDS_MAX = 100_000
"""Pulls one worker holds, with the queues of shared waits; RocketMQ's pull queue. Beyond it a pull that finds
nothing is answered at once."""

HOLDS_PER_CONNECTION_MAX = 8_192
"""Pulls held for one connection: one per queue it reads, so this is a client with that many queues."""

FILTERED_HOLD_MS_MAX = 5_000
"""A held pull that skipped messages its filter refused is answered (20) within this: its offset advances."""

DOUBT_HOLD_MS = 50
"""How long a pull is held whose next message is being looked at: then it is read again, and answered."""

APPEND_WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of sends that wait for the next log segment."""

APPEND_WAITING_MS_MAX = 2_000
"""How long a send waits for the next log segment before it is refused with SYSTEM_BUSY."""

LINK_REQUESTS_MAX = 10_000
"""Requests of one worker waiting for the coordinator's answer."""

LINK_BYTES_MAX = 64 * 1024 * 1024
"""Their bytes."""

LINK_ANSWER_MS_MAX = 10_000
"""How long one request waits for the coordinator's answer."""

LINK_DOWN_MS_MAX = 2_000
"""How long a request waits for a coordinator that is not there (it is restarted within a second)."""

RESOLVE_WAITERS_MAX = 10_000
"""Requests waiting for one unknown topic, group or offset slot."""

QUERY_COUNT_MAX = 64
"""Messages one query by key returns at most."""

SCAN_UNITS_MIN = 800
"""ConsumeQueue units one filtered read looks at, at least: RocketMQ's 16,000 bytes of queue."""

HOLD_MS_MAX = 600_000
"""Longest hold of one pull, whatever it asks for."""

HOLD_GRID = 10
"""Holds end on ticks a tenth of their length apart, so that those of many idle consumers end together."""

HOLDS_ENDED_PER_TURN = 64
"""More of them are answered in the next turn of the loop: what arrives meanwhile waits about 2 ms at most."""

RENEWAL_MS = 5_000
"""How long the queues of a shared wait stay watched after its time is over: its client asks again at once."""

PULL_COUNT_MAX = 4_096
"""Messages one pull of shmq's own clients may get."""

PULL_BYTES_MAX = 1024 * 1024
"""Bytes one pull of shmq's own clients may get, a single larger message apart."""

QUERY_BYTES_MAX = 8 * 1024 * 1024
"""Record bytes of one query's answer, the first record apart: an answer must fit a frame."""
