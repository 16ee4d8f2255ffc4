"""What this machine can do at best, taken in the same run: a socket round trip, a memory copy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from bench.result import Result

REQUEST_BYTES = 400
REPLY_BYTES = 100
ECHO_ROUNDS = 20_000
WARM_UP = 1_000
COPY_BYTES = 64 << 20
COPY_ROUNDS = 16
BODY_BYTES = 256

ECHO_SERVER = """
import os, socket, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
peer = socket.socket(fileno=int(sys.argv[1]))
request, reply, size = bytearray(int(sys.argv[3])), bytes(int(sys.argv[4])), int(sys.argv[3])
while peer.recv_into(request, size, socket.MSG_WAITALL):
    peer.sendall(reply)
"""
"""The other process of the round trip: takes a request, answers, both calls blocking."""


def echo_round_trip() -> Result:
    """A blocking Unix-socket round trip of two Python processes on two cores: the least a send costs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    cores = sorted(os.sched_getaffinity(0))
    result = Result("bare Unix socket round trip")
    with ours, theirs:
        arguments = map(str, (theirs.fileno(), cores[-1], REQUEST_BYTES, REPLY_BYTES))
        server = subprocess.Popen([sys.executable, "-c", ECHO_SERVER, *arguments], pass_fds=[theirs.fileno()])
        theirs.close()
        os.sched_setaffinity(0, {cores[0]})
        try:
            request, reply = bytes(REQUEST_BYTES), bytearray(REPLY_BYTES)
            times = []
            started = time.perf_counter_ns()
            for place in range(ECHO_ROUNDS + WARM_UP):
                if place == WARM_UP:
                    started = time.perf_counter_ns()
                before = time.perf_counter_ns()
                ours.sendall(request)
                ours.recv_into(reply, REPLY_BYTES, socket.MSG_WAITALL)
                times.append(time.perf_counter_ns() - before)
            result.rate = ECHO_ROUNDS / ((time.perf_counter_ns() - started) / 1e9)
            result.latency.record_all(times[WARM_UP:])
        finally:
            os.sched_setaffinity(0, set(cores))
            ours.close()
            server.wait()
    return result


def memory_copy() -> Result:
    """Copying memory in one process, from a buffer larger than the caches."""
    source, target = bytes(COPY_BYTES), memoryview(bytearray(COPY_BYTES))
    target[:] = source
    started = time.perf_counter()
    for _ in range(COPY_ROUNDS):
        target[:] = source
    bytes_s = COPY_BYTES * COPY_ROUNDS / (time.perf_counter() - started)
    return Result("memory copy", rate=bytes_s / BODY_BYTES, bytes_s=bytes_s)
