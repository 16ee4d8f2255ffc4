"""`shmq-broker`: read the settings, then be the supervisor of one broker until it is asked to stop.

Exit status: 0 stopped as asked, 1 could not start or failed while running, 2 wrong command line, 78 wrong
settings. What went wrong is one line on stderr; everything else is in the log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import resource
import sys
from collections.abc import Sequence

from shmq import __version__
from shmq.base.errors import ConfigFault, ShmqError
from shmq.base.options import parse_options
from shmq.base.runtime_dir import make_runtime_dir
from shmq.model.settings import BrokerSettings, Loaded, describe, load_settings
from shmq.store.write_recorder import install_if_asked

EXIT_FAILED = 1
EXIT_CONFIG = 78

_DESCRIPTION = "A RocketMQ-compatible message broker for one Linux host."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `shmq-broker`; returns the exit status."""
    with contextlib.suppress(RuntimeError, OSError):  # no stderr
        faulthandler.enable()  # a signal such as SIGBUS ends it with a word
    options = parse_options("shmq-broker", _DESCRIPTION, __version__, arguments)
    try:
        loaded = load_settings(BrokerSettings, options.file, options.settings_arguments)
        for warning in loaded.warnings:
            print(f"shmq-broker: warning: {warning}", file=sys.stderr)
        if options.print_all or options.print_important:
            print("\n".join(describe(loaded, important_only=not options.print_all)))
            return 0
        return _run(loaded, adopt=options.adopt)
    except ConfigFault as fault:
        print(f"shmq-broker: {fault}", file=sys.stderr)
        return EXIT_CONFIG
    except (ShmqError, OSError) as fault:
        print(f"shmq-broker: cannot start: {fault}", file=sys.stderr)
        return EXIT_FAILED


def _run(loaded: Loaded[BrokerSettings], *, adopt: bool) -> int:
    """Import what supervisor and children need, fork the fork server, and run the supervisor while it
    imports the rest."""
    raise_descriptor_limit()
    install_if_asked()
    folder = make_runtime_dir(loaded.settings.runtime_dir or None)
    from shmq.supervisor import fork_server
    from shmq.supervisor.supervisor import Supervisor

    try:
        fork_server.start(folder)
        return Supervisor(loaded.settings, loaded.warnings, folder, adopt=adopt).run()
    finally:
        fork_server.stop()


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: maps, segments and connections each take one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # then the limit stays as it was, and `ps` shows it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
