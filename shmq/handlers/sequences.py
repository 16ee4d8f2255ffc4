"""The sequence of an idempotent producer's send: from the property's text to the page's row. Worker."""

from __future__ import annotations

from shmq.handlers.context import Ask, NeedProducerRow, WorkerContext
from shmq.model.properties import SHMQ_SEQUENCE, decode_properties
from shmq.model.sequence import Sequence, parse_sequence
from shmq.shm.producer_table import SequenceRef

_MARK = f"{SHMQ_SEQUENCE}\x01".encode()


def sequence_in(properties: bytes) -> Sequence | None:
    """Return the sequence that encoded properties carry, None without one. MessageIllegal: it is none."""
    if _MARK not in properties:
        return None
    text = decode_properties(properties).get(SHMQ_SEQUENCE)
    return None if text is None else parse_sequence(text)


def sequence_ref(ctx: WorkerContext, sequence: Sequence | None) -> SequenceRef | None:
    """Return where a sequence belongs on the page; Ask when its producer has no row yet."""
    if sequence is None:
        return None
    found = ctx.producers.find(sequence)
    if found is None:
        raise Ask(NeedProducerRow(sequence.producer_id))
    return found
