"""How far each delay level is delivered: a word of the page per level, and `config/delayOffset.json`.

The words are consumer offset slots of the broker's own group, so they live as long as the page, and a claim
moves one together with the queue it delivers to: a death leaves both or none. The file is for a start without
the page (power loss, another engine). It only ever says what is on the disk: a position whose delivered
copies a power cut could take would lose them.

Coordinator's loop only; `export` waits for the disk.
"""

from __future__ import annotations

from shmq.base.clock import SYSTEM_CLOCK, Clock
from shmq.broker.config_file import ConfigFile
from shmq.broker.consumer_offsets import ConsumerOffsets
from shmq.model.data_version import DataVersion
from shmq.model.names import SCHEDULE_GROUP, SCHEDULE_TOPIC
from shmq.shm.control_page import ControlPage
from shmq.shm.offset_slots import OffsetSlots
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION


class DelayCursors:
    """The next queue offset to deliver, by queue id (level - 1)."""

    def __init__(
        self,
        file: ConfigFile,
        page: ControlPage,
        offsets: ConsumerOffsets,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Nothing is read but the file's version; `open` finds the words."""
        self._file = file
        self._page = page
        self._offsets = offsets
        self._slots = OffsetSlots(page)
        self._clock = clock
        self._version = DataVersion.from_json(file.load().get("dataVersion"))
        self._words: list[int] = []
        self._saved: dict[int, int] = {}
        self._noted: tuple[int, dict[int, int]] | None = None

    def open(self, queues: int) -> None:
        """Make sure that every level has its word; again when the table of levels has grown."""
        if len(self._words) < queues:
            self._offsets.ensure(SCHEDULE_GROUP, SCHEDULE_TOPIC, queues)
            slots = self._offsets.slots(SCHEDULE_GROUP, SCHEDULE_TOPIC)[:queues]
            self._words = [self._slots.word_of(slot) for slot in slots if slot is not None]

    def word(self, queue_id: int) -> int:
        """The page's word of a level, for the claim that moves it."""
        return self._words[queue_id]

    def at(self, queue_id: int) -> int:
        """The next queue offset to deliver; -1 before the first."""
        return self._page.words[self._words[queue_id]]

    def skip_to(self, queue_id: int, queue_offset: int) -> None:
        """Pass over what cannot be delivered. No claim of this process is under way, and no other process
        moves this word."""
        self._page.words[self._words[queue_id]] = queue_offset

    def export(self) -> bool:
        """Write the positions noted last time when the disk covers them, and note those of now.

        True when the file says what the page says.
        """
        words = self._page.words
        if self._noted is not None and words[FLUSHED_POSITION] >= self._noted[0]:
            self._save(self._noted[1])
            self._noted = None
        current = {queue_id + 1: max(0, words[word]) for queue_id, word in enumerate(self._words)}
        if self._noted is None and current != self._saved:
            self._noted = (words[WRITE_POSITION], current)
        return current == self._saved

    def _save(self, offsets: dict[int, int]) -> None:
        if any(offsets.values()):
            self._version = self._version.next(self._clock.now_ms())
            self._file.save({"dataVersion": self._version.to_json(), "offsetTable": offsets})
        self._saved = offsets
