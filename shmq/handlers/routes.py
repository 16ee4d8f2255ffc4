"""What a row of the dispatch table is; apart from the table, so that handler files can make their rows."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple


class Place(Enum):
    """Which process serves a request."""

    WORKER = auto()
    COORDINATOR = auto()


class Route(NamedTuple):
    """One row: the header class (None: the request has none), the handler, and where it runs.

    ``function(ctx, connection, command, header) -> Command | None``, see ``handlers/context.py``.
    """

    header: type[Any] | None
    function: Callable[..., Any]
    place: Place
