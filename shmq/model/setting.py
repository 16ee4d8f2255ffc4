"""One row of a settings table: a key under RocketMQ's name, its type, default, unit, range and meaning.

The tables themselves are dataclasses (`broker_settings.py`, `namesrv_settings.py`): each field is declared
with one of the functions below, so that a setting's type, default, range and one-line documentation stand
in one place, attributes are typed for mypy, and `-p`, `conf/broker.conf` and the error texts are all made
from the same row. Pure; used by every process.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from dataclasses import dataclass
from typing import Any

from shmq.base.errors import ConfigFault

Value = bool | int | str
"""What a setting can hold (an enumeration is a `str`)."""


class FlushDiskType(enum.StrEnum):
    """When a send is answered: after the page cache has it, or after the disk has it."""

    ASYNC_FLUSH = "ASYNC_FLUSH"
    SYNC_FLUSH = "SYNC_FLUSH"


class BrokerRole(enum.StrEnum):
    """What this broker is in its broker group."""

    ASYNC_MASTER = "ASYNC_MASTER"
    SYNC_MASTER = "SYNC_MASTER"
    SLAVE = "SLAVE"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one key accepts: numbers from `low` to `high`, `choices`, or text; `own`: only shmq has it."""

    key: str
    kind: type
    doc: str
    unit: str = ""
    low: int = 0
    high: int = 0
    choices: type[enum.StrEnum] | None = None
    pattern: str = ""
    allowed: str = ""
    important: bool = False
    own: bool = False

    def parse(self, text: str) -> Value:
        """The value `text` stands for; ConfigFault with key, value and allowed range when it stands for
        none."""
        parsed = self._parsed(text.strip())
        if parsed is None:
            raise ConfigFault(f"{self.key}={text}: not allowed; allowed is {self.range_text()}")
        return parsed

    def _parsed(self, text: str) -> Value | None:
        if self.kind is bool:
            return {"true": True, "false": False}.get(text.lower())
        if self.kind is int:
            if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
                return None
            number = int(text)
            return number if self.low <= number <= self.high else None
        if self.choices is not None:
            return self.choices[text] if text in self.choices.__members__ else None
        return text if re.fullmatch(self.pattern, text) else None

    def range_text(self) -> str:
        """The allowed values in words, as error messages and `-p` print them."""
        if self.kind is bool:
            return "true or false"
        if self.kind is int:
            return f"{self.low}..{self.high}" + (f" {self.unit}" if self.unit else "")
        if self.choices is not None:
            return " or ".join(self.choices.__members__)
        return self.allowed or "any text"


def number(
    default: int,
    doc: str,
    low: int,
    high: int,
    unit: str = "",
    *,
    key: str = "",
    important: bool = False,
    own: bool = False,
) -> Any:
    """Declare a whole number with its allowed range (both ends included) and unit."""
    return _declare(default, Rule(key, int, doc, unit=unit, low=low, high=high, important=important, own=own))


def switch(default: bool, doc: str, *, key: str = "", important: bool = False, own: bool = False) -> Any:
    """Declare a true/false setting."""
    return _declare(default, Rule(key, bool, doc, important=important, own=own))


def choice(default: enum.StrEnum, doc: str, *, important: bool = False, own: bool = False) -> Any:
    """Declare a setting that takes the members of `default`'s enumeration."""
    return _declare(default, Rule("", str, doc, choices=type(default), important=important, own=own))


def text(
    default: str,
    doc: str,
    *,
    key: str = "",
    pattern: str = r"[^\x00-\x1f]*",
    allowed: str = "",
    important: bool = False,
    own: bool = False,
) -> Any:
    """Declare a text setting; `pattern` must match the whole value and `allowed` says it in words."""
    return _declare(
        default, Rule(key, str, doc, pattern=pattern, allowed=allowed, important=important, own=own)
    )


def _declare(default: Value, rule: Rule) -> Any:
    return dataclasses.field(default=default, metadata={"rule": rule})


def rules(table: type[Any]) -> dict[str, Rule]:
    """Attribute name -> rule of a settings dataclass; a rule without a key gets the attribute's camelCase."""
    found: dict[str, Rule] = {}
    for declared in dataclasses.fields(table):
        rule: Rule = declared.metadata["rule"]
        found[declared.name] = rule if rule.key else dataclasses.replace(rule, key=_camel(declared.name))
    return found


def fold(key: str) -> str:
    """The form under which spellings of one key meet: `mapedFile...` and `mappedFile...` are the same key."""
    return key.strip().replace("apped", "aped")


def value_text(value: Value) -> str:
    """A value as a properties file writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
