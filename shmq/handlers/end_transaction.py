"""37: a producer says what became of a transaction; 323: check one again that was given up.

Coordinator's handlers. RocketMQ's producers send 37 oneway; who wants an answer gets one, also for "unknown",
which RocketMQ leaves without.
"""

from __future__ import annotations

from shmq.base.errors import ClientFault, InvalidParameter, MessageIllegal, SystemBusy
from shmq.broker.half_message import half_of
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model.message_id import parse_offset_message_id
from shmq.model.names import TRANSACTION_CHECK_MAX_TOPIC
from shmq.model.setting import BrokerRole
from shmq.model.transaction import LocalTransactionState
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.query import ResumeCheckHalfMessageHeader
from shmq.protocol.headers.send import EndTransactionHeader


async def end_transaction(
    ctx: CoordinatorContext, _call: Call, command: Command, header: EndTransactionHeader
) -> Command:
    """37: commit or roll back; "unknown" leaves the half message open."""
    if ctx.settings.now.broker_role is BrokerRole.SLAVE:
        return command.response(
            ResponseCode.SLAVE_NOT_AVAILABLE, "this broker is a slave: its master ends transactions"
        )
    try:
        state = LocalTransactionState(header.commit_or_rollback)
    except ValueError:
        raise InvalidParameter(
            f"commitOrRollback {header.commit_or_rollback} is not 8 (commit), 12 (rollback) or 0 (unknown)"
        ) from None
    await ctx.transactions.end(
        header.producer_group,
        header.tran_state_table_offset,
        header.commit_log_offset,
        state,
        from_check=header.from_transaction_check,
    )
    return command.response(ResponseCode.SUCCESS)


async def resume_check(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ResumeCheckHalfMessageHeader
) -> Command:
    """323: open a transaction of TRANS_CHECK_MAX_TIME_TOPIC again; it is checked from the beginning."""
    _, physical_offset = parse_offset_message_id(header.msg_id)
    record = ctx.store.record_at(physical_offset)
    if record is None:
        raise ClientFault(f"no message begins at commit log offset {physical_offset} (any more)")
    try:
        half = half_of(record, TRANSACTION_CHECK_MAX_TOPIC)
    except MessageIllegal as error:
        raise ClientFault(str(error)) from None
    if ctx.transactions.is_pending(half.first):
        raise ClientFault(f"the transaction of half message {half.first} is open: it is being checked")
    outcome = ctx.transactions.resume(half)
    if outcome is None:
        raise SystemBusy("no log segment is ready: try again")
    if outcome.error is not None:
        raise outcome.error
    return command.response(ResponseCode.SUCCESS)


ROUTES: dict[int, Route] = {
    RequestCode.END_TRANSACTION: Route(EndTransactionHeader, end_transaction, Place.COORDINATOR),
    RequestCode.RESUME_CHECK_HALF_MESSAGE: Route(
        ResumeCheckHalfMessageHeader, resume_check, Place.COORDINATOR
    ),
}
"""Served by the coordinator."""
