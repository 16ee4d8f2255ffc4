"""Transactions that nobody decided: begin their checks again."""

from __future__ import annotations

from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.output import Failure, Item, Report
from shmq.base.errors import ShmqError


def resume_check_half_message(
    message_ids: Annotated[
        str, typer.Option("-i", "--msgId", help="offset ids of messages in TRANS_CHECK_MAX_TIME_TOPIC; a,b")
    ],
    topic: Annotated[
        str | None, typer.Option("-t", "--topic", help="unused: the id says where it is")
    ] = None,
) -> Report:
    """Open transactions again that were given up; their producers are asked as if for the first time."""
    items: list[Item] = []
    failures: list[Failure] = []
    with session.current.admin() as admin:
        for message_id in map(str.strip, message_ids.split(",")):
            try:
                admin.resume_check_half_message(message_id)
            except (ShmqError, OSError) as error:
                failures.append(Failure(message_id, 0, str(error)))
            else:
                items.append({"offsetMsgId": message_id})
    lines = [f"{item['offsetMsgId']} is open again" for item in items]
    return Report("TransactionsResumed", items, lines=lines, errors=failures)
