"""Codes: one table from error to code and back."""

import pickle

import pytest

from shmq.base import errors
from shmq.protocol.codes import ERROR_CODES, RequestCode, ResponseCode, error_of, response_code_of


@pytest.mark.parametrize(
    "error,code",
    [
        (errors.MessageIllegal("x"), 13),
        (errors.TopicNotExist("x"), 17),
        (errors.NoPermission("x"), 16),
        (errors.InvalidParameter("x"), 29),
        (errors.GroupNotExist("x"), 26),
        (errors.SubscriptionNotExist("x"), 24),
        (errors.SubscriptionNotLatest("x"), 25),
        (errors.SubscriptionParseFailed("x"), 23),
        (errors.QueryNotFound("x"), 22),
        (errors.RequestNotSupported("x"), 3),
        (errors.ServiceNotAvailable("x"), 14),
        (errors.SystemBusy("x"), 2),
        (errors.ConsumerNotOnline("x"), 206),
        (errors.QueueGone([1]), 17),
        (errors.ClientFault("x"), 1),
        (errors.Bug("x"), 1),
        (errors.BrokerError(215, "x"), 215),
        (RuntimeError("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_code(error, code):
    assert response_code_of(error) == code


def test_a_new_error_class_takes_the_code_of_its_base():
    class Special(errors.NoPermission):
        pass

    assert response_code_of(Special("x")) == ResponseCode.NO_PERMISSION


@pytest.mark.parametrize("code", sorted({int(code) for code in ERROR_CODES.values()} - {1}))
def test_a_client_raises_what_the_broker_raised(code):
    error = error_of(code, "why")
    assert isinstance(error, errors.BrokerError)
    assert (error.code, error.remark) == (code, "why") and str(error) == f"CODE: {code} DESC: why"
    assert response_code_of(error) == code
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and (again.code, again.remark) == (code, "why")


def test_a_client_can_catch_either_way():
    assert isinstance(error_of(17, None), errors.TopicNotExist)
    assert isinstance(error_of(2, "busy"), errors.Unavailable)
    assert type(error_of(1, "x")) is errors.BrokerError
    assert type(error_of(9999, "x")) is errors.BrokerError


def test_numbers_are_rocketmqs_and_our_own_stay_in_their_range():
    assert (RequestCode.SEND_MESSAGE, RequestCode.SEND_MESSAGE_V2, RequestCode.PULL_MESSAGE) == (10, 310, 11)
    assert all(30001 <= code < 30100 for code in RequestCode if code >= 1000)
