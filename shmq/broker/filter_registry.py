"""The installed filter functions: `<store>/filters/<name>.py`, one file each. Coordinator.

The code is compiled here to refuse what is no Python, and run only in the function's own processes. Workers
look at the file itself for each pull, so a change needs no announcement.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from shmq.base.errors import InvalidParameter, QueryNotFound, SubscriptionParseFailed
from shmq.base.files import fsync_folder, write_durably
from shmq.model.subscription import check_function_name

SOURCE_BYTES_MAX = 256 << 10
FUNCTIONS_MAX = 256


class InstalledFilter(NamedTuple):
    """One function: its name, the bytes of its code, and when it was installed (ms)."""

    name: str
    size: int
    installed_ms: int


class FilterRegistry:
    """The folder of installed code."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made with the first function."""
        self.folder = folder

    def install(self, name: str, source: bytes) -> None:
        """Store the code of a function, in place of an older one.

        SubscriptionParseFailed when it does not compile or defines no `wants`; InvalidParameter for its size.
        """
        check_function_name(name)
        if not 0 < len(source) <= SOURCE_BYTES_MAX:
            raise InvalidParameter(
                f"the code of filter {name} has {len(source)} bytes; 1 to {SOURCE_BYTES_MAX} are allowed"
            )
        try:
            text = source.decode()
            code = compile(text, f"{name}.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last: nested too deeply
            why = str(error) or "it is nested too deeply"
            raise SubscriptionParseFailed(f"the code of filter {name} does not compile: {why}") from None
        if "wants" not in code.co_names:
            raise SubscriptionParseFailed(f"the code of filter {name} defines no function wants(message)")
        if len(self.installed()) >= FUNCTIONS_MAX and not self._path(name).exists():
            raise InvalidParameter(f"{FUNCTIONS_MAX} filter functions are installed: remove some first")
        self.folder.mkdir(mode=0o755, exist_ok=True)
        write_durably(self._path(name), source, backup=False)

    def remove(self, name: str) -> None:
        """Forget a function; pulls that name it are refused from now on. QueryNotFound: there is none."""
        check_function_name(name)
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise QueryNotFound(f"no filter function {name} is installed") from None
        fsync_folder(self.folder)

    def check_installed(self, name: str) -> None:
        """Raise QueryNotFound unless the function is there."""
        check_function_name(name)
        if not self._path(name).exists():
            raise QueryNotFound(
                f"filter function {name} is not installed: an operator does that with installFilter"
            )

    def installed(self) -> list[InstalledFilter]:
        """All functions, by name."""
        found = []
        for path in sorted(self.folder.glob("*.py")) if self.folder.exists() else ():
            seen = path.stat()
            found.append(InstalledFilter(path.stem, seen.st_size, seen.st_mtime_ns // 1_000_000))
        return found

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.py"
