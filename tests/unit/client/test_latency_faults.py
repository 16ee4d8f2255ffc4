"""Latency fault tolerance: RocketMQ's table, and which queue is chosen while brokers are avoided."""

from __future__ import annotations

import pytest

from shmq.base.clock import ManualClock
from shmq.client.latency_faults import LatencyFaults, avoided_ms
from shmq.client.queue_selection import RoundRobin, choose_queue, choose_tolerant
from shmq.model.message_queue import MessageQueue

A = [MessageQueue("T", "broker-a", n) for n in range(2)]
B = [MessageQueue("T", "broker-b", n) for n in range(2)]


@pytest.mark.parametrize(
    ("latency_ms", "avoided"),
    [
        (49, 0),
        (60, 0),
        (120, 0),
        (549, 0),
        (600, 2000),
        (1900, 5000),
        (3100, 6000),
        (5200, 10000),
        (16000, 30000),
    ],
)
def test_latency_maps_to_avoidance(latency_ms: int, avoided: int) -> None:
    assert avoided_ms(latency_ms) == avoided


def test_a_slow_broker_is_avoided_and_comes_back() -> None:
    clock = ManualClock()
    faults = LatencyFaults(clock)
    faults.update("broker-a", 600)
    assert not faults.is_available("broker-a") and faults.is_available("broker-b")
    clock.advance(1999)
    assert not faults.is_available("broker-a")
    clock.advance(1)
    assert faults.is_available("broker-a")


def test_a_failure_counts_as_ten_seconds_and_is_never_shortened() -> None:
    clock = ManualClock()
    faults = LatencyFaults(clock)
    faults.update("broker-a", 3, failed=True, reachable=False)
    faults.update("broker-a", 3)
    clock.advance(9_999)
    assert not faults.is_available("broker-a") and faults.is_reachable("broker-a")


def test_choice_prefers_available_then_reachable_then_anything() -> None:
    faults = LatencyFaults(ManualClock())
    turn = RoundRobin()
    faults.update("broker-a", 0, failed=True, reachable=False)
    assert {choose_tolerant(A + B, turn, None, faults).broker_name for _ in range(8)} == {"broker-b"}
    faults.update("broker-b", 0, failed=True)
    assert {choose_tolerant(A + B, turn, None, faults).broker_name for _ in range(8)} == {"broker-b"}
    faults.update("broker-b", 0, failed=True, reachable=False)
    assert {choose_tolerant(A + B, turn, None, faults).broker_name for _ in range(8)} == {
        "broker-a",
        "broker-b",
    }


def test_a_retry_goes_to_another_broker_when_there_is_one() -> None:
    turn = RoundRobin()
    assert {choose_queue(A + B, turn, "broker-a").broker_name for _ in range(8)} == {"broker-b"}
    assert {choose_queue(A, turn, "broker-a").broker_name for _ in range(8)} == {"broker-a"}
