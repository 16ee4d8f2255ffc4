"""How far half and op queue are done with: two words of the page, and their entries in consumerOffset.json.

The words are consumer offset slots of RocketMQ's own group for it (CID_RMQ_SYS_TRANS), so they live as long
as the page, and the claim that puts a half message back at the queue's end moves its cursor: a death leaves
both or none. The file is for a start without the page (power loss, another engine). It only ever says what is
on the disk: a cursor behind a decision that a power cut could take would lose the message.

Coordinator's loop only.
"""

from __future__ import annotations

from shmq.broker.consumer_offsets import ConsumerOffsets
from shmq.model.names import TRANSACTION_GROUP, TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC
from shmq.shm.control_page import ControlPage
from shmq.shm.offset_slots import OffsetSlots
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION


class TransactionCursors:
    """The next half message to look at, and the first op message that still matters."""

    def __init__(self, page: ControlPage, offsets: ConsumerOffsets) -> None:
        """Make sure that both have their words; the file goes on saying what it says."""
        self._page = page
        self._offsets = offsets
        self._noted: tuple[int, tuple[int, int]] | None = None
        self._saved = (
            offsets.hold(TRANSACTION_GROUP, TRANSACTION_HALF_TOPIC),
            offsets.hold(TRANSACTION_GROUP, TRANSACTION_OP_HALF_TOPIC),
        )
        self.half_word = self._word(TRANSACTION_HALF_TOPIC)
        """For the claim that moves it."""
        self._op_word = self._word(TRANSACTION_OP_HALF_TOPIC)

    def _word(self, topic: str) -> int:
        self._offsets.ensure(TRANSACTION_GROUP, topic, 1)
        slot = self._offsets.slots(TRANSACTION_GROUP, topic)[0]
        assert slot is not None
        return OffsetSlots(self._page).word_of(slot)

    @property
    def half(self) -> int:
        """All half messages below are decided, or copied to the queue's end; -1 before the first."""
        return self._page.words[self.half_word]

    @property
    def op(self) -> int:
        """All op messages below speak of half messages below `half`; -1 before the first."""
        return self._page.words[self._op_word]

    def move(self, half: int, op: int) -> None:
        """Store both. No claim of this process is under way, and no other process moves these words."""
        self._page.words[self.half_word] = half
        self._page.words[self._op_word] = op

    def cover(self) -> bool:
        """Let the file say what was noted last time when the disk covers it by now, and note what is now.

        True when the file may say what the page says.
        """
        words = self._page.words
        if self._noted is not None and words[FLUSHED_POSITION] >= self._noted[0]:
            self._saved = self._noted[1]
            self._offsets.hold(TRANSACTION_GROUP, TRANSACTION_HALF_TOPIC, self._saved[0])
            self._offsets.hold(TRANSACTION_GROUP, TRANSACTION_OP_HALF_TOPIC, self._saved[1])
            self._noted = None
        current = (max(0, self.half), max(0, self.op))
        if self._noted is None and current != self._saved:
            self._noted = (words[WRITE_POSITION], current)
        return current == self._saved
