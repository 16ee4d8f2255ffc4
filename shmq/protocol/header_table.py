"""Typed headers: the table of a header class's fields, and the readers and writers made from it.

A typed header is any slots dataclass (``header_class`` makes them). Its annotations are the table: ``str``,
``bool``, ``bytes``, ``I32``, ``I64`` (plain ``int`` is the same), each possibly ``| None``; a field without a
default is mandatory. Names on the wire are the Python names in camel case, except those in the class's
``WIRE``; ``SHORT`` gives the one-letter names of the V2 send family. All three header codecs are driven from
this table, made at a class's first use and kept:

    from_fields / to_cbor   CBOR: positional array [header version, value, value, ...] of typed values
    from_ext / to_ext       JSON and ROCKETMQ binary: map of texts, absent values left out

Types and ranges are checked here and nowhere else (rules between fields: the class's ``__post_init__``); a
wrong or missing value is ``InvalidParameter`` naming the field. Fields are only ever added at the end: a
shorter array means defaults for the rest, what a longer one has more is ignored. The four functions are
generated as text and compiled once, as dataclasses do it: a loop over the fields costs three times as much
per message.
"""

import base64
import binascii
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, cast

from shmq.base.errors import InvalidParameter
from shmq.protocol.cbor_items import (
    FALSE,
    NULL,
    TRUE,
    cbor_array_head,
    cbor_bytes,
    cbor_integer,
    cbor_text,
)

HEADER_VERSION = 1

I32 = Annotated[int, "i32"]
I64 = Annotated[int, "i64"]

RANGES = {"i32": (-0x80000000, 0x7FFFFFFF), "i64": (-0x8000000000000000, 0x7FFFFFFFFFFFFFFF)}
_KIND_TEXTS = {
    "str": "a text",
    "bool": "true or false",
    "bytes": "bytes (in text headers as base64)",
    "i32": "a 32-bit number",
    "i64": "a 64-bit number",
}


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One row of a header's table."""

    name: str
    wire: str
    short: str | None
    kind: str
    mandatory: bool
    default: Any


@dataclass(frozen=True, slots=True)
class HeaderCodec:
    """A header class's table and the functions made from it."""

    table: tuple[HeaderField, ...]
    from_fields: Callable[[list[Any]], Any]
    to_cbor: Callable[[Any], bytes]
    from_ext: Callable[[dict[str, str]], Any]
    to_ext: Callable[[Any], dict[str, str]]


def _make_codec(header_class: type) -> HeaderCodec:
    table = table_of(header_class)
    writes_short = bool(getattr(header_class, "WRITES_SHORT", False))
    scope = _scope(header_class, table)
    return HeaderCodec(
        table,
        from_fields=_compile(scope, "from_fields", _from_fields_lines(table)),
        to_cbor=_compile(scope, "to_cbor", _to_cbor_lines(table)),
        from_ext=_compile(scope, "from_ext", _from_ext_lines(table)),
        to_ext=_compile(scope, "to_ext", _to_ext_lines(table, writes_short)),
    )


codec_of: Callable[[type[Any]], HeaderCodec] = cast(Any, cache(_make_codec))
"""Returns the codec of a header class, made on the first call."""


def table_of(header_class: type) -> tuple[HeaderField, ...]:
    """Return the rows of a header class in positional order; ``TypeError`` for an annotation without a
    kind."""
    hints = typing.get_type_hints(header_class, include_extras=True)
    wire_names: dict[str, str] = getattr(header_class, "WIRE", {})
    short_names: dict[str, str] = getattr(header_class, "SHORT", {})
    rows = []
    for member in fields(header_class):
        default = None if member.default is MISSING else member.default
        rows.append(
            HeaderField(
                name=member.name,
                wire=wire_names.get(member.name) or _camel(member.name),
                short=short_names.get(member.name),
                kind=_kind(hints[member.name]),
                mandatory=member.default is MISSING,
                default=default,
            )
        )
    return tuple(rows)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Annotated:
        return str(hint.__metadata__[0])
    kind = "i64" if hint is int else getattr(hint, "__name__", "")
    if kind not in _KIND_TEXTS:
        raise TypeError(f"{hint!r}: header fields are str, bool, bytes, int, I32 or I64")
    return kind


# Generated code. In its scope: cls, table, D<i> (default of field i), v<i> (its value), HIGHEST (over every
# range), the helpers below.

_TYPE_TESTS = {
    "str": "type({v}) is not str",
    "bool": "type({v}) is not bool",
    "bytes": "type({v}) is not bytes",
    "i32": "type({v}) is not int or not -0x80000000 <= {v} <= 0x7FFFFFFF",
    "i64": "type({v}) is not int or not -0x8000000000000000 <= {v} <= 0x7FFFFFFFFFFFFFFF",
}

_CBOR_FORMS = {
    "str": "cbor_text({v})",
    "bool": "TRUE if {v} else FALSE",
    "bytes": "cbor_bytes({v})",
    "i32": "cbor_integer({v})",
    "i64": "cbor_integer({v})",
}

_TEXT_FORMS = {
    "str": "v",
    "bool": "'true' if v else 'false'",
    "bytes": "base64_text(v)",
    "i32": "str(v)",
    "i64": "str(v)",
}


def _from_fields_lines(table: tuple[HeaderField, ...]) -> list[str]:
    names = "".join(f", v{i}" for i in range(len(table)))
    lines = [
        "def from_fields(values):",
        f" if len(values) != {len(table) + 1} or type(values[0]) is not int:",
        "  values = fitted(cls, table, values)",
        f" _{names or ', *_'} = values",
    ]
    for i, row in enumerate(table):
        test = _TYPE_TESTS[row.kind].format(v=f"v{i}")
        if row.mandatory:
            lines.append(f" if {test}: refuse(cls, table[{i}], v{i})")
        else:
            lines.append(f" if v{i} is None: v{i} = D{i}")
            lines.append(f" elif {test}: refuse(cls, table[{i}], v{i})")
    return [*lines, f" return cls({names[2:]})"]


def _to_cbor_lines(table: tuple[HeaderField, ...]) -> list[str]:
    start = cbor_array_head(len(table) + 1) + cbor_integer(HEADER_VERSION)
    items = []
    for row in table:
        item = _CBOR_FORMS[row.kind].format(v="v")
        if row.mandatory:
            items.append(_CBOR_FORMS[row.kind].format(v=f"h.{row.name}"))
        else:
            items.append(f"NULL if (v := h.{row.name}) is None else {item}")
    return ["def to_cbor(h):", f" return b''.join(({start!r}, {', '.join(items)}))"]


def _from_ext_lines(table: tuple[HeaderField, ...]) -> list[str]:
    lines = ["def from_ext(ext):", " get = ext.get"]
    if any(row.short for row in table):
        marker = next(row.short for row in table if row.short)
        lines += [f" if {marker!r} in ext:"]
        lines += [f"  v{i} = get({row.short or row.wire!r})" for i, row in enumerate(table)]
        lines += [" else:"]
        lines += [f"  v{i} = get({row.wire!r})" for i, row in enumerate(table)]
    else:
        lines += [f" v{i} = get({row.wire!r})" for i, row in enumerate(table)]
    for i, row in enumerate(table):
        absent = f"v{i} is None" if row.kind == "str" else f"not v{i}"
        lines.append(
            f" if {absent}: " + (f"refuse(cls, table[{i}], None)" if row.mandatory else f"v{i} = D{i}")
        )
        if row.kind in RANGES:
            low, high = RANGES[row.kind]
            lines += [" else:", f"  t = v{i}", "  try: v = int(t)", "  except ValueError: v = HIGHEST"]
            lines += [f"  if not {low} <= v <= {high}: refuse(cls, table[{i}], t)", f"  v{i} = v"]
        elif row.kind == "bool":  # as Java's parseBoolean: anything but "true", in any case, is false
            lines.append(f" else: v{i} = v{i} == 'true' or v{i}.lower() == 'true'")
        elif row.kind == "bytes":
            lines.append(f" else: v{i} = parse_bytes(cls, table[{i}], v{i})")
    return [*lines, f" return cls({', '.join(f'v{i}' for i in range(len(table)))})"]


def _to_ext_lines(table: tuple[HeaderField, ...], short: bool) -> list[str]:
    lines = ["def to_ext(h):", " ext = {}"]
    for row in table:
        wire = (row.short if short else None) or row.wire
        lines.append(f" v = h.{row.name}")
        lines.append(f" if v is not None: ext[{wire!r}] = {_TEXT_FORMS[row.kind]}")
    return [*lines, " return ext"]


def _scope(header_class: type, table: tuple[HeaderField, ...]) -> dict[str, Any]:
    return {
        "cls": header_class,
        "table": table,
        "fitted": _fitted,
        "refuse": _refuse,
        "HIGHEST": 1 << 64,
        "parse_bytes": _parse_bytes,
        "base64_text": _base64_text,
        "cbor_text": cbor_text,
        "cbor_bytes": cbor_bytes,
        "cbor_integer": cbor_integer,
        "NULL": NULL,
        "TRUE": TRUE,
        "FALSE": FALSE,
        **{f"D{i}": row.default for i, row in enumerate(table)},
    }


def _compile(scope: dict[str, Any], name: str, lines: list[str]) -> Callable[..., Any]:
    exec("\n".join(lines), scope)  # text made above from our own class definitions only
    function: Callable[..., Any] = scope[name]
    return function


# Helpers of the generated code.

_PLAIN_TYPES = frozenset({str, int, bool, bytes})


def _fitted(header_class: type, table: tuple[HeaderField, ...], values: list[Any]) -> list[Any]:
    """Bring an array of another header version to this one's length."""
    if not values or type(values[0]) is not int or values[0] < 1:
        raise InvalidParameter(f"{header_class.__name__}: the header array does not begin with its version")
    length = len(table) + 1
    if not all(value is None or type(value) in _PLAIN_TYPES for value in values[length:]):
        raise InvalidParameter(
            f"{header_class.__name__}: values of a header are null, bool, int, text or bytes"
        )
    return values[:length] + [None] * (length - len(values))


def _refuse(header_class: type, row: HeaderField, value: object) -> typing.NoReturn:
    what = "is missing" if value is None else f"is {_shown(value)}"
    raise InvalidParameter(
        f"{header_class.__name__}: field {row.wire} {what}; it must be {_KIND_TEXTS[row.kind]}"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 64 else text[:61] + "..."


def _parse_bytes(header_class: type, row: HeaderField, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse(header_class, row, text)


def _base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode()
