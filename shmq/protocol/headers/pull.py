"""Headers of PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361, and the bits of their sysFlag."""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64

PULL_COMMIT_OFFSET = 0x01
"""``commit_offset`` is to be stored."""
PULL_SUSPEND = 0x02
"""The broker may hold the request until a message arrives."""
PULL_SUBSCRIPTION = 0x04
"""``subscription`` is present and counts."""
PULL_CLASS_FILTER = 0x08
PULL_LITE = 0x10


@header
class PullMessageHeader:
    """Asks for messages of one queue from ``queue_offset`` on."""

    consumer_group: str
    topic: str
    queue_id: I32
    queue_offset: I64
    max_msg_nums: I32
    sys_flag: I32
    commit_offset: I64
    suspend_timeout_millis: I64
    sub_version: I64
    subscription: str | None = None
    expression_type: str = "TAG"
    max_msg_bytes: I32 | None = None

    @property
    def commits_offset(self) -> bool:
        """Tell whether ``commit_offset`` is to be stored."""
        return bool(self.sys_flag & PULL_COMMIT_OFFSET)

    @property
    def may_suspend(self) -> bool:
        """Tell whether the request may be held."""
        return bool(self.sys_flag & PULL_SUSPEND)

    @property
    def has_subscription(self) -> bool:
        """Tell whether the request brings its own subscription."""
        return bool(self.sys_flag & PULL_SUBSCRIPTION)


@header
class PullMessageResponseHeader:
    """Goes with every one of the codes 0, 19, 20 and 21; clients dereference it unasked."""

    suggest_which_broker_id: I64
    next_begin_offset: I64
    min_offset: I64
    max_offset: I64
    topic_sys_flag: I32 | None = None
    group_sys_flag: I32 | None = None
    offset_delta: I64 | None = None
    forbidden_type: I32 | None = None
