"""The exact text of RocketMQ's config files, as fastjson prints it."""

from __future__ import annotations

import pytest

from shmq.broker.pretty_json import prepared_row, prepared_table, pretty_json
from shmq.protocol import fastjson

CASES = [
    ({}, "{}"),
    ({"a": 1}, '{\n\t"a":1\n}'),
    ({"a": {}, "b": []}, '{\n\t"a":{},\n\t"b":[]\n}'),
    ({"a": True, "b": None, "c": "x"}, '{\n\t"a":true,\n\t"b":null,\n\t"c":"x"\n}'),
    ({"v": {"counter": 7, "timestamp": 1}}, '{\n\t"v":{\n\t\t"counter":7,\n\t\t"timestamp":1\n\t}\n}'),
    ({"t@g": {0: 15, 1: 7}}, '{\n\t"t@g":{0:15,1:7\n\t}\n}'),
    ({"g": ["a", "b"]}, '{\n\t"g":["a","b"]\n}'),
    ({'q"\\': "ä\n\t"}, '{\n\t"q\\"\\\\":"ä\\n\\t"\n}'),
]


@pytest.mark.parametrize(("value", "text"), CASES)
def test_text_is_fastjsons(value: dict[str, object], text: str) -> None:
    assert pretty_json(value).decode() == text


@pytest.mark.parametrize(("value", "text"), CASES)
def test_text_is_read_back(value: dict[str, object], text: str) -> None:
    assert fastjson.loads(text.encode()) == value


def test_a_whole_topics_file_looks_like_rocketmqs() -> None:
    value = {
        "dataVersion": {"counter": 1, "stateVersion": 0, "timestamp": 1700000000000},
        "topicConfigTable": {"T": {"attributes": {}, "order": False, "perm": 6, "topicName": "T"}},
    }
    assert pretty_json(value).decode().splitlines() == [
        "{",
        '\t"dataVersion":{',
        '\t\t"counter":1,',
        '\t\t"stateVersion":0,',
        '\t\t"timestamp":1700000000000',
        "\t},",
        '\t"topicConfigTable":{',
        '\t\t"T":{',
        '\t\t\t"attributes":{},',
        '\t\t\t"order":false,',
        '\t\t\t"perm":6,',
        '\t\t\t"topicName":"T"',
        "\t\t}",
        "\t}",
        "}",
    ]


@pytest.mark.parametrize("table", [{}, {"T": {"perm": 6}}, {"a": {"x": {}}, "b": {"y": {"z": [1]}}}])
def test_prepared_rows_make_the_same_text(table: dict[str, dict[str, object]]) -> None:
    rows = [prepared_row(name, value, 1) for name, value in table.items()]
    assert pretty_json({"v": 1, "t": prepared_table(rows, 1)}) == pretty_json({"v": 1, "t": table})
