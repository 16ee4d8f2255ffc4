"""Typed headers of every request and response, one module per family.

Each is a slots dataclass whose fields are its table (see ``header_table``); field order is the CBOR array's
order and is only ever extended at its end. Import from the family module on paths that must start fast.
"""

from shmq.protocol.headers.admin import *  # noqa: F403
from shmq.protocol.headers.client import *  # noqa: F403
from shmq.protocol.headers.log_batch import *  # noqa: F403
from shmq.protocol.headers.naming import *  # noqa: F403
from shmq.protocol.headers.offset import *  # noqa: F403
from shmq.protocol.headers.pull import *  # noqa: F403
from shmq.protocol.headers.query import *  # noqa: F403
from shmq.protocol.headers.send import *  # noqa: F403
