"""Frames: how commands are cut out of a byte stream.

    offset  size  field                                                    big-endian
    0       4     L: bytes that follow this field = 4 + H + B, at least 4
    4       1     serialization of the header: 0 JSON, 1 ROCKETMQ binary, 2 CBOR (shmq)
    5       3     H: header length, at most L - 4
    8       H     header
    8+H     B     body

Sans-I/O: bytes in, whole frames out; the same code serves both ends of a connection, in every process.
Nothing is allocated for a frame before its lengths were found good; then its memory is reserved, and taken
from the machine as bytes arrive.
"""

import struct

from shmq.base.errors import FrameFault
from shmq.base.memory import unwritten

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

    A frame that does not arrive at once has memory of its own, which is written once: its bytes are copied
    there by `feed`, or read from the socket right into `room`. After a ``FrameFault`` the stream has no
    further meaning: close the connection.
    """

    __slots__ = ("_filled", "_frame_bytes_max", "_lengths", "_unfinished")

    def __init__(self, max_frame: int = FRAME_BYTES_MAX) -> None:
        """Refuse frames over ``max_frame`` bytes, the length field included."""
        self._frame_bytes_max = max_frame
        self._lengths = b""
        """What arrived of an unfinished frame's lengths, while they are not complete."""
        self._unfinished = bytearray()
        """The whole of an unfinished frame, of which `_filled` bytes arrived; empty while its lengths are not
        complete."""
        self._filled = 0

    @property
    def buffered(self) -> int:
        """Bytes received of a frame that is not whole yet."""
        return self._filled or len(self._lengths)

    @property
    def missing(self) -> int:
        """Bytes that an unfinished frame still needs; 0 while that is not known."""
        return len(self._unfinished) - self._filled

    @property
    def room(self) -> memoryview:
        """Memory for the `missing` bytes: whoever writes the next ones there calls `arrived`."""
        return memoryview(self._unfinished)[self._filled :]

    def arrived(self, count: int) -> memoryview | None:
        """Return the frame if it is whole with the ``count`` bytes that are now at the begin of `room`."""
        self._filled += count
        if self.missing:
            return None
        frame = memoryview(self._unfinished)
        self._unfinished, self._filled = bytearray(), 0
        return frame

    def feed(self, data: bytes | bytearray | memoryview) -> list[memoryview]:
        """Return the frames that are whole now, each from its length field to its last body byte.

        The views lie in ``data`` itself where possible, so ``data`` must not be changed afterwards.
        ``FrameFault`` for a length that is negative, too small or too large, or a header longer than its
        frame.
        """
        frames: list[memoryview] = []
        view = memoryview(data)
        position = self._go_on(view, frames) if self._filled or self._lengths else 0
        end = len(view)
        while end - position >= LENGTHS_BYTES:
            frame_end = position + self._frame_size(view, position)
            if frame_end > end:
                self._begin(view[position:], frame_end - position)
                return frames
            frames.append(view[position:frame_end])
            position = frame_end
        self._lengths += view[position:]
        return frames

    def _begin(self, view: memoryview, frame_bytes: int) -> None:
        """Make room for a whole frame, of which `view` arrived."""
        self._unfinished = unwritten(frame_bytes)
        self._filled = len(view)
        self._unfinished[: self._filled] = view

    def _go_on(self, view: memoryview, frames: list[memoryview]) -> int:
        """Add to the unfinished frame what belongs to it; return how many bytes of ``view`` that took."""
        taken = 0
        if self._lengths:
            taken = min(LENGTHS_BYTES - len(self._lengths), len(view))
            self._lengths += view[:taken]
            if len(self._lengths) < LENGTHS_BYTES:
                return taken
            lengths = memoryview(self._lengths)
            self._begin(lengths, self._frame_size(lengths, 0))
            self._lengths = b""
        piece = view[taken : taken + self.missing]
        self.room[: len(piece)] = piece
        frame = self.arrived(len(piece))
        if frame is not None:
            frames.append(frame)
        return taken + len(piece)

    def _frame_size(self, buffer: memoryview, position: int) -> int:
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
