"""What a direct reader and the coordinator say to each other on the grant socket (`<broker>.grant.sock`).

A consumer on the broker's host asks for read-only descriptors and from then on reads units and records from
its own maps. Ordinary frames with CBOR headers, one request at a time per connection; descriptors travel
beside the answer frame as SCM_RIGHTS control data (socket.send_fds), attached to the frame's first byte. A
grant lives as long as its connection: at its end the reader drops every map.

```text
code   name          request                      answer
30002  GRANT_READER  GrantReaderHeader            GrantReaderAnswer + 1 descriptor: control page, O_RDONLY
30003  GRANT_FILES   body encode_file_requests()  body encode_grants() + 1 descriptor per granted file
```
Errors: 16 the peer may not read the whole store, speaks another layout version, or (GRANT_FILES) has no
grant yet; 29 no list of at most `FILES_MAX` files. Too many readers: closed at once. A file that does not
exist is no error: it is answered with false. After any error the connection stays usable; a broken frame
closes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import orjson

FILES_MAX = 253
"""Descriptors one message may carry: SCM_MAX_FD of Linux."""

LOG: Literal["log"] = "log"
QUEUE: Literal["queue"] = "queue"


@dataclass(slots=True)
class GrantReaderHeader:
    """Asks for a grant on behalf of a consumer group (named in the log and in the list of readers).

    `layout_version` is the page layout the reader understands; another one than the page's own is refused
    with 16, and the reader stays with pulls through the socket.
    """

    group: str
    layout_version: int


@dataclass(slots=True)
class GrantReaderAnswer:
    """What a reader must know before it trusts the page: its identity, and file sizes in bytes."""

    page_id: int
    layout_version: int
    broker_name: str
    log_file_size: int
    queue_file_size: int


class FileRequest(NamedTuple):
    """One file: a CommitLog segment (topic "", queue_id 0) or a file of a ConsumeQueue.

    `file_start` is the number in the file's name: the physical offset of a segment's first byte, or the
    byte position of a ConsumeQueue file's first unit within its queue.
    """

    kind: Literal["log", "queue"]
    topic: str
    queue_id: int
    file_start: int


def encode_file_requests(requests: Sequence[FileRequest]) -> bytes:
    """Body of GRANT_FILES: a JSON list of [kind, topic, queue id, file start]."""
    return orjson.dumps([list(request) for request in requests])


def decode_file_requests(body: bytes | memoryview) -> list[FileRequest]:
    """Reads the body of GRANT_FILES; raises ValueError for anything else than such a list."""
    found = orjson.loads(body)
    if not isinstance(found, list) or len(found) > FILES_MAX:
        raise ValueError(f"GRANT_FILES wants a list of at most {FILES_MAX} files")
    return [_file_request(item) for item in found]


def _file_request(item: object) -> FileRequest:
    match item:
        case ["log" | "queue" as kind, str(topic), int(queue_id), int(file_start)] if file_start >= 0:
            return FileRequest(kind, topic, queue_id, file_start)
    raise ValueError("a file is asked for as [kind, topic, queue id, file start]")


def encode_grants(granted: Sequence[bool]) -> bytes:
    """Answer to GRANT_FILES: per asked file whether its descriptor is among those sent, in order."""
    return orjson.dumps(list(granted))


def decode_grants(body: bytes | memoryview) -> list[bool]:
    """Reads the answer to GRANT_FILES. False: no such file (not written yet, or already deleted)."""
    return [bool(item) for item in orjson.loads(body)]
