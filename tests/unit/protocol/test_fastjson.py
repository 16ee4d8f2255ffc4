"""The tolerant JSON reader and its corpus: what RocketMQ's peers really write."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.model.message_queue import MessageQueue
from shmq.protocol.fastjson import loads

QUEUE = MessageQueue("t", "b", 0)

CORPUS = {
    "integer names": (
        '{"brokerAddrs":{0:"10.0.0.1:10911",1:"h:2"}}',
        {"brokerAddrs": {0: "10.0.0.1:10911", 1: "h:2"}},
    ),
    "queue names": (
        '{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:{"maxOffset":5,"minOffset":0}}}',
        {"offsetTable": {QUEUE: {"maxOffset": 5, "minOffset": 0}}},
    ),
    "other object names": ('{{"b":1,"a":"x"}:2}', {(("a", "x"), ("b", "1")): 2}),
    "bare names": ("{code:1,extFields:{a$b:2},x-y.z:3}", {"code": 1, "extFields": {"a$b": 2}, "x-y.z": 3}),
    "single quotes": ("{'a':'it\\'s',\"b\":'\"'}", {"a": "it's", "b": '"'}),
    "negative integer name": ("{-1:2}", {-1: 2}),
    "a comma too many": ("[1,2,]", [1, 2]),
    "twice the same name": ('{"a":1,"a":2}', {"a": 2}),
    "numbers": ("[0.0,1.6E-5,-3,12345678901234567890,1e2]", [0.0, 1.6e-05, -3, 12345678901234567890, 100.0]),
    "words": ("[true,false,null,NaN]", [True, False, None, None]),
    "escapes": ('"\\u0001\\n\\t\\/\\\\\\"\\u4e2d\\ud83d\\ude00"', '\x01\n\t/\\"中\U0001f600'),
    "blanks": (' \r\n{ "a" : [ 1 , 2 ] , b : { } }\t', {"a": [1, 2], "b": {}}),
    "nothing inside": ("[{},[],'']", [{}, [], ""]),
    "reference": (
        '{"consumerTable":{"c1":{"x":1},"c2":{"$ref":"$.consumerTable.c1"}}}',
        {"consumerTable": {"c1": {"x": 1}, "c2": {"x": 1}}},
    ),
    "reference into a list": ('{"a":[{"x":1}],"b":{"$ref":"$.a[0]"}}', {"a": [{"x": 1}], "b": {"x": 1}}),
    "reference to an integer name": (
        '{"a":{0:{"x":1}},"b":{"$ref":"$.a.0"}}',
        {"a": {0: {"x": 1}}, "b": {"x": 1}},
    ),
    "reference to nowhere": ('{"a":{"$ref":"$.b.c"}}', {"a": None}),
    "circle": ('{"a":{"$ref":"$"}}', {"a": None}),
    "circle of two": (
        '{"a":{"x":{"$ref":"$.b"}},"b":{"y":{"$ref":"$.a"}}}',
        {"a": {"x": None}, "b": {"y": None}},
    ),
    "reference to a reference": (
        '{"a":{"$ref":"$.b"},"b":{"$ref":"$.c"},"c":[1]}',
        {"a": None, "b": [1], "c": [1]},
    ),
}


@pytest.mark.parametrize("text,value", CORPUS.values(), ids=CORPUS.keys())
def test_the_corpus_is_read(text, value):
    assert loads(text) == value
    assert loads(text.encode()) == value
    assert loads(memoryview(text.encode())) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda t: t != "$ref"), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(json_values, st.booleans())
def test_standard_json_means_what_it_always_means(value, ascii_only):
    assert loads(json.dumps(value, ensure_ascii=ascii_only)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[",
        "]",
        "{a}",
        "{a:}",
        "{:1}",
        '{"a" 1}',
        "[1 2]",
        "{a:1 b:2}",
        "[,1]",
        "'open",
        '"open\\',
        '"open\\"',
        "word",
        "1 2",
        "{}{}",
        "-",
        "[" * 100_000,
        '{"a":' * 100_000,
        "{" * 100_000,
        "1" * 500,
    ],
    ids=lambda text: text[:12],
)
def test_anything_else_is_a_value_error(text):
    with pytest.raises(ValueError):
        loads(text)


@given(st.text(alphabet="{}[]:,\"'\\ua10.-$ref ", max_size=40))
def test_random_text_is_read_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        loads(text)


def test_references_cannot_make_a_small_text_grow():
    levels = ",".join(f'"l{i}":[{{"$ref":"$.l{i + 1}"}},{{"$ref":"$.l{i + 1}"}}]' for i in range(40))
    found = loads("{" + levels + ',"l40":["x"]}')
    assert found["l39"] == [["x"], ["x"]] and found["l0"] == [None, None]
