"""The originals, for the interop tests: jars from Maven Central, JVMs, an Apache name server and broker.

Everything is found or refused within seconds (`unavailable_reason`). Jars are copied once per machine into
a cache folder (`$SHMQ_INTEROP_CACHE`, else ~/.cache/shmq-interop) by Maven from tiny generated poms; each
set is published by one rename, under a file lock, so that test processes side by side share it.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shmq import AdminClient
from tests.helpers.waiting import wait_until

SOURCES = Path(__file__).parent.parent / "interop" / "java"
CENTRAL = "https://repo.maven.apache.org/maven2/"
GROUP_ID = "org.apache.rocketmq"

JAR_SETS: dict[str, list[tuple[str, str]]] = {
    "client-5.3.3": [("rocketmq-client", "5.3.3")],
    "client-4.9.7": [("rocketmq-client", "4.9.7")],
    "tools-5.3.3": [("rocketmq-tools", "5.3.3")],
    "server-5.3.3": [("rocketmq-namesrv", "5.3.3"), ("rocketmq-broker", "5.3.3")],
}
"""What the tests load: set name -> artifacts, with all that these need at run time."""

SMALL_JVM = ["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
"""A test JVM lives for seconds on a small machine: quick start before peak speed."""

OPEN_MODULES = [
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
]


def cache_dir() -> Path:
    """Where jar sets and compiled probes are kept between runs."""
    return Path(os.environ.get("SHMQ_INTEROP_CACHE") or Path.home() / ".cache" / "shmq-interop")


@functools.cache
def unavailable_reason() -> str | None:
    """Why the originals cannot run here, or None. Takes at most a few seconds."""
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            return f"no {tool} on the PATH"
    if all((cache_dir() / name).is_dir() for name in JAR_SETS):
        return None
    probe = f"{CENTRAL}{GROUP_ID.replace('.', '/')}/rocketmq-client/5.3.3/rocketmq-client-5.3.3.pom"
    try:
        with urllib.request.urlopen(probe, timeout=5):
            return None
    except OSError as error:
        return f"Maven Central cannot be reached ({error})"


ONLY_WITH = {"AdminShell.java": "tools", "SqlProbe.java": "server", "TimerProbe.java": "client-5"}
"""Programs that need what other jar sets do not have."""


def jars(set_name: str) -> str:
    """The class path of a jar set, fetched on first use (10 to 60 s, once per machine)."""
    folder = cache_dir() / set_name
    if not folder.is_dir():
        with _cache_lock(set_name):
            if not folder.is_dir():
                _fetch(set_name, folder)
    return f"{folder}/*"


def probe_classes(client: str) -> str:
    """The class path of the compiled programs of tests/interop/java, with the client set they run on."""
    sources = [
        source
        for source in sorted(SOURCES.glob("*.java"))
        if client.startswith(ONLY_WITH.get(source.name, ""))
    ]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = cache_dir() / f"probe-{client}-{digest}"
    class_path = jars(client)
    with _cache_lock(f"probe-{client}"):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            command = ["javac", "-nowarn", "-cp", class_path, "-d", str(partial), *map(str, sources)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            partial.rename(folder)
    return f"{folder}:{class_path}"


def java_command(
    class_path: str, main: str, *args: str, home: Path, flags: list[str] = SMALL_JVM
) -> list[str]:
    """A JVM's argument list; `home` takes the log files that would otherwise go to ~/logs."""
    logs = [f"-Duser.home={home}", f"-Drocketmq.client.logRoot={home}", "-Drocketmq.client.logLevel=WARN"]
    return ["java", *flags, *OPEN_MODULES, *logs, "-cp", class_path, main, *args]


def run_probe(
    client: str, *args: str, home: Path, limit_s: float = 60, main: str = "ShmqProbe"
) -> list[dict[str, Any]]:
    """Run a probe with one client version to its end; its JSON lines. Other output is shown when it fails."""
    command = java_command(probe_classes(client), main, *args, home=home)
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"{main} {args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return lines


class AdminShell:
    """The original mqadmin in one JVM that runs command after command (a JVM start each costs a second)."""

    def __init__(self, home: Path) -> None:
        command = java_command(probe_classes("tools-5.3.3"), "AdminShell", home=home)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *args: str) -> str:
        """The output of one command, such as run("topicList", "-n", "127.0.0.1:9876")."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\x1f".join(args) + "\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line == "\x04\n":
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"mqadmin ended during {args}:\n{''.join(lines)}")

    def close(self) -> None:
        """End the JVM; its input's end is the signal."""
        self._process.communicate(timeout=20)


@dataclass
class ApacheBroker:
    """A running Apache name server and broker."""

    namesrv_addr: str
    broker_addr: str
    broker_name: str
    store_root: Path


@contextmanager
def apache_broker(folder: Path, *, clean: bool = True, **settings: str) -> Iterator[ApacheBroker]:
    """Start both from their jars with small heaps and files, on free loopback ports; stop them at the end.

    `clean` false kills them: a clean stop takes seconds, and matters only to whoever looks at the store.
    """
    class_path = jars("server-5.3.3")
    folder.mkdir(parents=True, exist_ok=True)
    namesrv_port, port = free_port(), free_port(spread=3)
    namesrv_addr = f"127.0.0.1:{namesrv_port}"
    store = folder / "store"
    _properties(folder / "namesrv.conf", {"listenPort": namesrv_port, "bindAddress": "127.0.0.1"})
    broker_conf = {
        "brokerClusterName": "DefaultCluster",
        "brokerName": "apache-a",
        "brokerIP1": "127.0.0.1",
        "bindAddress": "127.0.0.1",
        "listenPort": port,
        "haListenPort": port + 1,
        "namesrvAddr": namesrv_addr,
        "storePathRootDir": store,
        "storePathCommitLog": store / "commitlog",
        "mappedFileSizeCommitLog": 16 << 20,
        "mappedFileSizeConsumeQueue": 20 * 4096,
        "maxIndexNum": 4096,
        "maxHashSlotNum": 1024,
        "timerWheelEnable": "false",
        "diskMaxUsedSpaceRatio": 95,
        "autoCreateTopicEnable": "true",
        **settings,
    }
    _properties(folder / "broker.conf", broker_conf)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_server(class_path, "org.apache.rocketmq.namesrv.NamesrvStartup", folder, "namesrv"))
        processes.append(_server(class_path, "org.apache.rocketmq.broker.BrokerStartup", folder, "broker"))
        with AdminClient(namesrv_addr) as admin:
            wait_until(lambda: _is_registered(admin, f"127.0.0.1:{port}"), limit_s=40)
        yield ApacheBroker(namesrv_addr, f"127.0.0.1:{port}", "apache-a", store)
    finally:
        for process in reversed(processes):
            process.terminate() if clean else process.kill()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_registered(admin: AdminClient, broker_addr: str) -> bool:
    """Whether the broker's topics are known; if not, make it register.

    At its start a broker registers only where it has already found the name server alive, and then not again
    for ten seconds. A change of its permission makes it register at once.
    """
    if "TBW102" in admin.topic_list():
        return True
    admin.update_broker_config(broker_addr, {"brokerPermission": "6"})
    time.sleep(0.2)
    return False


def free_port(*, spread: int = 0) -> int:
    """A loopback port that is free now, with `spread` free neighbours on either side."""
    for _ in range(100):
        with socket.socket() as candidate:
            candidate.bind(("127.0.0.1", 0))
            port: int = candidate.getsockname()[1]
        if all(_bindable(port + step) for step in range(-spread, spread + 1)):
            return port
    raise AssertionError("no run of free ports found")


def _bindable(port: int) -> bool:
    with socket.socket() as candidate:
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _server(class_path: str, main: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Start one of the two servers and wait until it says that it is up."""
    flags = [*SMALL_JVM, "-Xmx512m", "-XX:MaxDirectMemorySize=256m"]
    command = java_command(class_path, main, "-c", str(folder / f"{name}.conf"), home=folder, flags=flags)
    environment = {**os.environ, "ROCKETMQ_HOME": str(folder)}
    output = folder / f"{name}.out"
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment)

    def is_up() -> bool:
        said = output.read_text(errors="replace")
        assert process.poll() is None, f"{name} ended at start:\n{said}"
        return "boot success" in said

    try:
        wait_until(is_up, limit_s=40)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _properties(path: Path, values: dict[str, Any]) -> None:
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))


def _fetch(set_name: str, folder: Path) -> None:
    dependencies = "".join(
        f"<dependency><groupId>{GROUP_ID}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for artifact, version in JAR_SETS[set_name]
    )
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pom = partial / "pom.xml"
    pom.write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>shmq.interop</groupId><artifactId>jars</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>\n"
    )
    command = [
        "mvn",
        "-q",
        "-B",
        "-f",
        str(pom),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={partial}",
    ]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"Maven could not copy {set_name}:\n{done.stdout}\n{done.stderr}"
    pom.unlink()
    partial.rename(folder)
    print(f"fetched {set_name} in {time.monotonic() - started:.0f} s")


@contextmanager
def _cache_lock(name: str) -> Iterator[None]:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
