"""Where a half message waits for the outcome of its transaction. Pure but for the worker's view.

Facts: Apache RocketMQ 5.3, SendMessageProcessor.java, TransactionalMessageBridge.java. Beyond it, a half
message may be a whole batch (property SHMQ_HALF_BATCH: how many; the body is that of request 320): one
outcome for all of them.
"""

from __future__ import annotations

from shmq.base.errors import MessageIllegal, NoPermission, ServiceNotAvailable, SystemBusy
from shmq.handlers.context import WorkerContext
from shmq.handlers.message_properties import PreparedProperties, check_stored, prepare_element
from shmq.handlers.send_checks import check_body_size
from shmq.handlers.timed import checked_moment
from shmq.model import properties as names
from shmq.model.delay import wished_level
from shmq.model.names import TRANSACTION_GROUP, TRANSACTION_HALF_TOPIC
from shmq.model.properties import PROPERTIES_BYTES_MAX, decode_properties, encode_properties
from shmq.model.record import BLANK_BYTES_MIN, RECORD_OVERHEAD_V1
from shmq.model.sys_flag import COMPRESSED
from shmq.model.timer import wish_of
from shmq.protocol.bodies.batch import iter_batch_elements
from shmq.protocol.headers.send import SendMessageHeader
from shmq.shm.queue_table import QueueRef

_WAITS = {
    f"{prefix}{name}"
    for prefix in ("", names.SHMQ_COMMIT_PREFIX)
    for name in (names.DELAY, names.TIMER_DELAY_SEC, names.TIMER_DELAY_MS, names.TIMER_DELIVER_MS)
}

CHECK_BYTES = 120
"""What later checks add to the properties of a half message: room for it is kept from the beginning."""


def prepared(
    ctx: WorkerContext,
    queue: QueueRef,
    header: SendMessageHeader,
    properties: PreparedProperties,
    body: memoryview,
) -> tuple[QueueRef, bytes]:
    """Return the half queue, and the properties with the message's own topic, queue and transaction id.

    NoPermission when the broker takes no transactions; MessageIllegal for what could never be decided or
    committed.
    """
    if ctx.settings.reject_transaction_message:
        raise NoPermission("this broker takes no transactional messages (rejectTransactionMessage=true)")
    found = decode_properties(properties.stored)
    group = found.get(names.PRODUCER_GROUP)
    if not group:
        raise MessageIllegal("a half message without PGROUP: nobody could be asked about its transaction")
    added = {
        names.REAL_TOPIC: queue.topic,
        names.REAL_QUEUE_ID: str(queue.queue_id),
        names.TRANSACTION_ID: properties.unique_key,
    }
    stored = properties.stored + encode_properties(added)
    check_stored(stored)
    if len(stored) + CHECK_BYTES > PROPERTIES_BYTES_MAX:
        raise MessageIllegal(
            f"the properties of a half message have {len(stored)} bytes as stored, at most "
            f"{PROPERTIES_BYTES_MAX - CHECK_BYTES} are allowed"
        )
    _check_delay(ctx, found)
    if names.SHMQ_HALF_BATCH in found:
        added_bytes = len(properties.unique_key) + len(group) + CHECK_BYTES
        _check_batch(ctx, queue, header, found, body, added_bytes)
    half_queue = ctx.directory.queue(TRANSACTION_HALF_TOPIC, 0)
    if half_queue is None:
        raise ServiceNotAvailable(f"topic {TRANSACTION_HALF_TOPIC} has no queue: send later")
    _check_pending(ctx, half_queue)
    return half_queue, stored


def _check_pending(ctx: WorkerContext, half_queue: QueueRef) -> None:
    """Refuse more than somebody can decide: nobody does while there is no coordinator, or no producer."""
    slot = ctx.directory.offset_slot(TRANSACTION_GROUP, TRANSACTION_HALF_TOPIC, 0)
    oldest = max(0, ctx.offsets.committed(slot)) if slot is not None else 0
    most = ctx.settings.transaction_pending_max
    if ctx.store.table.max(half_queue.slot) - oldest >= most:
        ctx.count("transactions_refused", 1)
        raise SystemBusy(
            f"[OVERLOAD] {most} half messages lie between the oldest open transaction and the newest "
            "(transactionPendingMax): send later, and see that the producers of the open ones are running"
        )


def _check_delay(ctx: WorkerContext, found: dict[str, str]) -> None:
    """Refuse now a moment that no commit could promise."""
    restored = {name.removeprefix(names.SHMQ_COMMIT_PREFIX): value for name, value in found.items()}
    wish = None if wished_level(restored.get(names.DELAY)) else wish_of(restored)
    if wish is not None:
        if wish.cancels:
            raise MessageIllegal("a half message cannot cancel a timer: send that alone")
        checked_moment(ctx, wish, ctx.clock.now_ms())


def _check_batch(
    ctx: WorkerContext,
    queue: QueueRef,
    header: SendMessageHeader,
    found: dict[str, str],
    body: memoryview,
    added_bytes: int,
) -> None:
    """Refuse now what a commit could not store then: all of the batch, together, in one segment."""
    if header.sys_flag & COMPRESSED or not _WAITS.isdisjoint(found):
        raise MessageIllegal("a batch of a transaction is neither compressed nor delayed as a whole")
    count = size = 0
    for element in iter_batch_elements(body):
        one = prepare_element(element.properties)
        check_body_size(len(element.body), ctx.settings.max_message_size)
        if len(one.stored) + added_bytes > PROPERTIES_BYTES_MAX:
            raise MessageIllegal(f"the properties of message {count} of the batch are too long")
        count += 1
        size += RECORD_OVERHEAD_V1 + len(queue.topic) + len(element.body) + len(one.stored) + added_bytes
    if str(count) != found[names.SHMQ_HALF_BATCH]:
        raise MessageIllegal(f"the batch has {count} messages, its property says otherwise")
    if size + BLANK_BYTES_MIN > ctx.settings.mapped_file_size_commit_log:
        raise MessageIllegal(f"a batch of {size} bytes does not fit a CommitLog segment: send less at once")
