"""Compression of message bodies: zlib always, LZ4 and Zstandard with the extra ``compression``.

Producers compress; brokers never look inside; consumers decompress by the type in sysFlag (Apache RocketMQ
5.3, CompressionType.java). LZ4 is the frame format. Called in client processes only.
"""

import zlib
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from shmq.base.errors import ClientFault, MessageIllegal
from shmq.model.sys_flag import COMPRESSION_LZ4, COMPRESSION_MASK, COMPRESSION_ZLIB, COMPRESSION_ZSTD

COMPRESSION_FLAGS = {"ZLIB": COMPRESSION_ZLIB, "LZ4": COMPRESSION_LZ4, "ZSTD": COMPRESSION_ZSTD}
"""Setting ``compressType`` -> bits of sysFlag."""

DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024
"""No decompressed body may be longer: a few hostile bytes must not fill a consumer's memory."""

Body = bytes | bytearray | memoryview


def compress(body: Body, compression_flag: int = COMPRESSION_ZLIB, level: int = 5) -> bytes:
    """Return ``body`` compressed; ``ClientFault`` names the package to install when the codec is missing."""
    if compression_flag == COMPRESSION_ZLIB:
        return zlib.compress(body, level)
    if compression_flag == COMPRESSION_LZ4:
        return bytes(_codec("lz4.frame").compress(body, compression_level=level))
    if compression_flag == COMPRESSION_ZSTD:
        return bytes(_codec("zstandard").ZstdCompressor(level=level).compress(bytes(body)))
    raise ClientFault(
        f"compression type {compression_flag:#x} is unknown; allowed: {', '.join(COMPRESSION_FLAGS)}"
    )


def decompress(body: Body, sys_flag: int, limit: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """Return the original of a compressed body; no type bits mean zlib, as old clients send it.

    ``MessageIllegal`` when the bytes are damaged or the original is longer than ``limit`` bytes.
    """
    kind = sys_flag & COMPRESSION_MASK
    decompressor = _DECOMPRESSORS.get(kind)
    if decompressor is None:
        raise MessageIllegal(f"body has compression type {kind:#x}, which is unknown")
    try:
        original = decompressor(body, limit)
    except ClientFault:
        raise
    except Exception as fault:  # each codec has its own error class, and two of them may be absent
        raise MessageIllegal(f"compressed body is damaged: {fault}") from fault
    if len(original) > limit:
        raise MessageIllegal(f"decompressed body is longer than {limit} bytes")
    return original


def _zlib(body: Body, limit: int) -> bytes:
    decoder = zlib.decompressobj()
    original = decoder.decompress(body, limit + 1)
    if len(original) <= limit and not decoder.eof:
        raise MessageIllegal("compressed body is cut short")
    return original


def _lz4(body: Body, limit: int) -> bytes:
    decoder = _codec("lz4.frame").LZ4FrameDecompressor()
    original = bytes(decoder.decompress(bytes(body), max_length=limit + 1))
    if len(original) <= limit and not decoder.eof:
        raise MessageIllegal("compressed body is cut short")
    return original


def _zstd(body: Body, limit: int) -> bytes:
    codec = _codec("zstandard")
    if codec.frame_content_size(body) > limit:
        raise MessageIllegal(f"decompressed body is longer than {limit} bytes")
    return bytes(codec.ZstdDecompressor().decompress(body, max_output_size=limit))


_DECOMPRESSORS: dict[int, Callable[[Body, int], bytes]] = {
    0: _zlib,
    COMPRESSION_ZLIB: _zlib,
    COMPRESSION_LZ4: _lz4,
    COMPRESSION_ZSTD: _zstd,
}


def _codec(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as fault:
        package = module.partition(".")[0]
        raise ClientFault(
            f"this body needs the package {package}, which is not installed: pip install 'shmq[compression]'"
        ) from fault
