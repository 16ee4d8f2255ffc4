"""Serialization 0: the JSON header, RocketMQ's default (Apache RocketMQ 5.3, RemotingCommand.java).

    {"code":105,"extFields":{"topic":"T1"},"flag":0,"language":"JAVA","opaque":7,
     "remark":"...","serializeTypeCurrentRPC":"JSON","version":479}

Written compact, keys in alphabetical order, absent members left out, ext values always texts. Read
tolerantly: strict JSON by orjson, anything else by ``fastjson``; unknown keys are ignored; numbers and
booleans among the ext values become texts (Node and C++ clients send them); ``opaque`` must be an int32.
"""

from typing import Any

import orjson

from shmq.base.errors import FrameFault
from shmq.protocol import fastjson
from shmq.protocol.codes import LanguageCode

_LANGUAGE_NAMES = {int(code): code.name for code in LanguageCode}
_LANGUAGE_CODES = {code.name: int(code) for code in LanguageCode}

HeaderParts = tuple[int, int, int, int, int, str | None, dict[str, str] | None]
"""code, flag, opaque, language, version, remark, ext"""


def encode_json_header(
    code: int,
    flag: int,
    opaque: int,
    language: int,
    version: int,
    remark: str | None,
    ext: dict[str, str] | None,
) -> bytes:
    """Return the header bytes."""
    members: dict[str, Any] = {"code": code}
    if ext is not None:
        members["extFields"] = ext
    members["flag"] = flag
    members["language"] = _LANGUAGE_NAMES.get(language, "OTHER")
    members["opaque"] = opaque
    if remark is not None:
        members["remark"] = remark
    members["serializeTypeCurrentRPC"] = "JSON"
    members["version"] = version
    return orjson.dumps(members)


def decode_json_header(header: memoryview) -> HeaderParts:
    """Read header bytes; ``FrameFault`` when they are no JSON object or a number is missing or too large."""
    try:
        members = orjson.loads(header)
    except orjson.JSONDecodeError:
        try:
            members = fastjson.loads(header)
        except ValueError as fault:
            raise FrameFault(f"JSON header cannot be read: {fault}") from fault
    if type(members) is not dict:
        raise FrameFault("JSON header is not an object")
    remark = members.get("remark")
    return (
        _number(members, "code", None),
        _number(members, "flag", 0),
        _number(members, "opaque", 0),
        _language(members.get("language", "JAVA")),
        _number(members, "version", 0),
        remark if remark is None else ext_text(remark),
        _ext(members.get("extFields")),
    )


def _language(value: object) -> int:
    """Read a language by its name or number; an unknown one is no reason to refuse a command."""
    if type(value) is str:
        return _LANGUAGE_CODES.get(value, LanguageCode.OTHER)
    return value if type(value) is int and value in _LANGUAGE_NAMES else LanguageCode.OTHER


def _number(members: dict[str, Any], name: str, default: int | None) -> int:
    value = members.get(name, default)
    if type(value) is str:
        try:
            value = int(value)
        except ValueError:
            value = None
    if type(value) is not int or not -0x80000000 <= value <= 0x7FFFFFFF:
        raise FrameFault(f"JSON header: {name} must be a 32-bit number")
    return value


def _ext(members: object) -> dict[str, str] | None:
    if members is None:
        return None
    if type(members) is not dict:
        raise FrameFault("JSON header: extFields must be an object")
    for name, value in members.items():
        if type(value) is not str or type(name) is not str:
            break
    else:
        return members
    return {ext_text(name): ext_text(value) for name, value in members.items() if value is not None}


def ext_text(value: object) -> str:
    """Return an ext value as the text RocketMQ's reader makes of it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    return str(value)
