"""Put every file together again from what was consumed, and compare."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from quickstart import spool
from quickstart.corpus import place_of
from quickstart.spool import Received


@dataclass(slots=True)
class Verdict:
    """What the comparison found; `problems` has one line per file that is not as it was."""

    files: int = 0
    messages: int = 0
    bytes: int = 0
    duplicates: int = 0
    problems: list[str] = field(default_factory=list)


def compare(files: list[Path], spools: Iterable[Path]) -> Verdict:
    """Compare by SHA-256, and check that queue offsets rise with the messages' order within each file.

    Delivery is at least once: a message may be there twice, when a queue changed hands before its offset was
    committed. The copies have the same offset; they are counted, not hidden.
    """
    verdict = Verdict(files=len(files))
    by_file: dict[Path, dict[int, Received]] = defaultdict(dict)
    for path in spools:
        for received in spool.read(path):
            source, _ = place_of(received.key)
            known = by_file[source].setdefault(received.number, received)
            if known is not received:
                verdict.duplicates += 1
                if known != received:
                    verdict.problems.append(f"{source}: two different messages with number {received.number}")
    for source in files:
        parts = [received for _, received in sorted(by_file.pop(source, {}).items())]
        verdict.messages += len(parts)
        verdict.bytes += sum(len(part.body) for part in parts)
        if problem := _problem(source, parts):
            verdict.problems.append(f"{source}: {problem}")
    verdict.problems += [f"{source}: was never sent" for source in by_file]
    return verdict


def _problem(source: Path, parts: list[Received]) -> str | None:
    if hashlib.sha256(b"".join(part.body for part in parts)).digest() != _digest(source):
        return f"the file put together from {len(parts)} messages differs"
    if len({part.queue_id for part in parts}) > 1:
        return "its lines are in more than one queue"
    for earlier, later in pairwise(parts):
        if later.queue_offset <= earlier.queue_offset:
            return f"queue offset {later.queue_offset} follows {earlier.queue_offset}: order lost"
        if place_of(later.key)[1] < place_of(earlier.key)[1]:
            return f"line {place_of(later.key)[1]} follows line {place_of(earlier.key)[1]}"
    return None


def _digest(path: Path) -> bytes:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").digest()
