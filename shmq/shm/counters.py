"""Counters in the page: a block per slot, written only by its owner, summed by whoever reads.

Adding is one load and one store, no lock; totals may be a few counts behind. (The supervisor's threads share
block 0, each with counters of its own.) Counts of a dead process stay in its block and its successor goes on
from them, so totals never fall within a page's life. To add a counter, append a row: the place of the others
must not move within a layout version.
"""

from __future__ import annotations

from collections.abc import Mapping

from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage

COUNTER_NAMES: Mapping[str, str] = {
    # sends and appends
    "sends": "messages appended",
    "send_bytes": "record bytes appended",
    "sends_refused": "sends answered with an error",
    "log_batches": "log-ready batches accepted",
    "log_batches_slow": "log-ready batches sent down the per-message path",
    "append_claims": "claims published",
    "append_turn_splits": "turns that needed more than one claim",
    "append_waits_segment": "claims that had to wait for a segment or its zeroing",
    "lock_busy": "tries of the AppendLock that found it taken",
    "lock_quiesced": "times an appender waited for a repair",
    "queues_gone": "sends refused because their queue was deleted meanwhile",
    # reads
    "pulls": "pull requests",
    "pulls_found": "pull requests answered with messages",
    "pulls_held": "pull requests parked",
    "pulls_held_refused": "pull requests not parked because too many were",
    "pulls_timed_out": "parked pulls answered without messages",
    "messages_pulled": "messages handed out",
    "pull_bytes": "record bytes handed out",
    "direct_messages": "messages that direct readers reported",
    "grants": "reader grants given",
    "grants_refused": "reader grants refused",
    "offset_commits": "consumer offsets committed",
    # connections and frames
    "connections_opened": "connections accepted",
    "connections_closed": "connections closed",
    "connections_refused": "connections refused because too many were open",
    "connections_passed_on": "connections handed to another worker",
    "frames_in": "frames received",
    "frames_out": "frames sent",
    "bytes_in": "bytes received",
    "bytes_out": "bytes sent",
    "frames_bad": "frames that could not be decoded",
    "reads_paused": "times reading stopped because a peer did not read its answers",
    "peers_dropped": "connections closed because a peer never read its answers",
    "requests_unknown": "requests with a code that is not served",
    "requests_failed": "requests that ended in an unexpected error",
    "busy_refused": "requests refused because a queue inside was full",
    "forwards": "requests passed on to the coordinator",
    "forwards_failed": "requests the coordinator did not answer",
    # acknowledgements
    "acks_timed_out": "sends answered with a flush time-out",
    # services
    "flushes": "fdatasync calls of the CommitLog",
    "flush_bytes": "bytes made durable",
    "flush_micros": "microseconds spent in them",
    "flush_failures": "failed ones",
    "segments_made": "CommitLog segments preallocated",
    "segment_failures": "segments that could not be preallocated",
    "index_keys": "keys put into the index",
    "children_died": "child processes that died",
    "repairs": "stop-the-world repairs",
    "repair_micros": "microseconds the world stood still",
    "holders_stuck": "stuck holders of the AppendLock or of flush.lock found",
    "registrations": "registrations sent to name servers",
    "registrations_failed": "registrations that failed",
    # rows appended later
    "connections_taken_over": "connections received from another worker",
    "connections_idle": "connections closed because nothing moved on them for too long",
    "accepts_failed": "accepts refused by the kernel for want of descriptors or memory",
    "delayed_delivered": "delayed messages delivered",
    "delayed_dropped": "delayed messages that could not be delivered (any more)",
    "timers_delivered": "messages for a moment delivered to their topics",
    "timers_dropped": "messages for a moment that could not be delivered (any more)",
    "timers_cancelled": "messages for a moment that were taken back",
    "messages_sent_back": "messages that consumers gave back, to be delivered again later",
    "messages_dead": "messages that went to a dead letter topic",
    "messages_dropped": "failed messages of groups that keep none (retryQueueNums 0)",
    "sends_known": "sends of idempotent producers that were stored before",
    "transactions_committed": "half messages committed",
    "transactions_rolled_back": "half messages rolled back",
    "transactions_checked": "check-backs sent to producers",
    "transactions_discarded": "half messages given up: checked too often, or too old",
    "segments_deleted": "CommitLog segments deleted by retention",
    "sends_disk_full": "appends refused because the disk was above its warning level",
    "scrub_bytes": "bytes of log that the scrub has looked at",
    "scrub_damage": "damaged stretches of log that the scrub has found",
    "shared_waits": "waits of shmq's clients for all their idle queues together",
    "filter_starts": "processes of filter functions that were started",
    "filter_judged": "messages that filter functions judged",
    "filter_failures": "messages let through because a filter function raised or its process died",
    "filter_deaths": "processes of filter functions that died or were killed",
    "deaths_by_sigbus": "child processes that died of SIGBUS: a bad sector, or a file that was cut",
    "units_mended": "damaged ConsumeQueue units that the scrub has written anew",
    "starts_delayed": "children that died so often that their next start had to wait",
    "transactions_refused": "half messages refused: too many are open (transactionPendingMax)",
    "cores_shared": "times a worker moved to the core of its only busy client",
}
"""Every counter and what it counts, in the order of its place in a slot's block."""

assert len(COUNTER_NAMES) <= at.COUNTER_WORDS

_PLACES = {name: place for place, name in enumerate(COUNTER_NAMES)}


class SlotCounters:
    """The counters of one slot. Only the slot's own thread adds."""

    __slots__ = ("_first", "_words")

    def __init__(self, page: ControlPage, slot: int) -> None:
        """Count for `slot`."""
        self._words = page.words
        self._first = at.COUNTERS + slot * at.COUNTER_WORDS

    def add(self, name: str, count: int = 1) -> None:
        """Add to the counter `name`; KeyError for a name that is not in the table."""
        self._words[self._first + _PLACES[name]] += count

    def word(self, name: str) -> int:
        """Return the page word of a counter, for whoever adds to it so often that `add` costs too much."""
        return self._first + _PLACES[name]

    def value(self, name: str) -> int:
        """Return one count of this slot. Any process."""
        return self._words[self._first + _PLACES[name]]

    def values(self) -> dict[str, int]:
        """Return this slot's own counts."""
        return {name: self._words[self._first + place] for name, place in _PLACES.items()}


def has_died_of_sigbus(page: ControlPage) -> bool:
    """Tell whether a process of this page died of SIGBUS: then maps are not read without care any more.

    Any process, once at its start.
    """
    return totals(page)["deaths_by_sigbus"] > 0


def totals(page: ControlPage) -> dict[str, int]:
    """Return each counter summed over all slots. Any process."""
    words = page.words
    end = at.COUNTERS + at.SLOT_COUNT * at.COUNTER_WORDS
    return {name: sum(words[at.COUNTERS + place : end : at.COUNTER_WORDS]) for name, place in _PLACES.items()}
