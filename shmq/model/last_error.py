"""The text of the last error, kept in a message that its consumer gave back (property SHMQ_LAST_ERROR).

The client says why with its request to take the message back, the broker writes that into the copy, where it
is read by the next listener and by whoever looks at the dead letters. Pure functions.
"""

from __future__ import annotations

import traceback
from pathlib import Path

ERROR_BYTES_MAX = 1000
"""More of an error's text is cut: properties have 32,767 bytes together."""

_NO_TEXT = {ord(sign): " " for sign in map(chr, range(32))} | {ord("\n"): " | "}
"""Control characters separate properties, and a NUL in a record means damage."""


def error_text(text: str) -> str:
    """Return a text as a property can hold it: one line without control characters, not too long."""
    line = text.strip().translate(_NO_TEXT).encode("utf-8", "replace")
    return line[:ERROR_BYTES_MAX].decode("utf-8", "ignore").strip()


def error_of_exception(error: BaseException) -> str:
    """Say what a listener raised, and where."""
    said = "".join(traceback.format_exception_only(error))
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return error_text(f"{error_text(said)[: ERROR_BYTES_MAX // 2]}{where}")
