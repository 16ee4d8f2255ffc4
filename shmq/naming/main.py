"""`shmq-namesrv`: a NameServer alone, for hosts whose brokers shall share one that outlives them.

Started like RocketMQ's mqnamesrv. One process, one event loop. SIGTERM or SIGINT: it closes and leaves at
once, there is nothing to drain. Its crash costs clients nothing but new routes until it is started again.
Exit status: 0 stopped as asked, 1 could not start, 2 wrong command line, 78 wrong settings.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import setproctitle

from shmq import __version__
from shmq.base import log, runtime_dir
from shmq.base.errors import ConfigFault, ShmqError
from shmq.base.options import parse_options
from shmq.base.systemd import ServiceManager, inherited_sockets
from shmq.model.settings import NamesrvSettings, describe, load_settings
from shmq.naming.name_server import NameServer
from shmq.net.listener import bind_unix
from shmq.net.ports import bind_or_explain

EXIT_FAILED = 1
EXIT_CONFIG = 78

_logger = log.get("shmq.naming")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `shmq-namesrv`; returns the exit status."""
    options = parse_options(
        "shmq-namesrv", "A RocketMQ-compatible name server for one host.", __version__, arguments
    )
    try:
        loaded = load_settings(NamesrvSettings, options.file, options.arguments)
        for warning in loaded.warnings:
            print(f"shmq-namesrv: warning: {warning}", file=sys.stderr)
        if options.print_all or options.print_important:
            print("\n".join(describe(loaded, important_only=not options.print_all)))
            return 0
        _serve(loaded.settings)
    except ConfigFault as fault:
        print(f"shmq-namesrv: {fault}", file=sys.stderr)
        return EXIT_CONFIG
    except (ShmqError, OSError) as fault:
        print(f"shmq-namesrv: cannot start: {fault}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _serve(settings: NamesrvSettings) -> None:
    """Bind, announce, run until a stop signal comes."""
    log.setup("namesrv", log.log_folder(settings.log_dir), settings.log_level, filename="namesrv.log")
    manager = ServiceManager()
    sockets, unix_path, own_path = _listen(settings)
    loop = asyncio.new_event_loop()
    try:
        server = NameServer(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, loop.stop)
        server.start(loop, sockets)
        host, port = next(one.getsockname()[:2] for one in sockets if one.family != socket.AF_UNIX)
        tcp = f"{host}:{port}"
        setproctitle.setproctitle(f"shmq: namesrv {port}")
        print(f"shmq-namesrv ready pid={os.getpid()} tcp={tcp} unix={unix_path}", flush=True)
        log.event(_logger, logging.INFO, "ready", tcp=tcp, unix=unix_path)
        manager.ready(f"serving {tcp} and {unix_path}")
        _keep_watchdog_quiet(loop, manager)
        loop.run_forever()
        manager.stopping()
        server.stop()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
        for one in sockets:
            one.close()
        if own_path is not None:
            own_path.unlink(missing_ok=True)
        log.event(_logger, logging.INFO, "stopped")


def _listen(settings: NamesrvSettings) -> tuple[list[socket.socket], str, Path | None]:
    """The listening sockets, inherited ones first; the Unix socket's path; that path if it was made here."""
    sockets = inherited_sockets()
    own_path: Path | None = None
    try:
        if not any(one.family == socket.AF_UNIX for one in sockets):
            folder = runtime_dir.make_runtime_dir(settings.runtime_dir or None)
            path = runtime_dir.namesrv_socket(folder)
            sockets.append(bind_unix(path, mode=0o660, group=settings.socket_group or None))
            own_path = path
        if all(one.family == socket.AF_UNIX for one in sockets):
            sockets.append(bind_or_explain(settings.bind_address, settings.listen_port, "listenPort"))
    except ShmqError:
        for one in sockets:
            one.close()
        if own_path is not None:
            own_path.unlink(missing_ok=True)
        raise
    unix_path = next(str(one.getsockname()) for one in sockets if one.family == socket.AF_UNIX)
    return sockets, unix_path, own_path


def _keep_watchdog_quiet(loop: asyncio.AbstractEventLoop, manager: ServiceManager) -> None:
    if manager.watchdog_interval_ms is not None:
        manager.alive()
        loop.call_later(manager.watchdog_interval_ms / 1000, _keep_watchdog_quiet, loop, manager)


if __name__ == "__main__":
    sys.exit(main())
