"""JSON (and a few binary) bodies of requests and responses, one module per noun.

``encode_*`` writes exactly the dialect RocketMQ's clients expect, compact, members in alphabetical order;
``decode_*`` reads what any of them writes and raises ``RemoteFault`` for anything else. See ``dialect`` for
both rules.
"""
