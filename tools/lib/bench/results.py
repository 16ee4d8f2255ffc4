"""Results: everything one run of the bench found, and how it is kept as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.durability import MEASURED, NOT_THERE_YET, Durability
from bench.result import Row


@dataclass(slots=True)
class Results:
    """The rows of a run, with what they were measured on and by which settings.

    machine   facts about the host
    run       what was asked for: rounds, seconds, systems
    settings  class -> server -> setting -> value, as the servers were started
    """

    machine: dict[str, str]
    run: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    settings: dict[Durability, dict[str, dict[str, str]]] = field(default_factory=dict)

    @property
    def classes(self) -> list[Durability]:
        """The classes that have rows."""
        return [kind for kind in MEASURED if any(row.durability is kind for row in self.rows)]

    def of_class(self, kind: Durability) -> list[Row]:
        """The rows of one class."""
        return [row for row in self.rows if row.durability is kind]

    def as_json(self) -> dict[str, Any]:
        """Everything, every round."""
        return {
            "machine": self.machine,
            "run": self.run,
            "not_there_yet": {kind.value: reason for kind, reason in NOT_THERE_YET.items()},
            "settings": {kind.value: servers for kind, servers in self.settings.items()},
            "rows": [row.as_json() for row in self.rows],
        }
