"""The other process of the shared-word tests.

python -m tests.helpers.word_partner PAGE publish COUNT BELL_FD     store 1..COUNT, ringing whoever is parked
python -m tests.helpers.word_partner PAGE patterns                  store patterns until the word STATE is set
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.doorbell import Doorbell
from shmq.shm.rings import fence, park, ring_parked, unpark

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
    else:
        store_patterns(page)
    page.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
