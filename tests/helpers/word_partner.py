"""The other process of the shared-word tests.

python -m tests.helpers.word_partner PAGE publish COUNT BELL_FD     store 1..COUNT, ringing whoever is parked
python -m tests.helpers.word_partner PAGE patterns                  store patterns until the word STATE is set
python -m tests.helpers.word_partner PAGE records COUNT             write record 1..COUNT, then its number
python -m tests.helpers.word_partner PAGE cross ROUNDS FENCED       the other side of `cross`, side 1
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.doorbell import Doorbell
from shmq.shm.rings import fence, park, ring_parked, unpark

RECORD_WORDS = 64
RECORD = struct.Struct(f"={RECORD_WORDS}q")
PATTERNS = [int.from_bytes(bytes([digit]) * 8) for digit in range(1, 100)]


def publish(page: ControlPage, count: int, bell: Doorbell) -> None:
    bells = [bell] * at.SLOT_COUNT
    for value in range(1, count + 1):
        page.words[at.WRITE_POSITION] = value
        fence()
        ring_parked(page, at.APPEND_RINGS, bells)
        for _ in range(
            value * value % 701
        ):  # sometimes the sleeper gets to sleep, mostly it is just about to
            pass


def store_patterns(page: ControlPage) -> None:
    while page.state is not PageState.RETIRED:
        for pattern in PATTERNS:
            page.words[at.WRITE_POSITION] = pattern


def records(page: ControlPage, count: int) -> None:
    """Write bytes first, their number afterwards, as an appender publishes; x86-64 needs no fence."""
    start = page.directory_start
    for number in range(1, count + 1):
        page.raw[start : start + RECORD.size] = RECORD.pack(*[number] * RECORD_WORDS)
        page.words[at.WRITE_POSITION] = number


def older_records(page: ControlPage, count: int) -> list[tuple[int, int]]:
    """Read the number, then the bytes, until all are published; return (number, older bytes found there)."""
    start, found, number = page.directory_start, [], 0
    while number < count:
        number = page.words[at.WRITE_POSITION]
        oldest = min(RECORD.unpack(page.raw[start : start + RECORD.size]))
        if oldest < number:
            found.append((number, oldest))
    return found


def cross(page: ControlPage, side: int, rounds: int, fenced: bool) -> list[int]:
    """Store the own word, load the other's, in step with another process; what was loaded in each round.

    Both may load the old value only if the stores were overtaken by the loads.
    """
    words, line = page.words, at.LINE_WORDS
    mine, others = at.COUNTERS + side * line, at.COUNTERS + (1 - side) * line
    done, other_done = mine + 2 * line, others + 2 * line
    loaded = []
    for number in range(1, rounds + 1):
        for _ in range(number % 61 if side else number % 59):  # so that every distance in time comes up
            pass
        words[mine] = number
        if fenced:
            fence()
        loaded.append(words[others])
        words[done] = number
        while words[other_done] < number:
            pass
    return loaded


def seen_positions(page: ControlPage, slot: int, bell: Doorbell, last: int) -> Iterator[int]:
    """Follow WRITE_POSITION as a parked process does, up to `last`; AssertionError when a wake-up is lost."""
    seen = 0
    while seen < last:
        bell.clear()
        if page.words[at.WRITE_POSITION] == seen:
            park(page, at.APPEND_RINGS, slot)
            if page.words[at.WRITE_POSITION] == seen:
                rang = bell.wait(10)
                assert rang, f"asleep at {seen}, but {page.words[at.WRITE_POSITION]} is published"
            unpark(page, at.APPEND_RINGS, slot)
        if page.words[at.WRITE_POSITION] != seen:
            seen = page.words[at.WRITE_POSITION]
            yield seen


def main(page_name: str, role: str, *numbers: str) -> None:
    page = ControlPage.attach(page_name)
    if role == "publish":
        publish(page, int(numbers[0]), Doorbell(int(numbers[1])))
    elif role == "records":
        records(page, int(numbers[0]))
    elif role == "cross":
        print(*cross(page, 1, int(numbers[0]), numbers[1] == "True"))
    else:
        store_patterns(page)
    page.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
