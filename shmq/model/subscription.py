"""Subscriptions: what a consumer group wants of a topic, and the tag hash both sides filter by.

The broker compares the 32-bit Java hash of a message's TAGS with ``code_set``; the client compares the tag
itself afterwards (Apache RocketMQ 5.3, FilterAPI.java, SubscriptionData.java). Pure, any process.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from shmq.base.errors import SubscriptionParseFailed

SUBSCRIBE_ALL = "*"
TAG_EXPRESSION = "TAG"
SQL92_EXPRESSION = "SQL92"
FUNCTION_EXPRESSION = "FUNCTION"
"""shmq's own: the expression is the name of an installed filter function."""

_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class MessageSelector:
    """What a consumer wants of a topic, by tags or by an SQL-92 expression over properties."""

    expression: str
    expression_type: str = TAG_EXPRESSION

    @classmethod
    def by_tag(cls, expression: str = SUBSCRIBE_ALL) -> "MessageSelector":
        """Want the tags of ``A || B``, or ``*``: the same as giving that text itself."""
        return cls(expression)

    @classmethod
    def by_sql(cls, expression: str) -> "MessageSelector":
        """Want what an SQL-92 condition is true of, such as ``a > 5 AND b = 'abc'``; brokers evaluate it."""
        return cls(expression, SQL92_EXPRESSION)

    @classmethod
    def by_function(cls, name: str) -> "MessageSelector":
        """Want what the filter function of that name wants, which an operator has installed."""
        return cls(name, FUNCTION_EXPRESSION)


Wanted = str | MessageSelector | None
"""How programs say what they want: a tag expression, a selector, or None for everything."""


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


def split_tags(text: str) -> list[str]:
    """Return the tags of ``A || B``, blanks around them removed."""
    return [tag for piece in text.split("||") if (tag := piece.strip())]


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
    def is_by_tags(self) -> bool:
        """Tell whether tags decide: then whoever reads can filter; an SQL-92 expression is the broker's."""
        return self.expression_type == TAG_EXPRESSION

    @property
    def matches_all(self) -> bool:
        """Tell whether every message of the topic is wanted."""
        return self.expression_type == TAG_EXPRESSION and self.sub_string == SUBSCRIBE_ALL

    def wants_tags(self, tags: str | None) -> bool:
        """Tell whether a message with this TAGS value is wanted: the exact test, not the hash.

        Of several tags (``A || B``, in topics of type MULTI_TAG) one is enough.
        """
        if self.matches_all:
            return True
        return tags is not None and (tags in self.tags_set or not self.tags_set.isdisjoint(split_tags(tags)))


def check_function_name(name: str) -> None:
    """Refuse what is no name of a filter function: SubscriptionParseFailed."""
    if not _FUNCTION_NAME.fullmatch(name):
        raise SubscriptionParseFailed(
            f"filter function {name[:80]!r}: a name has letters, digits and _, at most 64, no digit first"
        )


def build_subscription(topic: str, expression: Wanted, sub_version: int = 0) -> SubscriptionData:
    """Build a subscription from ``*``, ``A || B || C`` or a selector.

    ``SubscriptionParseFailed`` when a tag expression has delimiters but names no tag (RocketMQ accepts blanks
    between delimiters and then matches nothing, which nobody means), when an SQL-92 expression is blank, and
    for any other type of expression. What an SQL-92 expression says only brokers judge.
    """
    if isinstance(expression, MessageSelector):
        if expression.expression_type == SQL92_EXPRESSION:
            if not expression.expression.strip():
                raise SubscriptionParseFailed("the SQL92 expression is empty; write * to get all messages")
            return SubscriptionData(
                topic,
                expression.expression,
                sub_version=sub_version,
                expression_type=SQL92_EXPRESSION,
            )
        if expression.expression_type == FUNCTION_EXPRESSION:
            check_function_name(expression.expression)
            return SubscriptionData(
                topic,
                expression.expression,
                sub_version=sub_version,
                expression_type=FUNCTION_EXPRESSION,
            )
        if expression.expression_type != TAG_EXPRESSION:
            raise SubscriptionParseFailed(
                f"expression type {expression.expression_type!r} is unknown: TAG, SQL92 and FUNCTION exist"
            )
        expression = expression.expression
    if expression is not None and not isinstance(expression, str):
        raise SubscriptionParseFailed(f"expression {expression!r} is neither text nor a MessageSelector")
    if expression is None or not expression.strip() or expression.strip() == SUBSCRIBE_ALL:
        return SubscriptionData(topic, sub_version=sub_version)
    tags = frozenset(split_tags(expression))
    if not tags:
        raise SubscriptionParseFailed(
            f"expression {expression!r} names no tag; write A || B, or * for all messages"
        )
    codes = frozenset(map(java_hash, tags))
    return SubscriptionData(topic, expression, tags, codes, sub_version)
