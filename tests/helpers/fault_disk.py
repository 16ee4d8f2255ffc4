"""A disk that fails on demand: a file system over a folder, served through /dev/fuse, with rules for errors.

    python fault_disk.py BACKING MOUNTPOINT RULES      serves until it is unmounted or killed

RULES is a file of lines `operation text errno`: a request of that kind to a file whose path holds `text`
fails with that number and does nothing. Operations: lookup, open, create, read, write, sync, allocate,
unlink. `sector` with `text#position` is one page that cannot be read, as a bad sector. The file is looked at
again whenever it changes.

Maps are the kernel's own: what is stored into a map lies in the page cache until a sync or write-back sends
it here as a write. So a write that is refused leaves a page that everybody can read and that the disk does
not have; and killing this process loses whatever was not synced. Speaks the kernel's protocol (linux/fuse.h,
version 7.31) without any library; needs root and /dev/fuse. Nothing here knows the broker.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HEADER = struct.Struct("=IIQQIIIHH")
REPLY = struct.Struct("=IiQ")
ATTR = struct.Struct("=6Q10I")
OPEN_OUT = struct.Struct("=QII")
ROOT = 1
KEEP_CACHE = 2
FOREVER_S = 1_000_000
BYTES_MAX = 1 << 20
BUFFER_BYTES = BYTES_MAX + 4096
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22
SET_MODE, SET_SIZE, SET_ATIME, SET_MTIME, SET_HANDLE = 1, 8, 16, 32, 64
SET_ATIME_NOW, SET_MTIME_NOW = 128, 256
DETACH = 2
NO_REPLY = None


class FaultDisk:
    """The file system: nodes by inode number of the backing folder, handles by descriptor."""

    def __init__(self, backing: str, rules: str) -> None:
        self.backing = backing
        self.paths = {ROOT: backing}
        self.handles: dict[int, set[int]] = {}
        self._rules_path = rules
        self._rules: list[tuple[str, str, int]] = []
        self._rules_seen = (0, 0, 0)

    def serve(self, device: int) -> None:
        """Answer requests until the file system is unmounted."""
        while True:
            try:
                request = os.read(device, BUFFER_BYTES)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                raise
            _, opcode, unique, node, *_ = HEADER.unpack_from(request)
            error_number, answer = 0, b""
            try:
                operation = OPERATIONS.get(opcode)
                if operation is None:
                    raise OSError(errno.ENOSYS, "not served")
                found = operation(self, node, memoryview(request)[HEADER.size :])
                if found is NO_REPLY:
                    continue
                answer = found
            except OSError as error:
                error_number = error.errno or errno.EIO
            out = REPLY.pack(REPLY.size + len(answer), -error_number, unique) + answer
            try:
                os.write(device, out)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINTR):  # the caller went away meanwhile
                    raise

    def may(self, operation: str, path: str) -> None:
        """Raise what a rule asks for."""
        now = os.stat(self._rules_path)  # a clock of 4 ms: two changes may have one time
        seen = (now.st_mtime_ns, now.st_ino, now.st_size)
        if seen != self._rules_seen:
            self._rules_seen = seen
            lines = Path(self._rules_path).read_text().splitlines()
            self._rules = [(o, text, int(n)) for o, text, n in map(str.split, lines)]
        for wanted, text, number in self._rules:
            if wanted == operation and text in path:
                raise OSError(number, "as the rules say")

    def _may_read(self, path: str, begin: int, end: int) -> None:
        """Raise EIO when a rule `sector name#position` names a page in that range: a bad sector."""
        for wanted, text, number in self._rules:
            name, _, position = text.partition("#")
            if wanted == "sector" and name in path and begin < int(position) + 4096 and end > int(position):
                raise OSError(number, "as the rules say")

    # ---- answers

    def _attributes(self, stat: os.stat_result) -> bytes:
        return ATTR.pack(
            stat.st_ino,
            stat.st_size,
            stat.st_blocks,
            int(stat.st_atime),
            int(stat.st_mtime),
            int(stat.st_ctime),
            stat.st_atime_ns % 10**9,
            stat.st_mtime_ns % 10**9,
            stat.st_ctime_ns % 10**9,
            stat.st_mode,
            stat.st_nlink,
            stat.st_uid,
            stat.st_gid,
            0,
            4096,
            0,
        )

    def _entry(self, path: str) -> bytes:
        """Learn a node; names are kept, attributes asked for each time."""
        stat = os.lstat(path)
        self.paths[stat.st_ino] = path
        return struct.pack("=4Q2I", stat.st_ino, 0, FOREVER_S, 0, 0, 0) + self._attributes(stat)

    def _child(self, node: int, name: bytes | memoryview) -> str:
        return os.path.join(self.paths[node], os.fsdecode(bytes(name).split(b"\0")[0]))

    def _stat(self, node: int) -> os.stat_result:
        """Of a node by its name, or by a handle when it was unlinked."""
        try:
            found = os.lstat(self.paths[node])
            if node in (ROOT, found.st_ino):
                return found
        except OSError:
            pass
        for handle in self.handles.get(node, ()):
            return os.fstat(handle)
        raise OSError(errno.ENOENT, "gone")

    # ---- operations

    def init(self, node: int, body: memoryview) -> bytes:
        flags = struct.unpack_from("=4I", body)[3] & (BIG_WRITES | MAX_PAGES)
        return struct.pack(
            "=4I2H2I2H2I12H",
            7,
            31,
            128 << 10,
            flags,
            12,
            9,
            BYTES_MAX,
            1,
            BYTES_MAX // 4096,
            0,
            0,
            0,
            *[0] * 12,
        )

    def lookup(self, node: int, body: memoryview) -> bytes:
        path = self._child(node, body)
        self.may("lookup", path)
        return self._entry(path)

    def forget(self, node: int, body: memoryview) -> None:
        return NO_REPLY

    def getattr(self, node: int, body: memoryview) -> bytes:
        return struct.pack("=Q2I", 0, 0, 0) + self._attributes(self._stat(node))

    def setattr(self, node: int, body: memoryview) -> bytes:
        valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode = struct.unpack_from(
            "=2I6Q4I", body
        )
        path = self.paths[node]
        if valid & SET_MODE:
            os.chmod(path, mode & 0o7777)
        if valid & SET_SIZE:
            self.may("allocate", path)
            os.truncate(handle if valid & SET_HANDLE else path, size)
        if valid & (SET_ATIME | SET_MTIME):
            now = self._stat(node)
            times = [now.st_atime_ns, now.st_mtime_ns]
            if valid & SET_ATIME and not valid & SET_ATIME_NOW:
                times[0] = atime * 10**9 + atime_ns
            if valid & SET_MTIME and not valid & SET_MTIME_NOW:
                times[1] = mtime * 10**9 + mtime_ns
            os.utime(path, ns=(times[0], times[1]))
        return self.getattr(node, body)

    def mkdir(self, node: int, body: memoryview) -> bytes:
        path = self._child(node, body[8:])
        self.may("create", path)
        os.mkdir(path, struct.unpack_from("=I", body)[0] & 0o7777)
        return self._entry(path)

    def unlink(self, node: int, body: memoryview) -> bytes:
        path = self._child(node, body)
        self.may("unlink", path)
        os.unlink(path)
        return b""

    def rmdir(self, node: int, body: memoryview) -> bytes:
        os.rmdir(self._child(node, body))
        return b""

    def _rename(self, node: int, new_node: int, names: memoryview) -> bytes:
        old_name, new_name = bytes(names).split(b"\0")[:2]
        old, new = self._child(node, old_name), self._child(new_node, new_name)
        self.may("create", new)
        os.rename(old, new)
        self.paths[os.lstat(new).st_ino] = new
        return b""

    def rename(self, node: int, body: memoryview) -> bytes:
        return self._rename(node, struct.unpack_from("=Q", body)[0], body[8:])

    def rename2(self, node: int, body: memoryview) -> bytes:
        return self._rename(node, struct.unpack_from("=Q", body)[0], body[16:])

    def link(self, node: int, body: memoryview) -> bytes:
        path = self._child(node, body[8:])
        self.may("create", path)
        old = self.paths[struct.unpack_from("=Q", body)[0]]
        os.link(old, path)
        entry = self._entry(path)
        self.paths[os.lstat(old).st_ino] = old
        return entry

    def _opened(self, node: int, path: str, flags: int, mode: int = 0) -> bytes:
        handle = os.open(path, flags & ~os.O_DIRECT, mode)
        self.handles.setdefault(os.fstat(handle).st_ino, set()).add(handle)
        return OPEN_OUT.pack(handle, KEEP_CACHE, 0)

    def open(self, node: int, body: memoryview) -> bytes:
        path = self.paths[node]
        self.may("open", path)
        flags = struct.unpack_from("=I", body)[0] & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND)
        if flags & os.O_ACCMODE == os.O_WRONLY:  # a partly written page is read first
            flags = flags & ~os.O_ACCMODE | os.O_RDWR
        return self._opened(node, path, flags)

    def create(self, node: int, body: memoryview) -> bytes:
        flags, mode, umask = struct.unpack_from("=3I", body)
        path = self._child(node, body[16:])
        self.may("create", path)
        opened = self._opened(node, path, os.O_RDWR | os.O_CREAT | flags & os.O_EXCL, mode & ~umask & 0o7777)
        return self._entry(path) + opened

    def release(self, node: int, body: memoryview) -> bytes:
        handle = struct.unpack_from("=Q", body)[0]
        self.handles.get(node, set()).discard(handle)
        os.close(handle)
        return b""

    def read(self, node: int, body: memoryview) -> bytes:
        handle, offset, size = struct.unpack_from("=2QI", body)
        self.may("read", self.paths[node])
        self._may_read(self.paths[node], offset, offset + size)
        return os.pread(handle, size, offset)

    def write(self, node: int, body: memoryview) -> bytes:
        handle, offset, size = struct.unpack_from("=2QI", body)
        self.may("write", self.paths[node])
        return struct.pack("=2I", os.pwrite(handle, body[40 : 40 + size], offset), 0)

    def statfs(self, node: int, body: memoryview) -> bytes:
        disk = os.statvfs(self.backing)
        return struct.pack(
            "=5Q4I6I",
            *(disk.f_blocks, disk.f_bfree, disk.f_bavail, disk.f_files, disk.f_ffree),
            *(disk.f_bsize, disk.f_namemax, disk.f_frsize, 0),
            *[0] * 6,
        )

    def fsync(self, node: int, body: memoryview) -> bytes:
        self.may("sync", self.paths[node])
        return b""

    def flush(self, node: int, body: memoryview) -> bytes:
        return b""

    def opendir(self, node: int, body: memoryview) -> bytes:
        self.may("open", self.paths[node])
        return OPEN_OUT.pack(0, 0, 0)

    def readdir(self, node: int, body: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("=2QI", body)
        with os.scandir(self.paths[node]) as found:
            entries = sorted((entry.name, entry.inode()) for entry in found)
        out = b""
        for place, (name, inode) in enumerate(entries[offset:], offset + 1):
            raw = os.fsencode(name)
            row = struct.pack("=2Q2I", inode, place, len(raw), 0) + raw
            row += bytes(-len(row) % 8)
            if len(out) + len(row) > size:
                break
            out += row
        return out

    def releasedir(self, node: int, body: memoryview) -> bytes:
        return b""

    def fallocate(self, node: int, body: memoryview) -> bytes:
        handle, offset, length, mode = struct.unpack_from("=3QI", body)
        self.may("allocate", self.paths[node])
        if mode:
            raise OSError(errno.EOPNOTSUPP, "only plain allocation")
        os.posix_fallocate(handle, offset, length)
        return b""

    def lseek(self, node: int, body: memoryview) -> bytes:
        handle, offset, whence = struct.unpack_from("=2QI", body)
        return struct.pack("=Q", os.lseek(handle, offset, whence))


Operation = Callable[[FaultDisk, int, memoryview], bytes | None]
OPERATIONS: dict[int, Operation] = {
    1: FaultDisk.lookup,
    2: FaultDisk.forget,
    3: FaultDisk.getattr,
    4: FaultDisk.setattr,
    9: FaultDisk.mkdir,
    10: FaultDisk.unlink,
    11: FaultDisk.rmdir,
    12: FaultDisk.rename,
    13: FaultDisk.link,
    14: FaultDisk.open,
    15: FaultDisk.read,
    16: FaultDisk.write,
    17: FaultDisk.statfs,
    18: FaultDisk.release,
    20: FaultDisk.fsync,
    25: FaultDisk.flush,
    26: FaultDisk.init,
    27: FaultDisk.opendir,
    28: FaultDisk.readdir,
    29: FaultDisk.releasedir,
    30: FaultDisk.fsync,
    35: FaultDisk.create,
    36: FaultDisk.forget,
    42: FaultDisk.forget,
    43: FaultDisk.fallocate,
    45: FaultDisk.rename2,
    46: FaultDisk.lseek,
}
"""By the kernel's number; 2, 36 and 42 have no answer."""


def mount(mountpoint: str) -> int:
    """Mount at `mountpoint` and return the device to serve. OSError where that is not allowed."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"fault-disk", os.fsencode(mountpoint), b"fuse", 0, options.encode()):
        number = ctypes.get_errno()
        os.close(device)
        raise OSError(number, os.strerror(number))
    return device


class MountedFaultDisk:
    """A mounted one, served by a process of its own. `path` is where it is mounted."""

    def __init__(self, folder: Path) -> None:
        """Make the folders below `folder`; `mount` begins."""
        self.path, self.backing, self._rules = folder / "disk", folder / "backing", folder / "rules"
        self.path.mkdir()
        self.backing.mkdir()
        self._rules.write_text("")
        self._process: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        """Serve it. OSError where that is not possible."""
        command = [sys.executable, __file__, str(self.backing), str(self.path), str(self._rules)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"mounted\n":
            _, said = self._process.communicate()
            raise OSError(said.decode().strip().rpartition("\n")[2])

    def fail(self, *rules: tuple[str, str, int]) -> None:
        """Let requests fail from now on: (operation, part of the path, errno). Without rules: none."""
        temp = self._rules.with_suffix(".tmp")
        temp.write_text("".join(f"{operation} {text} {number}\n" for operation, text, number in rules))
        temp.replace(self._rules)

    def unmount(self) -> None:
        """Unmount; what is in the page cache is forgotten. Twice is harmless."""
        if self._process is None:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        libc.umount2(os.fsencode(str(self.path)), DETACH)
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None


if __name__ == "__main__":
    opened = mount(sys.argv[2])
    print("mounted", flush=True)
    FaultDisk(sys.argv[1], sys.argv[3]).serve(opened)
