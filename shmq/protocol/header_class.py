"""`@header`: a slots dataclass whose methods are made when somebody needs them.

There are about a hundred header classes, and a process uses some ten of them. `@dataclass(slots=True)`
compiles three functions for each while its module is imported: a seventh of what a broker's processes spend
on imports. Here `__init__` is compiled when the first object of a class is made, and comparing and printing,
which only tests and logs do, look at the fields one by one. To its users such a class is that dataclass.

Fields have plain defaults: no factories, nothing keyword-only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

Header = TypeVar("Header")


@dataclass_transform()
def header(header_class: type[Header]) -> type[Header]:
    """Make a header class of annotated fields."""
    made: Any = dataclasses.dataclass(slots=True, init=False, repr=False, eq=False)(header_class)
    made.__init__, made.__repr__ = _first_init, _text
    made.__eq__, made.__hash__ = _is_equal, None
    result: type[Header] = made
    return result


def _first_init(self: Any, *values: object, **named: object) -> None:
    """The class's `__init__` until there is a better one: makes that, and calls it."""
    own: Any = type(self)
    own.__init__ = _compiled_init(own)
    own.__init__(self, *values, **named)


def _compiled_init(header_class: type[Any]) -> Callable[..., None]:
    scope: dict[str, Any] = {}
    parameters, lines = ["self"], []
    for number, field in enumerate(dataclasses.fields(header_class)):
        parameters.append(field.name)
        if field.default is not dataclasses.MISSING:
            parameters[-1] += f"=D{number}"
            scope[f"D{number}"] = field.default
        lines.append(f" self.{field.name} = {field.name}")
    if hasattr(header_class, "__post_init__"):
        lines.append(" self.__post_init__()")
    # text made of our own class definitions only
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *(lines or [" pass"])]), scope)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{header_class.__qualname__}.__init__"
    return init


def _is_equal(self: Any, other: Any) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    names = [field.name for field in dataclasses.fields(self)]
    return all(getattr(self, name) == getattr(other, name) for name in names)


def _text(self: Any) -> str:
    fields = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self))
    return f"{type(self).__qualname__}({fields})"
