"""What becomes of half messages that nobody decides: RocketMQ's way, or the operator's own code.

    transactionCheckListener=my_package.my_module:MyListener

names a class with a `resolve_discard_msg(message)` like the one below. It is called in the coordinator, so it
must return within milliseconds, and it is trusted code. (Apache RocketMQ 5.3,
AbstractTransactionalMessageCheckListener.java, where it is a Java subclass.)
"""

from __future__ import annotations

from importlib import import_module

from shmq.base.errors import ConfigFault
from shmq.model.message_ext import MessageExt
from shmq.model.transaction import LocalTransactionState


class TransactionCheckListener:
    """Decides about half messages that were checked `transactionCheckMax` times, or are too old."""

    def resolve_discard_msg(self, message: MessageExt) -> LocalTransactionState | None:
        """Return COMMIT_MESSAGE or ROLLBACK_MESSAGE to end the transaction so; None or UNKNOW moves it to
        TRANS_CHECK_MAX_TIME_TOPIC, from where `resumeCheckHalfMessage` brings it back.

        `message` is the half message with its own topic.
        """
        del message
        return None


def load_check_listener(name: str) -> TransactionCheckListener:
    """Return the listener that `transactionCheckListener` names, RocketMQ's for an empty name.

    ConfigFault when there is no such class, or it has no `resolve_discard_msg`.
    """
    if not name:
        return TransactionCheckListener()
    module_name, _, class_name = name.partition(":")
    try:
        listener = getattr(import_module(module_name), class_name)()
    except Exception as error:  # whatever the operator's module raises while it is imported
        raise ConfigFault(
            f"transactionCheckListener={name}: {error!r}; it must be package.module:Class"
        ) from error
    if not callable(getattr(listener, "resolve_discard_msg", None)):
        raise ConfigFault(f"transactionCheckListener={name}: the class has no method resolve_discard_msg")
    checked: TransactionCheckListener = listener
    return checked
