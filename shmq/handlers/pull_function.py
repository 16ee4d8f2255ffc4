"""A pull whose messages a filter function judges: read first, ask, then answer. Worker's event loop.

Nothing waits meanwhile: the pull is answered when the verdicts are there. A function may judge fewer records
than it was given; the pull then goes on behind the last one it judged.
"""

from __future__ import annotations

from collections.abc import Callable

from shmq.base.errors import ShmqError
from shmq.handlers.context import Verdicts, WorkerContext
from shmq.model.record import iter_records, parse_record
from shmq.net.connection import Connection
from shmq.protocol.command import Command
from shmq.store.read import ReadResult, ReadStatus


def ask_function(
    ctx: WorkerContext,
    connection: Connection,
    command: Command,
    name: str,
    result: ReadResult,
    answer: Callable[[ReadResult], None],
) -> None:
    """Have the function `name` judge what was found; `answer` gets what is left. Raises as `judge` does."""
    records = [bytes(record) for view in result.views for record in iter_records(view)]

    def judged(verdicts: Verdicts | ShmqError) -> None:
        if not connection.is_open:
            return
        if isinstance(verdicts, ShmqError):
            connection.send(command.refusal(verdicts))
            return
        wanted = [memoryview(record) for record, verdict in zip(records, verdicts, strict=False) if verdict]
        result.views = wanted
        result.count, result.size = len(wanted), sum(map(len, wanted))
        result.status = ReadStatus.FOUND if wanted else ReadStatus.NO_MATCHED_MESSAGE
        if len(verdicts) < len(records):
            result.next_offset = parse_record(records[len(verdicts) - 1]).queue_offset + 1
        answer(result)

    ctx.functions.judge(name, records, judged)
