"""Bits of a message's ``sysFlag`` word (Apache RocketMQ 5.3, MessageSysFlag.java).

bit  0      body is compressed           bits 8-10  compression type: 0 or 3 zlib, 1 LZ4, 2 Zstandard
bit  1      several tags (unused)        bit 4, 5   born host, store host is IPv6 (16 address bytes)
bits 2-3    transaction type             bit 6, 7   inner batch: to be unwrapped, is one
"""

COMPRESSED = 0x001
MULTI_TAGS = 0x002
TRANSACTION_NONE = 0x000
TRANSACTION_PREPARED = 0x004
TRANSACTION_COMMIT = 0x008
TRANSACTION_ROLLBACK = 0x00C
TRANSACTION_MASK = 0x00C
BORN_HOST_V6 = 0x010
STORE_HOST_V6 = 0x020
NEED_UNWRAP = 0x040
INNER_BATCH = 0x080
COMPRESSION_MASK = 0x700
COMPRESSION_LZ4 = 0x100
COMPRESSION_ZSTD = 0x200
COMPRESSION_ZLIB = 0x300

LOG_READY_FORBIDDEN = TRANSACTION_MASK | BORN_HOST_V6 | STORE_HOST_V6 | NEED_UNWRAP | INNER_BATCH
"""Bits a client may not set in a record of a log-ready batch."""
