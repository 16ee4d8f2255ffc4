"""37 and 323 before anything is looked up: who may ask, and what is no request."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from shmq.base.errors import InvalidParameter
from shmq.handlers.end_transaction import end_transaction, resume_check
from shmq.model.setting import BrokerRole
from shmq.model.settings import BrokerSettings
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.query import ResumeCheckHalfMessageHeader
from shmq.protocol.headers.send import EndTransactionHeader


def context(**settings: Any) -> Any:
    """What these requests see of a coordinator; no transaction is touched."""
    return SimpleNamespace(settings=SimpleNamespace(now=BrokerSettings(**settings)))


def ended(ctx: Any, outcome: int) -> Command:
    header = EndTransactionHeader("G", 0, 0, outcome, "K")
    command = Command.request(RequestCode.END_TRANSACTION, header)
    return asyncio.run(end_transaction(ctx, SimpleNamespace(), command, header))  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", [0, 8, 12])
def test_a_slave_ends_no_transaction(outcome: int) -> None:
    """Checklist 106."""
    answer = ended(context(broker_role=BrokerRole.SLAVE), outcome)
    assert answer.code == ResponseCode.SLAVE_NOT_AVAILABLE


def test_nonsense_for_an_outcome_is_refused() -> None:
    for outcome in (4, -1, 2**31 - 1):
        with pytest.raises(InvalidParameter, match="commitOrRollback"):
            ended(context(), outcome)


def test_only_an_offset_id_names_what_is_resumed() -> None:
    header = ResumeCheckHalfMessageHeader("no id")
    command = Command.request(RequestCode.RESUME_CHECK_HALF_MESSAGE, header)
    with pytest.raises(InvalidParameter, match="offset message id"):
        asyncio.run(resume_check(context(), SimpleNamespace(), command, header))  # type: ignore[arg-type]
