"""Subscriptions: what a consumer group wants of a topic, and the tag hash both sides filter by.

The broker compares the 32-bit Java hash of a message's TAGS with ``code_set``; the client compares the tag
itself afterwards (Apache RocketMQ 5.3, FilterAPI.java, SubscriptionData.java). Pure, any process.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from shmq.base.errors import SubscriptionParseFailed

SUBSCRIBE_ALL = "*"
TAG_EXPRESSION = "TAG"
SQL92_EXPRESSION = "SQL92"


@lru_cache(maxsize=4096)
def java_hash(text: str) -> int:
    """Return Java's ``String.hashCode``: h = 31*h + unit over UTF-16 units, as a signed 32-bit number."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    return value - 0x100000000 if value & 0x80000000 else value


def tags_code_of(tags: str | None) -> int:
    """Return the ConsumeQueue tags code of a TAGS value: its Java hash, 0 without a tag."""
    return java_hash(tags) if tags else 0


@dataclass(slots=True)
class SubscriptionData:
    """One group's subscription to one topic. ``sub_version`` is the time of its last change in ms."""

    topic: str
    sub_string: str = SUBSCRIBE_ALL
    tags_set: frozenset[str] = field(default_factory=frozenset)
    code_set: frozenset[int] = field(default_factory=frozenset)
    sub_version: int = 0
    expression_type: str = TAG_EXPRESSION
    class_filter_mode: bool = False

    @property
    def matches_all(self) -> bool:
        """Tell whether every message of the topic is wanted."""
        return self.expression_type == TAG_EXPRESSION and self.sub_string == SUBSCRIBE_ALL

    def wants_tags(self, tags: str | None) -> bool:
        """Tell whether a message with this TAGS value is wanted: the exact test, not the hash."""
        return self.matches_all or (tags is not None and tags in self.tags_set)


def build_subscription(topic: str, expression: str | None, sub_version: int = 0) -> SubscriptionData:
    """Build a tag subscription from ``*`` or ``A || B || C``.

    ``SubscriptionParseFailed`` when the expression has delimiters but names no tag: RocketMQ accepts blanks
    between delimiters and then matches nothing, which nobody means.
    """
    if expression is None or not expression.strip() or expression.strip() == SUBSCRIBE_ALL:
        return SubscriptionData(topic, sub_version=sub_version)
    tags = frozenset(tag for piece in expression.split("||") if (tag := piece.strip()))
    if not tags:
        raise SubscriptionParseFailed(
            f"expression {expression!r} names no tag; write A || B, or * for all messages"
        )
    codes = frozenset(map(java_hash, tags))
    return SubscriptionData(topic, expression, tags, codes, sub_version)
