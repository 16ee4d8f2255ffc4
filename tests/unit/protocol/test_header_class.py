"""Header classes are slots dataclasses in all but when their methods are made."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
from typing import Any

import pytest

from shmq.protocol import headers, internal
from shmq.protocol.header_class import header

MODULES = [
    internal,
    *(
        importlib.import_module(f"{headers.__name__}.{found.name}")
        for found in pkgutil.iter_modules(headers.__path__)
    ),
]
HEADERS = sorted(
    {
        member
        for module in MODULES
        for name, member in inspect.getmembers(module, inspect.isclass)
        if name.endswith("Header") and dataclasses.is_dataclass(member)
    },
    key=lambda found: found.__name__,
)


def members(header_class: type) -> dict[str, Any]:
    """The body of a class statement with these fields."""
    fields = dataclasses.fields(header_class)
    body: dict[str, Any] = {"__annotations__": {field.name: field.type for field in fields}}
    body |= {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    if "__post_init__" in vars(header_class):
        body["__post_init__"] = vars(header_class)["__post_init__"]
    return body


def plain(header_class: type) -> Any:
    """What `@dataclass(slots=True)` makes of the same fields."""
    return dataclasses.dataclass(slots=True)(type(header_class.__name__, (), members(header_class)))


def fresh(header_class: type) -> Any:
    """The same as a header class of which nobody has made an object."""
    return header(type(header_class.__name__, (), members(header_class)))


def made(header_class: Any, values: list[Any], named: dict[str, Any]) -> object:
    """What its user sees of an object, or the error's kind."""
    try:
        one = header_class(*values, **named)
    except Exception as error:
        return type(error)
    assert one == copy.copy(one) and one != object()
    return repr(one), dataclasses.astuple(one), dataclasses.replace(one) == one


@pytest.mark.parametrize("header_class", HEADERS, ids=lambda found: str(found.__name__))
def test_a_header_class_is_what_a_dataclass_of_its_fields_is(header_class: Any) -> None:
    fields = dataclasses.fields(header_class)
    needed = [n for n, field in enumerate(fields) if field.default is dataclasses.MISSING]
    names = [field.name for field in fields]
    wanted = plain(header_class)
    calls: list[tuple[list[Any], dict[str, Any]]] = [
        ([], {}),
        ([*range(len(names))], {}),
        ([*range(len(names) + 1)], {}),
        ([], {name: n for n, name in enumerate(names)}),
        ([], {names[n]: n for n in needed} if names else {}),
        ([*range(len(needed))], {}),
        ([], {"nobody": 1}),
    ]
    for values, named in calls:
        assert made(fresh(header_class), values, named) == made(wanted, values, named), (values, named)
    slots = [slot for base in header_class.__mro__[:-1] for slot in base.__slots__]
    assert slots == names and header_class.__match_args__ == wanted.__match_args__
    assert "__dict__" not in dir(header_class)


def test_there_are_headers_to_look_at() -> None:
    assert len(HEADERS) > 80


@header
class TwoHeader:
    """An example."""

    a: int
    b: str = "x"


@header
class AlsoHeader:
    """Another one with the same fields."""

    a: int
    b: str = "x"


def test_objects_compare_by_class_and_fields_and_have_no_hash() -> None:
    assert TwoHeader(1) == TwoHeader(1, "x") != TwoHeader(2)
    assert TwoHeader(1) != AlsoHeader(1)  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError, match="unhashable"):
        hash(TwoHeader(1))
    assert pickle.loads(pickle.dumps(TwoHeader(3))) == TwoHeader(3)


def test_a_wrong_call_is_told_with_the_class_also_the_first_time() -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match=r"AlsoHeader.__init__\(\) missing 1 required .* 'a'"):
            AlsoHeader()  # type: ignore[call-arg]
