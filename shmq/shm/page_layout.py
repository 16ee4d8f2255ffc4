"""The control page, word by word: one table of fields, their places asserted at import.

Every shared number is one aligned 8-byte word in the machine's own byte order, written by one store. A word
has one writer, named here, or is written only by the holder of the AppendLock. Words that different processes
write often lie on cache lines of their own (8 words). Indices count words, not bytes.

    word  0        identity and capacities     written once, MAGIC last
         10        read mostly                 STATE, VISIBLE_WORD, POLICY_EPOCH, DIRECTORY_LENGTH, slots used
         16        read mostly                 QUIESCE, MIN_OFFSET, SEGMENT_ERROR, RUN_STAMP, SEGMENT_INODE
         24 32     AppendLock's holder         WRITE_POSITION, LAST_STORE_TIME; append journal head
         40 ... 64 one line each               FLUSHED_POSITION, CONFIRM_OFFSET, ZEROED_POSITION,
         INDEXED_POSITION 72        ring blocks                 4 words each: byte i belongs to the process of
         slot i
         88        timers                      the coordinator's words, see `broker/timer_cursors.py`
         96        DOUBT                       a line of its own
        128        worker slots                32 x 8 words
        384        counters                    32 x 128 words
       4480        append journal              128 pairs of 2 words, 1,024 entries of 4 words
       9216        queue table                 8 words a queue slot          | the four tables' sizes
         ..        consumer offset slots       2 words a slot                | are chosen when the page
         ..        directory                   bytes, appended only          | is made
         ..        producer table              1,032 words a producer        |

Any change here needs a new LAYOUT_VERSION_NOW: readers of another version must keep away (they pull by
socket).
"""

from __future__ import annotations

from typing import NamedTuple

from shmq.model.sequence import PRODUCER_WINDOW

WORD_BYTES = 8
LINE_WORDS = 8
LAYOUT_VERSION_NOW = 5
MAGIC_NUMBER = int.from_bytes(b"shmqpage", "little")

# identity and capacities
MAGIC = 0
LAYOUT_VERSION = 1
PAGE_ID = 2
KERNEL_BOOT_ID = 3
STORE_IDENTITY = 4
PAGE_BYTES = 5
QUEUE_SLOT_COUNT = 6
OFFSET_SLOT_COUNT = 7
DIRECTORY_BYTES = 8
CREATED_MS = 9

# read mostly
STATE = 10
VISIBLE_WORD = 11
POLICY_EPOCH = 12
DIRECTORY_LENGTH = 13
QUEUE_SLOTS_USED = 14
OFFSET_SLOTS_USED = 15
QUIESCE = 16
MIN_OFFSET = 17
SEGMENT_ERROR = 18
RUN_STAMP = 19
SEGMENT_INODE = 20
PRODUCER_SLOT_COUNT = 21
DISK_FULL = 22
FILES_UNLINKED = 23

# positions
WRITE_POSITION = 24
LAST_STORE_TIME = 25
JOURNAL_STATE = 32
JOURNAL_CLAIM_START = 33
JOURNAL_CLAIM_END = 34
JOURNAL_STORE_TIME = 35
JOURNAL_ENTRY_COUNT = 36
JOURNAL_PAIR_COUNT = 37
FLUSHED_POSITION = 40
CONFIRM_OFFSET = 48
ZEROED_POSITION = 56
INDEXED_POSITION = 64

# ring blocks
RING_WORDS = 4
FLUSH_RINGS = 72
SEGMENT_RINGS = 76
POLICY_RINGS = 80
APPEND_RINGS = 84

# timers
TIMER_TAKEN = 88
TIMER_KEPT = 89
TIMER_FIRED_MS = 90
TIMER_FIRED_AT = 91
TIMER_BEFORE_MS = 92
TIMER_BEFORE_AT = 93
TIMER_BEFORE_END = 94
TIMER_LOG_END = 95

# doubts
DOUBT = 96

# worker slots
SLOT_COUNT = 32
SLOT_WORDS = 8
WORKER_SLOTS = 128
SLOT_PID = 0
SLOT_START_TIME = 1
SLOT_STATE = 2
SLOT_PHASE = 3
SLOT_CLAIM_SEQ = 4
SLOT_CONNECTIONS = 5
SLOT_BEAT_MS = 7

# counters
COUNTER_WORDS = 128
COUNTERS = 384

# append journal
JOURNAL_PAIRS_MAX = 128
JOURNAL_PAIR_WORDS = 2
JOURNAL_PAIRS = 4480
JOURNAL_ENTRIES_MAX = 1024
JOURNAL_ENTRY_WORDS = 4
JOURNAL_ENTRIES = 4736

# queue table
QUEUE_TABLE = 9216
QUEUE_WORDS = 8
QUEUE_GENERATION = 0
QUEUE_MIN = 1
QUEUE_MAX = 2
QUEUE_ALLOCATED = 3
QUEUE_RINGS = 4

# consumer offset slots
OFFSET_WORDS = 2
OFFSET_COMMITTED = 0
OFFSET_PULLED = 1

# producer table
PRODUCER_HEAD_WORDS = 8
PRODUCER_WORDS = PRODUCER_HEAD_WORDS + PRODUCER_WINDOW


class Field(NamedTuple):
    """One row of the table: the first word, how many words, and who writes it for what."""

    name: str
    word: int
    words: int
    meaning: str


FIELDS = (
    Field("MAGIC", MAGIC, 1, "'shmqpage'; stored last: until then the page is not there"),
    Field("LAYOUT_VERSION", LAYOUT_VERSION, 1, "of this table"),
    Field("PAGE_ID", PAGE_ID, 1, "random per page; whoever holds another must open again"),
    Field("KERNEL_BOOT_ID", KERNEL_BOOT_ID, 1, "63 bits of the host's boot id"),
    Field("STORE_IDENTITY", STORE_IDENTITY, 1, "of the store the page belongs to"),
    Field("PAGE_BYTES", PAGE_BYTES, 1, "whole size"),
    Field("QUEUE_SLOT_COUNT", QUEUE_SLOT_COUNT, 1, "capacity of the queue table"),
    Field("OFFSET_SLOT_COUNT", OFFSET_SLOT_COUNT, 1, "capacity of the consumer offset slots"),
    Field("DIRECTORY_BYTES", DIRECTORY_BYTES, 1, "capacity of the directory"),
    Field("CREATED_MS", CREATED_MS, 1, "wall time of creation"),
    Field("STATE", STATE, 1, "PageState; recovery, supervisor; flusher, workers: FLUSH_FAILED"),
    Field("VISIBLE_WORD", VISIBLE_WORD, 1, "index of the word that bounds every reader; set at start"),
    Field("POLICY_EPOCH", POLICY_EPOCH, 1, "coordinator: +1 on topic, group, offset reset or ACL change"),
    Field("DIRECTORY_LENGTH", DIRECTORY_LENGTH, 1, "coordinator: bytes published"),
    Field("QUEUE_SLOTS_USED", QUEUE_SLOTS_USED, 1, "coordinator: slots ever given out"),
    Field("OFFSET_SLOTS_USED", OFFSET_SLOTS_USED, 1, "coordinator: slots ever given out"),
    Field("QUIESCE", QUIESCE, 1, "repair only: 1 while the world must stand still"),
    Field("MIN_OFFSET", MIN_OFFSET, 1, "retention: first CommitLog byte still there"),
    Field(
        "SEGMENT_ERROR", SEGMENT_ERROR, 1, "segment allocator: errno while the disk refuses segments, else 0"
    ),
    Field("RUN_STAMP", RUN_STAMP, 1, "recovery: of the marks this run wrote; others there: not our files"),
    Field("SEGMENT_INODE", SEGMENT_INODE, 1, "segment allocator: of the newest segment, for the same test"),
    Field("PRODUCER_SLOT_COUNT", PRODUCER_SLOT_COUNT, 1, "capacity of the producer table"),
    Field("DISK_FULL", DISK_FULL, 1, "retention: percent used while that is above the warning level, else 0"),
    Field("FILES_UNLINKED", FILES_UNLINKED, 1, "retention: +1 when files are unlinked: let go of their maps"),
    Field("WRITE_POSITION", WRITE_POSITION, 1, "under AppendLock: first byte not yet published"),
    Field("LAST_STORE_TIME", LAST_STORE_TIME, 1, "under AppendLock: store times never go back"),
    Field("JOURNAL_STATE", JOURNAL_STATE, 1, "under AppendLock: JournalState"),
    Field("JOURNAL_CLAIM_START", JOURNAL_CLAIM_START, 1, "under AppendLock"),
    Field("JOURNAL_CLAIM_END", JOURNAL_CLAIM_END, 1, "under AppendLock"),
    Field("JOURNAL_STORE_TIME", JOURNAL_STORE_TIME, 1, "under AppendLock: the new LAST_STORE_TIME"),
    Field("JOURNAL_ENTRY_COUNT", JOURNAL_ENTRY_COUNT, 1, "under AppendLock"),
    Field("JOURNAL_PAIR_COUNT", JOURNAL_PAIR_COUNT, 1, "under AppendLock"),
    Field("FLUSHED_POSITION", FLUSHED_POSITION, 1, "flusher and workers, under flush.lock"),
    Field("CONFIRM_OFFSET", CONFIRM_OFFSET, 1, "replicator: confirmed by the in-sync replicas"),
    Field("ZEROED_POSITION", ZEROED_POSITION, 1, "segment allocator: claims end at or below it"),
    Field("INDEXED_POSITION", INDEXED_POSITION, 1, "index builder"),
    Field("FLUSH_RINGS", FLUSH_RINGS, RING_WORDS, "who waits for FLUSHED_POSITION"),
    Field("SEGMENT_RINGS", SEGMENT_RINGS, RING_WORDS, "who waits for a segment or ZEROED_POSITION"),
    Field("POLICY_RINGS", POLICY_RINGS, RING_WORDS, "who waits for POLICY_EPOCH"),
    Field("APPEND_RINGS", APPEND_RINGS, RING_WORDS, "who waits for any append: flusher, allocator, index"),
    Field("TIMER_TAKEN", TIMER_TAKEN, 1, "coordinator: timers from this queue offset on are not taken in"),
    Field("TIMER_KEPT", TIMER_KEPT, 1, "coordinator: timers below it are delivered, or there once more"),
    Field("TIMER_FIRED_MS", TIMER_FIRED_MS, 1, "coordinator: the last one delivered, its moment"),
    Field("TIMER_FIRED_AT", TIMER_FIRED_AT, 1, "coordinator: and its physical offset"),
    Field("TIMER_BEFORE_MS", TIMER_BEFORE_MS, 1, "coordinator: the same before the clock was set back"),
    Field("TIMER_BEFORE_AT", TIMER_BEFORE_AT, 1, "coordinator: its physical offset"),
    Field("TIMER_BEFORE_END", TIMER_BEFORE_END, 1, "coordinator: for timers below this physical offset"),
    Field("TIMER_LOG_END", TIMER_LOG_END, 1, "coordinator: where the next unit of the timer log goes"),
    Field("DOUBT", DOUBT, 1, "a reader asks the scrub to look at a message; the scrub takes it back (0)"),
    Field("WORKER_SLOTS", WORKER_SLOTS, SLOT_COUNT * SLOT_WORDS, "a row per process"),
    Field("COUNTERS", COUNTERS, SLOT_COUNT * COUNTER_WORDS, "a block per slot, its owner writes"),
    Field("JOURNAL_PAIRS", JOURNAL_PAIRS, JOURNAL_PAIRS_MAX * JOURNAL_PAIR_WORDS, "word, new value"),
    Field(
        "JOURNAL_ENTRIES",
        JOURNAL_ENTRIES,
        JOURNAL_ENTRIES_MAX * JOURNAL_ENTRY_WORDS,
        "queue slot, generation, old max, new max",
    ),
)
"""Every field of the fixed part in the order of its place; the page dump prints this table."""


def page_bytes(queue_slots: int, offset_slots: int, directory_bytes: int, producer_slots: int = 0) -> int:
    """Return the size of a page with these capacities."""
    first = producers_start(queue_slots, offset_slots, directory_bytes)
    return (first + producer_slots * PRODUCER_WORDS) * WORD_BYTES


def offset_slots_start(queue_slots: int) -> int:
    """Return the first word of the consumer offset slots."""
    return QUEUE_TABLE + queue_slots * QUEUE_WORDS


def directory_start(queue_slots: int, offset_slots: int) -> int:
    """Return the first BYTE of the directory."""
    return (offset_slots_start(queue_slots) + offset_slots * OFFSET_WORDS) * WORD_BYTES


def producers_start(queue_slots: int, offset_slots: int, directory_bytes: int) -> int:
    """Return the first word of the producer table, on a cache line of its own."""
    line = LINE_WORDS * WORD_BYTES
    return -(-(directory_start(queue_slots, offset_slots) + directory_bytes) // line) * LINE_WORDS


def _check_table() -> None:
    """Assert that no fields overlap and that hot words of different writers share no cache line."""
    end = 0
    for field in FIELDS:
        assert field.word >= end, f"{field.name} overlaps the field before it"
        end = field.word + field.words
    assert end <= QUEUE_TABLE
    assert (QUEUE_TABLE * WORD_BYTES) % 4096 == 0
    assert SLOT_BEAT_MS < SLOT_WORDS == LINE_WORDS and WORKER_SLOTS % LINE_WORDS == 0
    assert QUEUE_RINGS + RING_WORDS == QUEUE_WORDS == LINE_WORDS
    assert RING_WORDS * WORD_BYTES == SLOT_COUNT
    assert COUNTERS % LINE_WORDS == 0 and COUNTER_WORDS % LINE_WORDS == 0
    hot = (
        QUIESCE,
        WRITE_POSITION,
        JOURNAL_STATE,
        FLUSHED_POSITION,
        CONFIRM_OFFSET,
        ZEROED_POSITION,
        INDEXED_POSITION,
    )
    assert len({word // LINE_WORDS for word in hot}) == len(hot)


_check_table()
