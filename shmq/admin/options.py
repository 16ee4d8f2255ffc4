"""Option values that mqadmin takes as text: booleans with an argument, times, target choices."""

from __future__ import annotations

import time
from datetime import datetime

from shmq.base.errors import InvalidParameter

TIME_FORMAT = "%Y-%m-%d#%H:%M:%S:%f"


def truth(text: str) -> bool:
    """Read `true` or `false`, as in `-s true`; InvalidParameter for anything else."""
    lowered = text.strip().lower()
    if lowered not in ("true", "false"):
        raise InvalidParameter(f"{text!r} is neither true nor false")
    return lowered == "true"


def moment_ms(text: str) -> int:
    """Read `now`, milliseconds since the epoch, or local time as yyyy-MM-dd#HH:mm:ss:SSS."""
    text = text.strip()
    if text == "now":
        return int(time.time() * 1000)
    if text.isdigit():
        return int(text)
    try:
        return int(datetime.strptime(text, TIME_FORMAT).timestamp() * 1000)
    except ValueError:
        raise InvalidParameter(
            f"{text!r} is no time: write now, milliseconds since 1970, or yyyy-MM-dd#HH:mm:ss:SSS"
        ) from None
