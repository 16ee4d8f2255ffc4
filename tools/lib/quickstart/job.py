"""What the parent tells the producer and the consumers, as one JSON file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

TOPIC = "QuickStart"
RUN_PROPERTY = "run"
NUMBER_PROPERTY = "n"


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the quick start.

    run     marks this run's messages: the topic of a running broker may hold those of earlier runs
    tcp     use TCP although a Unix socket is there;  direct: let consumers read the store's files themselves
    """

    namesrv_addr: str
    run: str
    group: str
    files: list[str]
    tcp: bool
    direct: bool

    def write(self, path: Path) -> Path:
        """Store the job for the child processes."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: str) -> Job:
        """Load what write() stored."""
        return cls(**json.loads(Path(path).read_text()))


def tell(**news: object) -> None:
    """A child's line to the parent."""
    os.write(1, json.dumps(news).encode() + b"\n")
