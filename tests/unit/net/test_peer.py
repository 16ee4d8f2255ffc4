"""Who is at the other end, and whether his process has ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from shmq.net.peer import Peer, has_ended, peer_of

HOLDS_A_SOCKET = """
import socket, sys, threading
held = socket.socket(socket.AF_UNIX)
held.connect(sys.argv[1])
threading.Thread(target=sys.stdin.read).start()
sys.stdin.read()
"""


def test_a_process_has_ended_when_its_connection_breaks_by_its_death(tmp_path: object) -> None:
    """Several threads, and looked at in the moment in which the kernel closes the connection."""
    path = f"{tmp_path}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        for _ in range(20):
            child = subprocess.Popen([sys.executable, "-c", HOLDS_A_SOCKET, path], stdin=subprocess.PIPE)
            accepted, _ = listener.accept()
            with accepted:
                peer = peer_of(accepted)
                assert peer.pid == child.pid and not has_ended(peer)
                child.kill()
                assert accepted.recv(1) == b""
                assert has_ended(peer)
            child.communicate()
            assert has_ended(peer)


def test_in_doubt_a_process_lives() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert not has_ended(peer_of(here))
    assert not has_ended(Peer("unix", "of another namespace", pid=0))
    assert not has_ended(Peer("tcp", "1.2.3.4:5", pid=os.getpid()))
    assert not has_ended(Peer("unix", "of another user", pid=1))
