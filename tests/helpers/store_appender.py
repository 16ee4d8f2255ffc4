"""One appender process over an open store, for process tests: it appends until it has sent enough.

    python -m tests.helpers.store_appender ROOT PAGE SEMAPHORE SLOT MESSAGES QUEUES SEED BELL_FD...

Messages go to the queues 0.. of topic T in turns of random size, singles and batches mixed; a body is
"<slot> <queue> <n>", n counting this appender's messages of that queue. SHMQ_FAULTS says where it dies. It
writes "<queue> <first queue offset> <messages>" of each acknowledged request to its standard output.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from shmq.shm.append_lock import AppendLock
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.doorbell import Doorbell
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.message_store import MessageStore
from tests.helpers.store import request, small_settings


def main(arguments: list[str]) -> None:
    root, page_name, semaphore, *numbers = arguments
    slot, messages, queue_count, seed, *bell_fds = map(int, numbers)
    page = ControlPage.attach(page_name)
    bells = [Doorbell(fd) for fd in bell_fds]
    lock = AppendLock(page, slot, semaphore, lambda: False)
    store = MessageStore.open(Path(root), small_settings(), page, slot, lock, bells)
    queues = DirectoryView(page).queues("T")[:queue_count]
    rng, counts, sent = random.Random(seed), [0] * queue_count, 0
    while sent < messages:
        turn: list[AppendRequest] = []
        for _ in range(rng.choice([1, 1, 3, 8])):
            n, size = rng.randrange(queue_count), rng.choice([1, 1, 1, 20])
            bodies = [b"%d %d %d" % (slot, n, counts[n] + i) for i in range(size)]
            counts[n] += size
            sent += size
            turn.append(request(queues[n], bodies, TAGS="A"))
        for made, outcome in zip(turn, append_all(store, turn, bells[slot]), strict=True):
            assert outcome.error is None, outcome.error
            print(made.queue.queue_id, outcome.queue_offset, made.count)
        sys.stdout.flush()


def append_all(store: MessageStore, turn: list[AppendRequest], bell: Doorbell) -> list[AppendOutcome]:
    """Append a turn, waiting for the bell while a segment is missing."""
    outcomes = store.append(turn)
    while None in outcomes:
        bell.wait(5)
        bell.clear()
        missing = [i for i, outcome in enumerate(outcomes) if outcome is None]
        for i, outcome in zip(missing, store.append([turn[i] for i in missing]), strict=True):
            outcomes[i] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


if __name__ == "__main__":
    main(sys.argv[1:])
