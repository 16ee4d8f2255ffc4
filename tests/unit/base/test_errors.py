from __future__ import annotations

import pickle

from shmq.base import errors
from shmq.base.errors import BrokerError, ClientFault, QueueGone, ShmqError, Unavailable


def test_every_error_says_whose_fault_it_is() -> None:
    families = (
        errors.ClientFault,
        errors.RemoteFault,
        errors.Unavailable,
        errors.StoreDamaged,
        errors.Bug,
        errors.BrokerError,
    )
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, ShmqError) and value is not ShmqError:
            assert issubclass(value, families), value
            assert value.__doc__


def test_broker_error_keeps_code_and_remark_across_processes() -> None:
    error = pickle.loads(pickle.dumps(BrokerError(17, "no such topic")))
    assert (error.code, error.remark) == (17, "no such topic")
    assert str(error) == "CODE: 17 DESC: no such topic"
    assert not isinstance(error, ClientFault)


def test_queue_gone_names_the_slots_and_invites_to_try_again() -> None:
    error = QueueGone([3, 5])
    assert isinstance(error, Unavailable)
    assert error.slots == [3, 5]
    assert "[3, 5]" in str(error)
