"""DataVersion: the age of a configuration table (topics, groups, offsets), sent with registrations and kept
in files.

Equality of all three members means "unchanged"; ``next()`` is used for every change.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class DataVersion:
    """Version of one table. Ordered by state version, then counter, then time, as RocketMQ compares them."""

    state_version: int = 0
    counter: int = 0
    timestamp: int = 0
    """Wall clock of the last change, ms."""

    def next(self, now_ms: int) -> "DataVersion":
        """Return the version after one more change at ``now_ms``."""
        return DataVersion(self.state_version, self.counter + 1, now_ms)

    def to_json(self) -> dict[str, int]:
        """Return the JSON members as RocketMQ names them."""
        return {"counter": self.counter, "stateVersion": self.state_version, "timestamp": self.timestamp}

    @classmethod
    def from_json(cls, members: object) -> "DataVersion":
        """Read the JSON members; anything missing is 0, as RocketMQ's reader has it."""
        if not isinstance(members, dict):
            return cls()
        return cls(
            int(members.get("stateVersion") or 0),
            int(members.get("counter") or 0),
            int(members.get("timestamp") or 0),
        )
