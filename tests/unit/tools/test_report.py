"""The reports: whole, well-formed, one class a page; nothing of a run is left out."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from bench.catalogue import TARGETS
from bench.durability import Durability
from bench.goals import Goal
from bench.report import html, markdown, svg
from bench.result import Row, Turn
from bench.results import Results
from bench.workload import Workload
from histogram import Histogram

RUN = {"shmq": "0.1.0 abc", "rounds": "3", "seconds": "5 a turn", "load": "0.1"}
GOAL = Goal("shmq", "rate", ">=", 3, "redis")


def row(name: str = "sync", kind: Durability = Durability.TIMED, factor: float = 1.0) -> Row:
    workload = Workload(
        name,
        f"title <of> {name}",
        "send",
        ("shmq", "redis", "nats"),
        sweep=("rate against size", 10 * factor),
    )
    found = Row(workload, kind, missing={"nats": "no <nats>"})
    for number in range(3):
        for system, rate in (("shmq", 300.0), ("redis", 100.0 + number)):
            latency = Histogram()
            latency.record_all([1_000 * step for step in range(1, 500)])
            figures = {"rate": rate * factor, "p50": 250.0, "foreign_cpu": 0.0}
            found.turns.append(Turn(system, number, figures, latency))
    found.verdicts = [(GOAL.text, GOAL.verdict(found))]
    return found


@pytest.fixture
def results() -> Results:
    rows = [row(), row("sync-2", factor=2.0), row("flush", Durability.SYNCED)]
    settings = {Durability.TIMED: {"redis": {"appendfsync": "everysec"}}}
    return Results({"cores": "2"}, {"rounds": "3"}, rows, settings)


def drawings(page: str) -> list[ElementTree.Element]:
    """Every SVG of a page, parsed: a drawing that is not well-formed fails here."""
    pieces = [f"<svg{piece.partition('</svg>')[0]}</svg>" for piece in page.split("<svg")[1:]]
    return [ElementTree.fromstring(piece) for piece in pieces]


def test_a_page_has_the_rows_of_its_class_and_no_other(results: Results) -> None:
    page = html.page(results, Durability.TIMED)
    assert "sync: title &lt;of&gt; sync" in page and "flush" not in page
    assert "missing: nats: no &lt;nats&gt;" in page
    assert "reached: 2.97 (2.94 .. 3, 3 rounds)" in page
    assert "everysec" in page and "replicated" in page, "settings, and the class that is not there yet"
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "one file: nothing is loaded"
    # Bars and a latency curve for each of two rows, and the sweep's curve.
    assert len(drawings(page)) == 5
    assert "everysec" not in html.page(results, Durability.SYNCED)


def test_json_has_every_round_and_its_latencies(results: Results) -> None:
    facts = json.loads(json.dumps(results.as_json()))
    assert len(facts["rows"]) == 3 and len(facts["rows"][0]["turns"]) == 6
    turn = facts["rows"][0]["turns"][0]
    assert turn["system"] == "shmq" and turn["figures"]["rate"] == 300
    assert sum(turn["latency_ns"].values()) == 499
    assert facts["rows"][0]["goals"][0]["verdict"].startswith("NOT reached")
    assert "replicated" in facts["not_there_yet"]


def test_publishing_replaces_only_what_was_measured(results: Results, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marked = "".join(
        f"<!-- bench:{name} -->\nold {name}\n<!-- /bench -->\n" for name in ("machine", "timed", "page-cache")
    )
    page.write_text(f"before\n{marked}after\n")
    assert markdown.publish(results, page) == ["machine", "timed"]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "old page-cache" in text and "old timed" not in text
    assert "| redis | 101 ±1% | 250.0 | 2.97 (2.94 .. 3, 3 rounds) |" in text
    markdown.publish(results, page)
    assert page.read_text() == text, "publishing again changes nothing"


def test_what_growth_costs_and_the_soak_have_places_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    names = ("machine", "timed", "scaling", "soak")
    page.write_text("".join(f"<!-- bench:{name} -->\nold {name}\n<!-- /bench -->\n" for name in names))
    rows = [row(name) for name in ("connections-1", "soak", "send-100")]
    rows[1].workload = replace(rows[1].workload, kind="soak")
    assert set(markdown.publish(Results({}, RUN, rows), page)) == {"scaling", "soak"}
    text = page.read_text()
    assert "old machine" in text and "old timed" in text and "old soak" not in text
    scaling = text.partition("<!-- bench:scaling -->")[2].partition("<!-- /bench -->")[0]
    assert "connections-1" in scaling and "send-100" in scaling and "shmq 0.1.0 abc, rounds 3" in scaling


def test_the_goals_are_replaced_by_a_run_of_all_targets_only(results: Results, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:goals -->\nold\n<!-- /bench -->\n")
    assert markdown.publish(results, page) == []
    rows = [Row(workload, workload.classes[0]) for workload in TARGETS]
    rows[0].verdicts, rows[1].verdicts = [("a < b", "NOT reached: 3")], [("b < c", "reached: 1")]
    assert markdown.publish(Results({}, RUN, rows), page) == ["goals"]
    lines = page.read_text().splitlines()
    assert lines[3:5] == [
        f"| {rows[1].workload.name} | b < c | reached: 1 |",
        f"| {rows[0].workload.name} | a < b | NOT reached: 3 |",
    ]


def test_a_line_drawing_shows_each_series_and_leaves_out_what_a_logarithm_cannot_show() -> None:
    x, y = svg.Axis("size", logarithmic=True), svg.Axis("us", logarithmic=True)
    text = svg.lines("t", x, y, {"a": [(1, 10), (10, 100)], "b <c>": [(0, 5), (10, 5)], "gone": [(0, 0)]})
    drawing = ElementTree.fromstring(text)
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 1]
    assert "b &lt;c&gt;" in text and "gone" not in text
    assert svg.lines("t", x, y, {}) == "" and svg.bars("t", {}, str) == ""


def test_a_single_point_can_be_drawn() -> None:
    axis = svg.Axis("n")
    assert ElementTree.fromstring(svg.lines("t", axis, axis, {"a": [(5, 5)]})) is not None
    assert ElementTree.fromstring(svg.bars("t", {"a": [0.0]}, str)) is not None
