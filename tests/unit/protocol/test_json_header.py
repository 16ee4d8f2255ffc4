"""The JSON header: what it tolerates from other clients and what it refuses."""

import pytest

from shmq.base.errors import FrameFault
from shmq.protocol.codes import LanguageCode
from shmq.protocol.json_header import decode_json_header, encode_json_header


def read(text):
    return decode_json_header(memoryview(text if isinstance(text, bytes) else text.encode()))


def test_a_header_is_written_compact_sorted_and_without_absent_members():
    assert encode_json_header(0, 1, 7, LanguageCode.PYTHON, 479, None, None) == (
        b'{"code":0,"flag":1,"language":"PYTHON","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}'
    )
    assert encode_json_header(1, 1, 7, 99, 479, "why", {}) == (
        b'{"code":1,"extFields":{},"flag":1,"language":"OTHER","opaque":7,"remark":"why",'
        b'"serializeTypeCurrentRPC":"JSON","version":479}'
    )


def test_control_characters_are_escaped_and_read_back():
    raw = encode_json_header(310, 0, 1, 3, 479, None, {"i": "a\x01b\x02", "ü": "中"})
    assert b"\\u0001" in raw and "中".encode() in raw
    assert read(raw)[6] == {"i": "a\x01b\x02", "ü": "中"}


def test_missing_members_take_rocketmqs_defaults():
    assert read('{"code":10}') == (10, 0, 0, LanguageCode.JAVA, 0, None, None)


@pytest.mark.parametrize(
    "text",
    [
        '{"opaque":3,"code":10,"flag":2,"language":"GO","version":317,"remark":"r","extFields":{"a":"1"}}',
        ' { "code" : 10 , "flag":2,\n"opaque":3,"language":9,"version":"317","remark":"r",'
        ' "extFields":{"a":1}, "x":[1]}',
        "{'code':10,'flag':2,'opaque':3,'language':'GO','version':317,'remark':'r','extFields':{'a':'1'}}",
        '{code:"10",flag:2,opaque:3,language:"GO",version:317,remark:"r",extFields:{a:1}}',
        '{"code":9,"code":10,"flag":2,"opaque":3,"language":"GO","version":317,"remark":"r","extFields":{"a":1}}',
    ],
)
def test_every_spelling_that_rocketmqs_reader_accepts_is_accepted(text):
    assert read(text) == (10, 2, 3, LanguageCode.GO, 317, "r", {"a": "1"})


def test_ext_values_become_texts():
    ext = '{"i":1,"big":9223372036854775807,"t":true,"f":false,"d":1.5,"n":null,"l":[1,"a"],"o":{"k":1}}'
    assert read('{"code":1,"extFields":' + ext + "}")[6] == {
        "i": "1",
        "big": "9223372036854775807",
        "t": "true",
        "f": "false",
        "d": "1.5",
        "l": '[1,"a"]',
        "o": '{"k":1}',
    }


def test_an_unknown_language_is_no_reason_to_refuse():
    assert read('{"code":1,"language":"KLINGON"}')[3] == LanguageCode.OTHER
    for odd in ("null", "[]", "{}", "99999999999", "-1", "1.5", "true"):
        assert read('{"code":1,"language":' + odd + "}")[3] == LanguageCode.OTHER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "null",
        "{",
        '{"code":10} x',
        '{"flag":0}',
        '{"code":"ten"}',
        '{"code":null}',
        '{"code":10,"opaque":4294967295}',
        '{"code":10,"opaque":-2147483649}',
        '{"code":10,"opaque":1.5}',
        '{"code":10,"flag":true}',
        '{"code":10,"extFields":[]}',
        '{"code":10,"extFields":"x"}',
        b'{"code":10,"remark":"\xff"}',
        "[" * 100_000,
        '{"a":' * 5000,
        '{"code":' + "9" * 5000 + "}",
    ],
)
def test_anything_else_is_a_frame_fault(text):
    with pytest.raises(FrameFault):
        read(text)
