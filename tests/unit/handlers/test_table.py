"""The dispatch table: complete, unambiguous, and the same everywhere."""

from __future__ import annotations

import inspect

from shmq.handlers.routes import Place
from shmq.handlers.table import HANDLERS
from shmq.protocol.codes import RequestCode

NEEDED = (
    10,
    310,
    320,
    30001,
    11,
    361,
    12,
    33,
    14,
    15,
    29,
    30,
    31,
    32,
    34,
    35,
    38,
    41,
    42,
    46,
    17,
    215,
    21,
    200,
    202,
    208,
)


def test_every_request_of_this_release_has_a_row() -> None:
    assert [code for code in NEEDED if code not in HANDLERS] == []


def test_every_row_is_a_known_request_code() -> None:
    assert [code for code in HANDLERS if code not in set(RequestCode)] == []


def test_data_is_served_by_workers_and_membership_by_the_coordinator() -> None:
    for code in (10, 310, 320, 30001, 11, 361, 14, 15, 30):
        assert HANDLERS[code].place is Place.WORKER
    for code in (34, 35, 38, 41, 42, 17, 215):
        assert HANDLERS[code].place is Place.COORDINATOR


def test_worker_handlers_answer_at_once_and_coordinator_handlers_may_wait() -> None:
    for code, route in HANDLERS.items():
        waits = inspect.iscoroutinefunction(route.function)
        assert waits is (route.place is Place.COORDINATOR), code
        assert len(inspect.signature(route.function).parameters) == 4, code
