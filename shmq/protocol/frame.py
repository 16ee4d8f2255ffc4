"""Frames: how commands are cut out of a byte stream.

    offset  size  field                                                    big-endian
    0       4     L: bytes that follow this field = 4 + H + B, at least 4
    4       1     serialization of the header: 0 JSON, 1 ROCKETMQ binary, 2 CBOR (shmq)
    5       3     H: header length, at most L - 4
    8       H     header
    8+H     B     body

Sans-I/O: bytes in, whole frames out; the same code serves both ends of a connection, in every process.
Nothing is allocated for a frame before its lengths were found good, and then only as its bytes arrive.
"""

import struct

from shmq.base.errors import FrameFault

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Largest frame, its length field included: RocketMQ's limit."""

LENGTHS = struct.Struct(">iI")
"""L, then serialization << 24 | H: the first eight bytes of every frame."""

LENGTHS_BYTES = 8
SERIALIZATION_SHIFT = 24
HEADER_LENGTH_MASK = 0xFFFFFF
assert LENGTHS.size == LENGTHS_BYTES


class FrameDecoder:
    """Collects received bytes and returns the whole frames among them. One per connection, used by one
    thread.

    After a ``FrameFault`` the stream has no further meaning: close the connection.
    """

    __slots__ = ("_frame_bytes", "_frame_bytes_max", "_tail")

    def __init__(self, max_frame: int = FRAME_BYTES_MAX) -> None:
        """Refuse frames over ``max_frame`` bytes, the length field included."""
        self._frame_bytes_max = max_frame
        self._tail = bytearray()
        self._frame_bytes = 0  # of the unfinished frame in _tail, 0 while its lengths are not complete

    @property
    def buffered(self) -> int:
        """Bytes received of a frame that is not whole yet."""
        return len(self._tail)

    def feed(self, data: bytes | bytearray | memoryview) -> list[memoryview]:
        """Return the frames that are whole now, each from its length field to its last body byte.

        The views lie in ``data`` itself where possible, so ``data`` must not be changed afterwards.
        ``FrameFault`` for a length that is negative, too small or too large, or a header longer than its
        frame.
        """
        frames: list[memoryview] = []
        view = memoryview(data)
        position = self._complete_tail(view, frames) if self._tail else 0
        end = len(view)
        while end - position >= LENGTHS_BYTES:
            frame_end = position + self._frame_size(view, position)
            if frame_end > end:
                break
            frames.append(view[position:frame_end])
            position = frame_end
        if position < end:
            self._tail += view[position:]
            if len(self._tail) >= LENGTHS_BYTES:
                self._frame_bytes = self._frame_size(self._tail, 0)
        return frames

    def _complete_tail(self, view: memoryview, frames: list[memoryview]) -> int:
        """Add to the unfinished frame what belongs to it; return how many bytes of ``view`` that took."""
        taken = 0
        if not self._frame_bytes:
            taken = LENGTHS_BYTES - len(self._tail)
            self._tail += view[:taken]
            if len(self._tail) < LENGTHS_BYTES:
                return len(view)
            self._frame_bytes = self._frame_size(self._tail, 0)
        missing = self._frame_bytes - len(self._tail)
        self._tail += view[taken : taken + missing]
        if len(self._tail) == self._frame_bytes:
            frames.append(memoryview(self._tail))
            self._tail = bytearray()
            self._frame_bytes = 0
        return min(taken + missing, len(view))

    def _frame_size(self, buffer: bytearray | memoryview, position: int) -> int:
        """Check the two lengths at ``position`` and return the frame's size, the length field included."""
        length, word = LENGTHS.unpack_from(buffer, position)
        if length < 4:
            raise FrameFault(f"frame length {length} is impossible: at least 4 bytes follow a length field")
        if length + 4 > self._frame_bytes_max:
            raise FrameFault(f"frame of {length + 4} bytes is over the limit of {self._frame_bytes_max}")
        header_length = word & HEADER_LENGTH_MASK
        if header_length > length - 4:
            raise FrameFault(f"header of {header_length} bytes does not fit a frame of {length + 4} bytes")
        return int(length) + 4
