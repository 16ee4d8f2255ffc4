"""What a client call raises beside the broker's own answers (`BrokerError`) and refused arguments
(`ClientFault`).

RocketMQ's client codes are kept: 10001 connect failed, 10002 timed out, 10003 broker does not exist, 10004 no
name server address, 10005 topic route not found, 10006 no reply in time, 10007 no reply can be made.
`code_of` finds the code of any error that a send ended with.
"""

from __future__ import annotations

from shmq.base.errors import BrokerError, ClientFault, ShmqError, Unavailable

CONNECT_BROKER_EXCEPTION = 10001
ACCESS_BROKER_TIMEOUT = 10002
BROKER_NOT_EXIST = 10003
NO_NAME_SERVER = 10004
NOT_FOUND_TOPIC = 10005
REQUEST_TIMEOUT = 10006
CREATE_REPLY_MESSAGE = 10007


class ClientError(ShmqError):
    """A call failed on the client's side; `code` is one of RocketMQ's client codes or the broker's last
    answer."""

    def __init__(self, code: int, text: str) -> None:
        """Keep the code; `text` says what happened, whose fault it is and what to do now."""
        super().__init__(text)
        self.code = code


class ClientStateError(ClientFault):
    """The call does not fit the state of this client object: not started, shut down, or started twice."""


class RemotingError(Unavailable):
    """A connection could not be made or broke; the request may or may not have reached the other side."""


class ConnectFailed(RemotingError):
    """Nobody could be reached at that address; the request was not sent."""


class RemotingTimeout(RemotingError, TimeoutError):
    """No answer in time; the request may still have been carried out."""


class TooMuchRequest(RemotingError):
    """The client's own bounds are reached, or the time of the call was used up before anything was sent."""


def code_of(error: BaseException) -> int:
    """Return the code that a failed send reports for its last attempt; -1 when no code describes it."""
    if isinstance(error, BrokerError | ClientError):
        return error.code
    if isinstance(error, RemotingTimeout):
        return ACCESS_BROKER_TIMEOUT
    if isinstance(error, RemotingError):
        return CONNECT_BROKER_EXCEPTION
    return -1
