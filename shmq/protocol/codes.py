"""Request and response codes, languages, and which error becomes which response code.

The numbers are RocketMQ's (Apache RocketMQ 5.3, RequestCode.java, ResponseCode.java). shmq's own requests
lie in 30000-30999, which RocketMQ does not use:

    30000-30099   clients: log-ready batches, reader grants, waiting messages
    30100-30199   between a worker and the coordinator (``internal``)

``response_code_of`` and ``error_of`` are the two directions of one table: a server turns an error into a
code, a client turns the code back into the error.
"""

from enum import IntEnum

from shmq.base import errors


class RequestCode(IntEnum):
    """What a request asks for."""

    SEND_MESSAGE = 10
    PULL_MESSAGE = 11
    QUERY_MESSAGE = 12
    QUERY_CONSUMER_OFFSET = 14
    UPDATE_CONSUMER_OFFSET = 15
    UPDATE_AND_CREATE_TOPIC = 17
    UPDATE_AND_CREATE_TOPIC_LIST = 18
    GET_ALL_TOPIC_CONFIG = 21
    UPDATE_BROKER_CONFIG = 25
    GET_BROKER_CONFIG = 26
    GET_BROKER_RUNTIME_INFO = 28
    SEARCH_OFFSET_BY_TIMESTAMP = 29
    GET_MAX_OFFSET = 30
    GET_MIN_OFFSET = 31
    GET_EARLIEST_MSG_STORETIME = 32
    VIEW_MESSAGE_BY_ID = 33
    HEART_BEAT = 34
    UNREGISTER_CLIENT = 35
    CONSUMER_SEND_MSG_BACK = 36
    END_TRANSACTION = 37
    GET_CONSUMER_LIST_BY_GROUP = 38
    CHECK_TRANSACTION_STATE = 39
    NOTIFY_CONSUMER_IDS_CHANGED = 40
    LOCK_BATCH_MQ = 41
    UNLOCK_BATCH_MQ = 42
    GET_ALL_CONSUMER_OFFSET = 43
    GET_ALL_DELAY_OFFSET = 45
    CHECK_CLIENT_CONFIG = 46
    PUT_KV_CONFIG = 100
    GET_KV_CONFIG = 101
    DELETE_KV_CONFIG = 102
    REGISTER_BROKER = 103
    UNREGISTER_BROKER = 104
    GET_ROUTEINFO_BY_TOPIC = 105
    GET_BROKER_CLUSTER_INFO = 106
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP = 200
    GET_ALL_SUBSCRIPTIONGROUP_CONFIG = 201
    GET_TOPIC_STATS_INFO = 202
    GET_CONSUMER_CONNECTION_LIST = 203
    GET_PRODUCER_CONNECTION_LIST = 204
    WIPE_WRITE_PERM_OF_BROKER = 205
    GET_ALL_TOPIC_LIST_FROM_NAMESERVER = 206
    DELETE_SUBSCRIPTIONGROUP = 207
    GET_CONSUME_STATS = 208
    DELETE_TOPIC_IN_BROKER = 215
    DELETE_TOPIC_IN_NAMESRV = 216
    REGISTER_TOPIC_IN_NAMESRV = 217
    GET_KVLIST_BY_NAMESPACE = 219
    RESET_CONSUMER_CLIENT_OFFSET = 220
    GET_CONSUMER_STATUS_FROM_CLIENT = 221
    INVOKE_BROKER_TO_RESET_OFFSET = 222
    INVOKE_BROKER_TO_GET_CONSUMER_STATUS = 223
    GET_TOPICS_BY_CLUSTER = 224
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST = 225
    QUERY_TOPIC_CONSUME_BY_WHO = 300
    QUERY_CONSUME_TIME_SPAN = 303
    GET_SYSTEM_TOPIC_LIST_FROM_NS = 304
    GET_SYSTEM_TOPIC_LIST_FROM_BROKER = 305
    CLEAN_EXPIRED_CONSUMEQUEUE = 306
    GET_CONSUMER_RUNNING_INFO = 307
    QUERY_CORRECTION_OFFSET = 308
    CONSUME_MESSAGE_DIRECTLY = 309
    SEND_MESSAGE_V2 = 310
    GET_UNIT_TOPIC_LIST = 311
    GET_HAS_UNIT_SUB_TOPIC_LIST = 312
    GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST = 313
    CLONE_GROUP_OFFSET = 314
    VIEW_BROKER_STATS_DATA = 315
    CLEAN_UNUSED_TOPIC = 316
    GET_BROKER_CONSUME_STATS = 317
    UPDATE_NAMESRV_CONFIG = 318
    GET_NAMESRV_CONFIG = 319
    SEND_BATCH_MESSAGE = 320
    QUERY_CONSUME_QUEUE = 321
    QUERY_DATA_VERSION = 322
    RESUME_CHECK_HALF_MESSAGE = 323
    SEND_REPLY_MESSAGE = 324
    SEND_REPLY_MESSAGE_V2 = 325
    PUSH_REPLY_MESSAGE_TO_CLIENT = 326
    ADD_WRITE_PERM_OF_BROKER = 327
    GET_ALL_PRODUCER_INFO = 328
    DELETE_EXPIRED_COMMITLOG = 329
    QUERY_TOPICS_BY_CONSUMER = 343
    QUERY_SUBSCRIPTION_BY_CONSUMER = 345
    GET_TOPIC_CONFIG = 351
    GET_SUBSCRIPTIONGROUP_CONFIG = 352
    UPDATE_AND_GET_GROUP_FORBIDDEN = 353
    LITE_PULL_MESSAGE = 361
    RECALL_MESSAGE = 370
    QUERY_ASSIGNMENT = 400
    SET_MESSAGE_REQUEST_MODE = 401
    GET_ALL_MESSAGE_REQUEST_MODE = 402
    GET_BROKER_MEMBER_GROUP = 901
    BROKER_HEARTBEAT = 904
    NOTIFY_MIN_BROKER_ID_CHANGE = 905
    GET_BROKER_HA_STATUS = 907

    SEND_LOG_BATCH = 30001
    GRANT_READER = 30002
    GRANT_FILES = 30003
    WAIT_FOR_MESSAGES = 30004
    SHARE_CORE = 30005
    LIST_TIMERS = 30010
    RESCHEDULE_TIMER = 30011
    INSTALL_FILTER = 30020
    REMOVE_FILTER = 30021
    LIST_FILTERS = 30022


class ResponseCode(IntEnum):
    """How a request ended. 10, 11 and 12 are successes with less durability than was configured."""

    SUCCESS = 0
    SYSTEM_ERROR = 1
    SYSTEM_BUSY = 2
    REQUEST_CODE_NOT_SUPPORTED = 3
    TRANSACTION_FAILED = 4
    FLUSH_DISK_TIMEOUT = 10
    SLAVE_NOT_AVAILABLE = 11
    FLUSH_SLAVE_TIMEOUT = 12
    MESSAGE_ILLEGAL = 13
    SERVICE_NOT_AVAILABLE = 14
    VERSION_NOT_SUPPORTED = 15
    NO_PERMISSION = 16
    TOPIC_NOT_EXIST = 17
    TOPIC_EXIST_ALREADY = 18
    PULL_NOT_FOUND = 19
    PULL_RETRY_IMMEDIATELY = 20
    PULL_OFFSET_MOVED = 21
    QUERY_NOT_FOUND = 22
    SUBSCRIPTION_PARSE_FAILED = 23
    SUBSCRIPTION_NOT_EXIST = 24
    SUBSCRIPTION_NOT_LATEST = 25
    SUBSCRIPTION_GROUP_NOT_EXIST = 26
    FILTER_DATA_NOT_EXIST = 27
    FILTER_DATA_NOT_LATEST = 28
    INVALID_PARAMETER = 29
    NO_BUYER_ID = 204
    NOT_IN_CURRENT_UNIT = 205
    CONSUMER_NOT_ONLINE = 206
    CONSUME_MSG_TIMEOUT = 207
    NO_MESSAGE = 208
    POLLING_FULL = 209
    POLLING_TIMEOUT = 210
    BROKER_NOT_EXIST = 211
    BROKER_DISPATCH_NOT_COMPLETE = 212
    BROADCAST_CONSUMPTION = 213
    FLOW_CONTROL = 215
    NOT_LEADER_FOR_QUEUE = 501
    ILLEGAL_OPERATION = 604
    GO_AWAY = 1500
    SEQUENCE_REFUSED = 30500
    """shmq's own: the number of an idempotent producer's send is one that nobody can judge."""


class LanguageCode(IntEnum):
    """Which client library sent a command. Travels by name in JSON headers, by number in binary ones."""

    JAVA = 0
    CPP = 1
    DOTNET = 2
    PYTHON = 3
    DELPHI = 4
    ERLANG = 5
    RUBY = 6
    OTHER = 7
    HTTP = 8
    GO = 9
    PHP = 10
    OMS = 11
    RUST = 12
    NODE_JS = 13


VERSION = 479
"""The wire version we answer and ask with: RocketMQ 5.3.3's."""

VERSION_STANDARD_JSON = 401
"""From this version (V4_9_4) on a client's route answers are strict JSON."""

VERSION_MAX_RECONSUME_TIMES = 121
"""From this version (V3_4_9) on a client's maxReconsumeTimes counts."""

ERROR_CODES: dict[type[errors.ShmqError], ResponseCode] = {
    errors.MessageIllegal: ResponseCode.MESSAGE_ILLEGAL,
    errors.TopicNotExist: ResponseCode.TOPIC_NOT_EXIST,
    errors.NoPermission: ResponseCode.NO_PERMISSION,
    errors.InvalidParameter: ResponseCode.INVALID_PARAMETER,
    errors.GroupNotExist: ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST,
    errors.SubscriptionNotExist: ResponseCode.SUBSCRIPTION_NOT_EXIST,
    errors.SubscriptionNotLatest: ResponseCode.SUBSCRIPTION_NOT_LATEST,
    errors.SubscriptionParseFailed: ResponseCode.SUBSCRIPTION_PARSE_FAILED,
    errors.QueryNotFound: ResponseCode.QUERY_NOT_FOUND,
    errors.IllegalOperation: ResponseCode.ILLEGAL_OPERATION,
    errors.SequenceRefused: ResponseCode.SEQUENCE_REFUSED,
    errors.RequestNotSupported: ResponseCode.REQUEST_CODE_NOT_SUPPORTED,
    errors.ServiceNotAvailable: ResponseCode.SERVICE_NOT_AVAILABLE,
    errors.SystemBusy: ResponseCode.SYSTEM_BUSY,
    errors.ConsumerNotOnline: ResponseCode.CONSUMER_NOT_ONLINE,
    errors.QueueGone: ResponseCode.TOPIC_NOT_EXIST,
    errors.StoreDamaged: ResponseCode.SERVICE_NOT_AVAILABLE,
    errors.RemoteFault: ResponseCode.INVALID_PARAMETER,
    errors.ClientFault: ResponseCode.SYSTEM_ERROR,
    errors.ShmqError: ResponseCode.SYSTEM_ERROR,
}
"""The one table. A class not listed takes the code of its nearest listed base."""


def response_code_of(error: BaseException) -> int:
    """Return the response code a server answers an error with; anything unexpected is SYSTEM_ERROR.

    A ``BrokerError`` (an answer relayed from another broker or client) keeps its code.
    """
    if isinstance(error, errors.BrokerError):
        return error.code
    for base in type(error).__mro__:
        code = ERROR_CODES.get(base)
        if code is not None:
            return code
    return ResponseCode.SYSTEM_ERROR


class AnsweredError(errors.BrokerError):
    """A broker's answer that is also the error the broker itself raised; survives pickling."""

    def __reduce__(self) -> tuple[object, tuple[int, str]]:
        """Rebuild through ``error_of``: the classes below have no importable name."""
        return error_of, (self.code, self.remark)


_SERVER_SIDE_ONLY = frozenset(
    (errors.QueueGone, errors.StoreDamaged, errors.RemoteFault, errors.ClientFault, errors.ShmqError)
)
_ANSWERED: dict[int, type[errors.BrokerError]] = {
    code: type(base.__name__, (AnsweredError, base), {"__doc__": base.__doc__})
    for base, code in ERROR_CODES.items()
    if base not in _SERVER_SIDE_ONLY
}


def error_of(code: int, remark: str | None) -> errors.BrokerError:
    """Return the error a client raises for a response code that is not SUCCESS.

    Always a ``BrokerError`` with code and remark; for a code of the table also an instance of the error
    class the broker raised, so that ``except TopicNotExist`` works on both sides of the wire.
    """
    return _ANSWERED.get(code, errors.BrokerError)(code, remark or "")
