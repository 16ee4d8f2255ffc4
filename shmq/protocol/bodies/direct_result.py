"""ConsumeMessageDirectlyResult: what became of one message that a consumer took on request (answer to 309).

Members as RocketMQ has them (Apache RocketMQ 5.3, ConsumeMessageDirectlyResult.java). Written by consumers,
read by operators' tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shmq.protocol.bodies.dialect import Body, dumps, loads, reads


class DirectOutcome(Enum):
    """What the listener did with it."""

    CR_SUCCESS = "CR_SUCCESS"
    CR_LATER = "CR_LATER"
    CR_ROLLBACK = "CR_ROLLBACK"
    CR_COMMIT = "CR_COMMIT"
    CR_THROW_EXCEPTION = "CR_THROW_EXCEPTION"
    CR_RETURN_NULL = "CR_RETURN_NULL"


@dataclass(frozen=True, slots=True)
class DirectResult:
    """`order`: by an orderly listener; `spent_ms`: how long the listener ran; `remark`: its error, if any."""

    outcome: DirectOutcome
    remark: str | None = None
    spent_ms: int = 0
    order: bool = False
    auto_commit: bool = True

    def to_json(self) -> dict[str, object]:
        """Its members under RocketMQ's names."""
        return {
            "autoCommit": self.auto_commit,
            "consumeResult": self.outcome.value,
            "order": self.order,
            "remark": self.remark,
            "spentTimeMills": self.spent_ms,
        }


def encode_direct_result(result: DirectResult) -> bytes:
    """Return the body; a missing remark is left out, as fastjson does."""
    return dumps({name: value for name, value in result.to_json().items() if value is not None})


@reads("result of a direct consumption")
def decode_direct_result(body: Body | None) -> DirectResult:
    """Read the body of an answer to 309."""
    members = loads(body)
    return DirectResult(
        DirectOutcome(members["consumeResult"]),
        members.get("remark"),
        int(members.get("spentTimeMills") or 0),
        bool(members.get("order", False)),
        bool(members.get("autoCommit", True)),
    )
