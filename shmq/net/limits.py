"""What one connection may cost: frame size, bytes waiting to be read by the peer, silence."""

from __future__ import annotations

from dataclasses import dataclass

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""RocketMQ's own frame limit, the 4 length bytes included."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection; sizes in bytes, times in seconds.

    A peer that does not read its replies is first no longer read from (above ``write_pause_bytes`` waiting
    for it) and closed when the replies that were already under way exceed ``write_bytes_max``.
    """

    frame_bytes_max: int = FRAME_BYTES_MAX
    write_pause_bytes: int = 1024 * 1024
    write_resume_bytes: int = 256 * 1024
    write_bytes_max: int = 256 * 1024 * 1024
    idle_s: float = 120.0
