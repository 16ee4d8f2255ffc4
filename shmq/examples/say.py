"""Printing from several threads: `print` writes a line and its end one after the other, and listeners run
side by side."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print one line in one piece."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
