"""Exit codes (sysexits style) and the one place that says which error ends with which."""

from __future__ import annotations

import enum

from shmq.base.errors import (
    BrokerError,
    ClientFault,
    ConfigFault,
    ConsumerNotOnline,
    GroupNotExist,
    NoPermission,
    QueryNotFound,
    RequestNotSupported,
    ShmqError,
    TopicNotExist,
    Unavailable,
)
from shmq.client import errors as client_errors
from shmq.client.errors import ClientError
from shmq.protocol.codes import ResponseCode


class ExitCode(enum.IntEnum):
    """What `$?` says after shmq-admin."""

    OK = 0
    FAILED = 1
    PARTIAL = 2
    """Some targets answered, some did not: the rows are printed, the errors follow them."""
    USAGE = 64
    BAD_DATA = 65
    NOT_FOUND = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    TIMEOUT = 75
    NO_PERMISSION = 77
    CONFIGURATION = 78
    INTERRUPTED = 130


BY_RESPONSE: dict[int, ExitCode] = {
    ResponseCode.SYSTEM_BUSY: ExitCode.UNAVAILABLE,
    ResponseCode.SERVICE_NOT_AVAILABLE: ExitCode.UNAVAILABLE,
    ResponseCode.NO_PERMISSION: ExitCode.NO_PERMISSION,
    ResponseCode.TOPIC_NOT_EXIST: ExitCode.NOT_FOUND,
    ResponseCode.QUERY_NOT_FOUND: ExitCode.NOT_FOUND,
    ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST: ExitCode.NOT_FOUND,
    ResponseCode.INVALID_PARAMETER: ExitCode.BAD_DATA,
    ResponseCode.CONSUMER_NOT_ONLINE: ExitCode.UNAVAILABLE,
    ResponseCode.CONSUME_MSG_TIMEOUT: ExitCode.TIMEOUT,
    ResponseCode.BROKER_NOT_EXIST: ExitCode.NOT_FOUND,
}
"""What a broker's or name server's answer means for a script."""

BY_CLIENT_CODE: dict[int, ExitCode] = {
    client_errors.CONNECT_BROKER_EXCEPTION: ExitCode.UNAVAILABLE,
    client_errors.ACCESS_BROKER_TIMEOUT: ExitCode.TIMEOUT,
    client_errors.BROKER_NOT_EXIST: ExitCode.NOT_FOUND,
    client_errors.NO_NAME_SERVER: ExitCode.UNAVAILABLE,
    client_errors.NOT_FOUND_TOPIC: ExitCode.NOT_FOUND,
}
"""What the client's own codes mean for a script; it also reports a broker's last answer by its code."""

BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (TimeoutError, ExitCode.TIMEOUT),
    (ConnectionError, ExitCode.UNAVAILABLE),
    (PermissionError, ExitCode.NO_PERMISSION),
    (FileNotFoundError, ExitCode.NOT_FOUND),
    (NoPermission, ExitCode.NO_PERMISSION),
    (TopicNotExist, ExitCode.NOT_FOUND),
    (GroupNotExist, ExitCode.NOT_FOUND),
    (QueryNotFound, ExitCode.NOT_FOUND),
    (ConsumerNotOnline, ExitCode.UNAVAILABLE),
    (Unavailable, ExitCode.UNAVAILABLE),
    (ConfigFault, ExitCode.CONFIGURATION),
    (RequestNotSupported, ExitCode.FAILED),
    (ClientFault, ExitCode.BAD_DATA),
    (ShmqError, ExitCode.FAILED),
    (OSError, ExitCode.UNAVAILABLE),
)
"""First match wins: special before general. Anything else is a bug of ours."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code for an error that ended a command."""
    if isinstance(error, BrokerError | ClientError):
        by_code = (BY_CLIENT_CODE | BY_RESPONSE).get(error.code)
        if by_code is not None:
            return by_code
    return next((code for kind, code in BY_ERROR if isinstance(error, kind)), ExitCode.INTERNAL)
