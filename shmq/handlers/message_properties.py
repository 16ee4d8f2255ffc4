"""The properties of a message that is being sent: what the broker reads of them, refuses, and adds.

Pure functions; called by the send handlers in a worker. The text form is RocketMQ's
(``model/properties.py``).
"""

from __future__ import annotations

from typing import NamedTuple

from shmq.base.errors import MessageIllegal
from shmq.model import properties as names
from shmq.model.delay import wished_level
from shmq.model.message_id import unique_key
from shmq.model.subscription import tags_code_of
from shmq.model.timer import TIMER_PROPERTIES, TimerWish, wish_of
from shmq.model.wait_for import AS_CONFIGURED, Wait, wait_of

MSG_REGION_DEFAULT = "DefaultRegion"

_REWRITTEN = frozenset({names.MSG_REGION, names.TRACE_ON, names.CLUSTER, names.POP_CK})
"""Names a re-sent message may carry: the broker's own values take their place."""

HALF_IN_BATCH = "a transaction's batch is one half message (SHMQ_HALF_BATCH): its messages have no TRAN_MSG"

_OF_COPIES = (names.TRANSACTION_CHECK_TIMES, names.TRANSACTION_PREPARED_QUEUE_OFFSET)
"""What only the broker writes, into copies of half messages: a sender's own would pass for another's copy."""

_TIMERS = (*TIMER_PROPERTIES, names.TIMER_DEL_UNIQKEY)
"""A delay level wins over these, as in RocketMQ: they are dropped then."""


_RARE = (
    *("DELAY", "TIMER_", "TRAN_MSG", "POP_CK", "MSG_REGION", "TRACE_ON", "CLUSTER"),
    *("WAIT\x01false", names.SHMQ_WAIT_FOR),
)
"""Words that send a message's properties to be looked at one by one."""

_TAGS_START = f"{names.TAGS}\x01"
_KEY_START = f"{names.UNIQ_KEY}\x01"


class PreparedProperties(NamedTuple):
    """What is stored, and what the broker needs to know of it."""

    stored: bytes
    tags_code: int
    unique_key: str
    wait: Wait
    delay_level: int = 0
    """Over 0: the message waits in the queue of that level first."""
    is_half: bool = False
    """The message waits for the outcome of a transaction."""
    timer: TimerWish | None = None
    """The message waits for a moment."""


def broker_properties(cluster: str) -> bytes:
    """Return the encoded properties a broker of ``cluster`` adds to every single send."""
    return names.encode_properties(
        {names.MSG_REGION: MSG_REGION_DEFAULT, names.TRACE_ON: "true", names.CLUSTER: cluster}
    )


def _is_half(found: dict[str, str]) -> bool:
    return found.get(names.TRANSACTION_PREPARED, "false").lower() == "true"


def prepare(text: str, added: bytes) -> PreparedProperties:
    """Read a send's properties, complete them with the broker's (``added``) and encode them once.

    Raises MessageIllegal when they are longer than 32,767 bytes as stored, or ask for what is not supported.
    """
    if not text.isascii():  # half a surrogate pair is stored as "?": the tags code must be that text's
        text = text.encode("utf-8", "replace").decode()
    if text and text[-1] != "\x02":  # RocketMQ's Java client leaves the last one out
        text += "\x02"
    plain = _plain_values(text)
    if plain is None:
        return _prepare_any(text, added)
    stored = text.encode("utf-8", "replace") + added
    check_stored(stored)
    key, tags = plain
    return PreparedProperties(stored, tags_code_of(tags), key, AS_CONFIGURED)


def _plain_values(text: str) -> tuple[str, str] | None:
    """Return UNIQ_KEY and TAGS, "" without one, of the usual properties: nothing rare in them, neither twice.

    None means that they have to be looked at one by one. Searching for a few words costs a third of taking
    the text apart; a word found inside a value only sends that message down the other path.
    """
    for word in _RARE:
        if word in text:
            return None
    key_at, tags_at = text.find(_KEY_START), text.find(_TAGS_START)
    if key_at < 0 or (key_at and text[key_at - 1] != "\x02") or text.rfind(_KEY_START) != key_at:
        return None
    if (tags_at > 0 and text[tags_at - 1] != "\x02") or text.rfind(_TAGS_START) != tags_at:
        return None
    key = text[key_at + len(_KEY_START) : text.index("\x02", key_at)]
    if not key:
        return None
    return key, text[tags_at + len(_TAGS_START) : text.index("\x02", tags_at)] if tags_at >= 0 else ""


def _prepare_any(text: str, added: bytes) -> PreparedProperties:
    """Take properties, which end with 0x02, apart and look at each."""
    found = names.decode_properties(text)
    delay_level = wished_level(found.get(names.DELAY))
    is_half = _is_half(found)
    dropped = _REWRITTEN.union(_TIMERS) if delay_level else _REWRITTEN
    if is_half:
        dropped = dropped.union(_OF_COPIES)
    is_rewritten = not dropped.isdisjoint(found)
    for name in dropped:
        found.pop(name, None)
    key = found.get(names.UNIQ_KEY)
    if is_rewritten:
        text = "".join([f"{name}\x01{value}\x02" for name, value in found.items()])
    if not key:
        key = unique_key()
        text += f"{names.UNIQ_KEY}\x01{key}\x02"
    stored = text.encode("utf-8", "replace") + added
    check_stored(stored)
    tags_code = tags_code_of(found.get(names.TAGS))
    return PreparedProperties(stored, tags_code, key, wait_of(found), delay_level, is_half, wish_of(found))


def prepare_element(raw: bytes | bytearray | memoryview) -> PreparedProperties:
    """Read the properties of one element of a batch; nothing is added but a missing final separator."""
    text = str(raw, "utf-8", "replace")
    found = names.decode_properties(text)
    if _is_half(found):
        raise MessageIllegal(HALF_IN_BATCH)
    if wished_level(found.get(names.DELAY)) or wish_of(found) is not None:
        raise MessageIllegal("a delayed message may not be part of a batch: send it alone")
    stored = bytes(raw)
    if stored and stored[-1] != 2:
        stored += b"\x02"
    check_stored(stored)
    return PreparedProperties(
        stored,
        tags_code_of(found.get(names.TAGS)),
        found.get(names.UNIQ_KEY, ""),
        wait_of(found),
    )


def check_stored(stored: bytes) -> None:
    """Refuse properties that do not fit RocketMQ's 16-bit length field, or hold a NUL.

    Recovery takes a NUL in a record for space that was never written.
    """
    if 0 in stored:
        raise MessageIllegal("the properties hold a NUL character: it is not allowed in names or values")
    if len(stored) > names.PROPERTIES_BYTES_MAX:
        raise MessageIllegal(
            f"the properties have {len(stored)} bytes as stored, at most {names.PROPERTIES_BYTES_MAX} "
            "are allowed"
        )
