"""Header of shmq's log-ready batch, code 30001 (CBOR clients of shmq brokers only)."""

import struct

from shmq.base.errors import InvalidParameter
from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32


@header
class SendLogBatchHeader:
    """A batch of finished CommitLog records for one queue; the body is the records back to back.

    ``sizes`` holds each record's size as little-endian u32. The answer is a ``SendMessageResponseHeader``
    with the first record's queue offset and physical offset.
    """

    producer_group: str
    topic: str
    queue_id: I32
    count: I32
    sizes: bytes
    default_topic: str
    default_topic_queue_nums: I32

    def __post_init__(self) -> None:
        """Refuse a size list that does not hold ``count`` sizes."""
        if self.count < 1 or len(self.sizes) != 4 * self.count:
            raise InvalidParameter(
                f"batch of {self.count} records has {len(self.sizes)} bytes of sizes, 4 per record"
            )

    def size_list(self) -> list[int]:
        """Return the sizes as a list."""
        return list(struct.unpack(f"<{self.count}I", self.sizes))


def pack_sizes(sizes: list[int]) -> bytes:
    """Return the wire form of a size list."""
    return struct.pack(f"<{len(sizes)}I", *sizes)
