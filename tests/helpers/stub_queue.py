"""A scripted broker with one readable queue, for what a consumer's pull loop does."""

from __future__ import annotations

import time

from shmq.model.record import encode_record, stamp_record
from shmq.model.subscription import java_hash
from shmq.protocol.bodies.heartbeat import decode_heartbeat
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.offset import OffsetResponseHeader, UpdateConsumerOffsetHeader
from shmq.protocol.headers.pull import PullMessageHeader, PullMessageResponseHeader
from tests.helpers.stub_cluster import Answer, StubBroker

IDLE_S = 0.02
"""How long a pull of an empty queue is held: short, so that tests end soon."""


class StubQueueBroker(StubBroker):
    """Topic `T`, queue 0. Consumers are whoever sent a heartbeat.

    fill(...)    append messages          min_offset   move it to let old messages be gone
    pulls        (moment, queue offset) of every pull received, oldest first
    pull_script  answers of the next pulls, in order; afterwards the queue answers
    committed    what the group committed last, None: nothing
    """

    def __init__(self, name: str) -> None:
        """Start with an empty queue."""
        self.records: list[bytes] = []
        self.tags: list[str | None] = []
        self.min_offset = 0
        self.pulls: list[tuple[float, int]] = []
        self.pull_script: list[Answer] = []
        self.committed: int | None = None
        super().__init__(name)

    @property
    def max_offset(self) -> int:
        """The next offset of the queue."""
        return len(self.records)

    def fill(self, count: int, body_bytes: int = 10, tag: str | None = None) -> None:
        """Append `count` messages."""
        properties = f"TAGS\x01{tag}\x02".encode() if tag else b""
        for _ in range(count):
            record = encode_record(
                topic=b"T",
                body=bytes(body_bytes),
                properties=properties,
                queue_id=0,
                born_timestamp=int(time.time() * 1000),
            )
            stamp_record(record, 0, len(self.records), len(self.records) * len(record), 1)
            self.records.append(bytes(record))
            self.tags.append(tag)

    def answer(self, command: Command) -> Command | None:
        """Serve the queue; the rest as a StubBroker does."""
        match command.code:
            case RequestCode.HEART_BEAT:
                client = decode_heartbeat(command.body_bytes()).client_id
                self.members = sorted({*self.members, client})
            case RequestCode.PULL_MESSAGE:
                header = command.read_header(PullMessageHeader)
                self.pulls.append((time.monotonic(), header.queue_offset))
                if header.commit_offset > 0 and header.sys_flag & 1:
                    self.committed = header.commit_offset
                return self.pull_script.pop(0)(command) if self.pull_script else self.pulled(command)
            case RequestCode.QUERY_CONSUMER_OFFSET:
                if self.committed is None:
                    return command.response(ResponseCode.QUERY_NOT_FOUND, "nothing committed")
                return self._offset(command, self.committed)
            case RequestCode.UPDATE_CONSUMER_OFFSET:
                self.committed = command.read_header(UpdateConsumerOffsetHeader).commit_offset
            case RequestCode.GET_MAX_OFFSET:
                return self._offset(command, self.max_offset)
            case RequestCode.GET_MIN_OFFSET:
                return self._offset(command, self.min_offset)
        return super().answer(command)

    def pulled(self, command: Command) -> Command:
        """What a broker answers to a pull of the queue as it is."""
        header = command.read_header(PullMessageHeader)
        offset = header.queue_offset
        if not self.min_offset <= offset <= self.max_offset:
            nearest = self.min_offset if offset < self.min_offset else self.max_offset
            return self._answer(command, ResponseCode.PULL_OFFSET_MOVED, nearest)
        if offset == self.max_offset:
            time.sleep(IDLE_S)
            return self._answer(command, ResponseCode.PULL_NOT_FOUND, offset)
        end = min(self.max_offset, offset + header.max_msg_nums)
        wanted = self._wanted(header.subscription)
        found = [place for place in range(offset, end) if wanted is None or self._hash(place) in wanted]
        if not found:
            return self._answer(command, ResponseCode.PULL_RETRY_IMMEDIATELY, end)
        body = b"".join(self.records[place] for place in found)
        return self._answer(command, ResponseCode.SUCCESS, end, body)

    def _wanted(self, expression: str | None) -> set[int] | None:
        """Tag hashes of the test's subscription; consumers that send none along subscribe to everything."""
        if expression is None or expression == "*":
            return None
        return {java_hash(tag.strip()) for tag in expression.split("||")}

    def _hash(self, place: int) -> int:
        tag = self.tags[place]
        return java_hash(tag) if tag else 0

    def _answer(self, command: Command, code: int, next_offset: int, body: bytes | None = None) -> Command:
        header = PullMessageResponseHeader(0, next_offset, self.min_offset, self.max_offset)
        return command.response(code, header=header, body=body)

    def _offset(self, command: Command, offset: int) -> Command:
        return command.response(ResponseCode.SUCCESS, header=OffsetResponseHeader(offset))
