"""Memory of this process: buffers that nobody has written to.

Any process.
"""

from __future__ import annotations

import ctypes

_new = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
_new.restype = ctypes.py_object


def unwritten(size: int) -> bytearray:
    """Return `size` bytes of any content, for whoever writes them all before anybody reads one.

    `bytearray(size)` would write zeros first: as much work as a copy, and a large one would take its memory
    from the machine before there is anything to put into it.
    """
    made: bytearray = _new(None, size)
    return made
