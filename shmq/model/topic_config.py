"""TopicConfig: queues, permission and attributes of one topic on one broker.

Its JSON members are RocketMQ's, in files (``topics.json``) as on the wire (Apache RocketMQ 5.3,
TopicConfig.java).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shmq.model.data_version import DataVersion as DataVersion

PERM_INHERIT = 1
PERM_WRITE = 2
PERM_READ = 4
PERM_PRIORITY = 8
PERM_READ_WRITE = PERM_READ | PERM_WRITE

SINGLE_TAG = "SINGLE_TAG"
MULTI_TAG = "MULTI_TAG"

SYS_FLAG_UNIT = 1
SYS_FLAG_UNIT_SUB = 2
SYS_FLAG_BROKER_FILTERS = 1 << 16
"""Only in answers to pulls: no tag hash of this topic means anything, so it may not be read directly."""


@dataclass(slots=True)
class TopicConfig:
    """One topic's settings. Defaults are those of objects built in code; commands and auto-creation have
    their own."""

    topic_name: str
    read_queue_nums: int = 16
    write_queue_nums: int = 16
    perm: int = PERM_READ_WRITE
    topic_filter_type: str = SINGLE_TAG
    topic_sys_flag: int = 0
    order: bool = False
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        """Tell whether consumers may read."""
        return bool(self.perm & PERM_READ)

    @property
    def writable(self) -> bool:
        """Tell whether producers may write."""
        return bool(self.perm & PERM_WRITE)

    @property
    def has_several_tags(self) -> bool:
        """Tell whether a message may have several tags, ``A || B``; RocketMQ names the type, no more."""
        return self.topic_filter_type == MULTI_TAG

    @property
    def inherited(self) -> bool:
        """Tell whether unknown topics may be created from this one."""
        return bool(self.perm & PERM_INHERIT)

    @property
    def queue_nums(self) -> int:
        """Number of queues that exist: the larger of both counts."""
        return max(self.read_queue_nums, self.write_queue_nums)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON members as RocketMQ names them, in its order."""
        return {
            "attributes": self.attributes,
            "order": self.order,
            "perm": self.perm,
            "readQueueNums": self.read_queue_nums,
            "topicFilterType": self.topic_filter_type,
            "topicName": self.topic_name,
            "topicSysFlag": self.topic_sys_flag,
            "writeQueueNums": self.write_queue_nums,
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any], topic_name: str = "") -> "TopicConfig":
        """Read the JSON members; unknown ones are ignored, missing ones take RocketMQ's defaults."""
        return cls(
            topic_name=str(members.get("topicName") or topic_name),
            read_queue_nums=int(members.get("readQueueNums", 16)),
            write_queue_nums=int(members.get("writeQueueNums", 16)),
            perm=int(members.get("perm", PERM_READ_WRITE)),
            topic_filter_type=str(members.get("topicFilterType") or SINGLE_TAG),
            topic_sys_flag=int(members.get("topicSysFlag") or 0),
            order=bool(members.get("order", False)),
            attributes={str(name): str(value) for name, value in (members.get("attributes") or {}).items()},
        )


def perm_text(perm: int) -> str:
    """Return a permission as RocketMQ's tools print it: ``RWX`` with ``-`` for what is missing."""
    letters = ((PERM_READ, "R"), (PERM_WRITE, "W"), (PERM_INHERIT, "X"))
    return "".join(letter if perm & bit else "-" for bit, letter in letters)
