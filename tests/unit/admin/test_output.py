"""How results are printed: tables, JSON documents, streams, partial failures."""

from __future__ import annotations

import json

import pytest

from shmq.admin.output import Column, Failure, Report, Stream, local_second, local_time, rfc3339, show

COLUMNS = (Column("#Name", "name", 8), Column("#N", "count"))


def test_table_keeps_mqadmin_headers_and_least_widths(capsys: pytest.CaptureFixture[str]) -> None:
    show(Report("Things", [{"name": "a", "count": 1}], COLUMNS), as_json=False)
    assert capsys.readouterr().out == "#Name     #N\na         1\n"


def test_a_long_name_widens_its_column_and_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    show(Report("Things", [{"name": "n" * 60, "count": 1}], COLUMNS), as_json=False)
    header, row = capsys.readouterr().out.splitlines()
    assert row == "n" * 60 + "  1"
    assert header.endswith("#N") and len(header) == 60 + 2 + len("#N")


def test_an_empty_result_is_a_table_with_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    show(Report("Things", [], COLUMNS), as_json=False)
    assert capsys.readouterr().out == "#Name     #N\n"


def test_headers_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show(Report("Things", [{"name": "a", "count": 1}], COLUMNS), as_json=False, headers=False)
    assert capsys.readouterr().out == "a         1\n"


def test_json_is_one_document_with_kind_items_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("Things", [{"name": "ä"}], COLUMNS, errors=[Failure("host:1", 2, "busy")], more={"x": 1})
    show(report, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "apiVersion": 1,
        "kind": "Things",
        "items": [{"name": "ä"}],
        "errors": [{"target": "host:1", "code": 2, "text": "busy"}],
        "x": 1,
    }


def test_partial_failures_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show(Report("Things", [], lines=["done"], errors=[Failure("host:1", 2, "busy")]), as_json=False)
    captured = capsys.readouterr()
    assert captured.out == "done\n"
    assert captured.err == "host:1: busy\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_stream_prints_one_line_per_item(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    show(Stream([("one", {"n": 1}), ("two", {"n": 2})]), as_json=as_json)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2] if as_json else lines == ["one", "two"]


def test_times_are_local_with_milliseconds_and_empty_for_zero() -> None:
    assert local_time(0) == ""
    assert local_time(1_741_058_553_104).endswith(",104")
    assert local_second(0) == "N/A"
    assert "," not in local_second(1_741_058_553_104)
    assert rfc3339(0) is None
    moment = rfc3339(1_741_058_553_104)
    assert moment is not None and ".104" in moment
