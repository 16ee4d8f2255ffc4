"""Typed headers of every request and response, one module per family.

Each is a slots dataclass (``header_class``) whose fields are its table (``header_table``); field order is the
CBOR array's order and is only ever extended at its end. There are many, so nothing is imported here: take
them from their family's module.
"""
