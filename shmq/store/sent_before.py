"""What an idempotent producer has sent before: found under the AppendLock, answered from the log after it.

A producer that heard no answer sends again, perhaps through another worker. The claim looks up each sequence
in the producer table (`shm/producer_table.py`): what is stored already is not appended, and its first record
says where it lies. A row can be right and the message still another one, when a program passes on all
properties of a message it consumed: the unique key tells, and such a message is appended like any other.

Used by `append_claim.py`, in processes with an appender slot.
"""

from __future__ import annotations

from collections.abc import Sequence

from shmq.base.errors import IllegalOperation, MessageIllegal, SequenceRefused, ShmqError
from shmq.model.properties import UNIQ_KEY, decode_properties
from shmq.model.record import parse_record
from shmq.model.sequence import PRODUCER_WINDOW
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.producer_table import AHEAD, FORGOTTEN, FRESH, GONE, ProducerTable, lap_word
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.claim_plan import Placed
from shmq.store.commit_log import CommitLog

LATER = -5
"""The same sequence comes twice in this claim: the second one is judged when the first is stored."""


class SentBefore:
    """The producer table and the log, as one process's appender sees them."""

    def __init__(self, page: ControlPage, log: CommitLog) -> None:
        """Nothing is remembered here: the page is the truth."""
        self._words = page.words
        self._table = ProducerTable(page)
        self._log = log

    def judge(self, requests: Sequence[AppendRequest]) -> dict[int, int]:
        """Return what is not to be appended in this claim: its place in `requests` and the verdict.

        Under the AppendLock; the usual answer is an empty one.
        """
        verdicts: dict[int, int] = {}
        words: set[int] = set()
        for place, request in enumerate(requests):
            sequence = request.sequence
            if sequence is None:
                continue
            word = self._table.word(sequence)
            verdict = LATER if word in words else self._table.judge(sequence)
            if verdict == FRESH:
                words.add(word)
            else:
                verdicts[place] = verdict
        return verdicts

    def pair(self, placed: Placed) -> tuple[int, int] | None:
        """Return the page word and value that say where a request is stored. For the claim's journal."""
        sequence = placed.request.sequence
        if sequence is None:
            return None
        return self._table.word(sequence), lap_word(sequence.number, placed.physical_offset)

    def note(self, placed: Sequence[Placed], store_time: int) -> None:
        """Store the hints of what was published. Under the AppendLock."""
        for one in placed:
            if one.request.sequence is not None:
                self._table.note(one.request.sequence, store_time)

    def outcome(self, request: AppendRequest, verdict: int) -> AppendOutcome | None:
        """Return what became of the first send, or why there is no telling; None: try again.

        After the lock. A request that is another message after all loses its sequence.
        """
        if verdict == LATER:
            return None
        if verdict < 0:
            return AppendOutcome(_refusal(request, verdict))
        first = self._log.record_at(verdict, self._words[MIN_OFFSET], self._words[WRITE_POSITION])
        if first is None:
            return AppendOutcome(
                IllegalOperation(
                    "this message was stored before and has been deleted: it is not stored again"
                )
            )
        fields = parse_record(first)
        if _unique_key(first) != _unique_key(request.data):
            request.sequence = None
            return None
        end = verdict
        for _ in range(request.count):
            record = self._log.record_at(end, verdict, self._words[WRITE_POSITION])
            if record is None:
                return AppendOutcome(
                    MessageIllegal("this sequence was stored as a smaller batch: a batch is repeated whole")
                )
            end += len(record)
        return AppendOutcome(
            None, fields.queue_offset, verdict, end, fields.store_timestamp, queue_id=fields.queue_id
        )


def _unique_key(data: memoryview | bytearray) -> str | None:
    """Return the unique key of the first record in `data`."""
    fields = parse_record(data)
    return decode_properties(data[fields.properties_at : fields.end]).get(UNIQ_KEY)


def _refusal(request: AppendRequest, verdict: int) -> ShmqError:
    assert request.sequence is not None
    number = request.sequence.number
    if verdict == GONE:
        return SequenceRefused(
            "the producer was not heard of for so long that its row was given to another: it needs a new id"
        )
    if verdict == FORGOTTEN:
        return SequenceRefused(
            f"sequence {number} is more than {PRODUCER_WINDOW} behind the newest: nobody can tell any more "
            "whether it was stored"
        )
    assert verdict == AHEAD
    return SequenceRefused(
        f"sequence {number} is more than {PRODUCER_WINDOW} ahead of the newest that was stored: sequences "
        "rise one by one"
    )
