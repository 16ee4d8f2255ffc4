"""Plain tables: KVTable 28, 219 and the answer to 103; properties text of settings 25, 26, 318, 319."""

from collections.abc import Mapping

from shmq.base.errors import RemoteFault
from shmq.protocol.bodies.dialect import Body, dumps, loads, reads


def encode_kv_table(table: Mapping[str, str]) -> bytes:
    """Return a KVTable."""
    return dumps({"table": dict(table)})


@reads("KV table")
def decode_kv_table(body: Body | None) -> dict[str, str]:
    """Read a KVTable."""
    return {str(name): str(value) for name, value in (loads(body).get("table") or {}).items()}


def encode_properties_text(settings: Mapping[str, str]) -> bytes:
    """Return settings as lines ``key=value``."""
    return "".join(f"{key}={value}\n" for key, value in settings.items()).encode()


def decode_properties_text(body: Body | None) -> dict[str, str]:
    """Read lines ``key=value``; blank lines and comments (``#``, ``!``) are skipped."""
    try:
        lines = str(body or b"", "utf-8").splitlines()
    except UnicodeDecodeError as fault:
        raise RemoteFault(f"settings are not UTF-8: {fault}") from fault
    settings = {}
    for line in lines:
        text = line.strip()
        if not text or text[0] in "#!":
            continue
        key, separator, value = text.partition("=")
        if not separator:
            raise RemoteFault(f"settings: {text!r} is no line key=value")
        settings[key.strip()] = value.strip()
    return settings
