"""Apache RocketMQ from its jars: name server, broker, and its own Java client, warmed up with C2 as in
production."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from bench import peers
from bench.clients import ClientProcess
from bench.durability import Durability
from bench.servers.server import LOOPBACK, Missing, Server, answers_tcp, free_port
from bench.servers.shmq import PULLING, RARELY_MS, SEGMENT_BYTES
from shmq.base.errors import ShmqError
from shmq.client.admin_client import AdminClient

SOURCE = Path(__file__).parent.parent / "java" / "BenchClient.java"
OPEN_MODULES = [
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
]
NAMESRV_HEAP = ["-Xms128m", "-Xmx256m"]
BROKER_HEAP = ["-Xms1g", "-Xmx1g", "-XX:MaxDirectMemorySize=1g"]
"""The stock scripts ask for 8 GiB; with less than this it began to collect garbage all the time."""
CLIENT_HEAP = ["-Xms512m", "-Xmx512m"]
PORTS_ASIDE = (0, 1, -2)
"""The broker's port, its HA port, and its second port, which it takes two below."""

FLUSHING: dict[Durability, dict[str, object]] = {
    Durability.PAGE_CACHE: {
        "flushDiskType": "ASYNC_FLUSH",
        "flushIntervalCommitLog": RARELY_MS,
        "flushCommitLogThoroughInterval": RARELY_MS,
    },
    Durability.TIMED: {"flushDiskType": "ASYNC_FLUSH"},
    Durability.SYNCED: {"flushDiskType": "SYNC_FLUSH"},
}


class RocketmqServer(Server):
    """A name server and a broker. They stay up from row to row: a JVM gets fast by running."""

    keeps_warm = True

    def start(self) -> None:
        """Start both and wait until the broker is registered."""
        jars = _jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        namesrv_port, port = free_port(), _broker_port()
        namesrv = f"{LOOPBACK}:{namesrv_port}"
        store = self.folder / "store"
        settings = {
            "mappedFileSizeCommitLog": SEGMENT_BYTES,
            "waitTimeMillsInSendQueue": 10_000,
            "enablePropertyFilter": "true",
            **PULLING,
            **FLUSHING[self.durability],
        }
        place = {
            "brokerClusterName": "DefaultCluster",
            "brokerName": "bench",
            "brokerIP1": LOOPBACK,
            "bindAddress": LOOPBACK,
            "listenPort": port,
            "haListenPort": port + 1,
            "namesrvAddr": namesrv,
            "storePathRootDir": store,
            "storePathCommitLog": store / "commitlog",
            "diskMaxUsedSpaceRatio": 95,
            "autoCreateTopicEnable": "true",
        }
        self.settings = {
            "version": jars.name.removeprefix("rocketmq-"),
            "JVM": " ".join(BROKER_HEAP),
            **{key: str(value) for key, value in settings.items()},
        }
        _properties(self.folder / "namesrv.conf", {"listenPort": namesrv_port, "bindAddress": LOOPBACK})
        _properties(self.folder / "broker.conf", {**place, **settings})
        self._java(NAMESRV_HEAP, "org.apache.rocketmq.namesrv.NamesrvStartup", "namesrv.conf")
        self.await_ready(lambda: answers_tcp(namesrv_port), "RocketMQ's name server")
        self._java(BROKER_HEAP, "org.apache.rocketmq.broker.BrokerStartup", "broker.conf")
        with AdminClient(namesrv) as admin:
            self.await_ready(lambda: _is_registered(admin, port), "RocketMQ's broker")
        self.address = {"namesrv": namesrv}

    def _java(self, heap: list[str], main: str, conf: str) -> None:
        command = java_command(_class_path(), heap, main, self.folder)
        self.spawn([*command, "-c", str(self.folder / conf)], {"ROCKETMQ_HOME": str(self.folder)})


def java_client(folder: Path, output: Path) -> ClientProcess:
    """The Java client process, compiled once per version of its source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    classes = peers.FOLDER / f"client-{_jars().name}-{digest}"
    if not classes.is_dir():
        partial = classes.with_suffix(f".{os.getpid()}")
        command = ["javac", "-nowarn", "-cp", _class_path(), "-d", str(partial), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"the Java client does not compile: {done.stderr.strip().splitlines()[0]}")
        try:
            partial.rename(classes)
        except OSError:  # another run was quicker
            shutil.rmtree(partial)
    class_path = f"{classes}:{_class_path()}"
    return ClientProcess(java_command(class_path, CLIENT_HEAP, "BenchClient", folder), {}, output)


def lacking() -> str | None:
    """Why it cannot run here, or None."""
    if shutil.which("java") is None or shutil.which("javac") is None:
        return "no JDK on the PATH"
    return None if peers.rocketmq_jars() else f"no jars of RocketMQ: {peers.HOW}"


def java_command(class_path: str, heap: list[str], main: str, folder: Path) -> list[str]:
    """A JVM's argument list; `folder` takes the log files that would otherwise go to ~/logs."""
    logs = [f"-Duser.home={folder}", f"-Drocketmq.client.logRoot={folder}", "-Drocketmq.client.logLevel=WARN"]
    return ["java", *heap, *OPEN_MODULES, *logs, "-cp", class_path, main]


def _jars() -> Path:
    jars = peers.rocketmq_jars()
    if jars is None:
        raise Missing(f"no jars of RocketMQ: {peers.HOW}")
    return jars


def _class_path() -> str:
    return f"{_jars()}/*"


def _broker_port() -> int:
    while True:
        port = free_port()
        if not any(answers_tcp(port + aside) for aside in PORTS_ASIDE):
            return port


def _is_registered(admin: AdminClient, port: int) -> bool:
    """Whether the name server knows the broker; if not, make it register.

    At its start a broker registers where it has already found the name server alive, and then not again for
    ten seconds. A change of its permission makes it register at once.
    """
    if not answers_tcp(port):
        return False
    try:
        if "TBW102" in admin.topic_list():
            return True
        admin.update_broker_config(f"{LOOPBACK}:{port}", {"brokerPermission": "6"})
    except ShmqError:
        return False  # it listens before it can answer everything
    time.sleep(0.1)
    return False


def _properties(path: Path, values: dict[str, object]) -> None:
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
