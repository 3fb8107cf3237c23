"""Every size limit between the socket and ClickHouse, in one table, in bytes.

Each limit is large enough for what the one before it lets through, so that nothing that was
answered with 200 can be too big later on. `tests/unit/test_sizes.py` checks the order.

A capture's JSON may grow when it is encoded as MessagePack (`1e1,` takes 4 bytes, a double 9), so
a capture is allowed more than twice the largest body.
"""

KIB = 1024
MIB = 1024 * KIB

HEAD = 64 * KIB
"""A request's line and headers."""

DEFAULT_BODY = 1 * MIB
"""A request's body after decompression, unless OPENBAT_MAX_BODY_BYTES says otherwise."""

LARGEST_BODY = 2 * MIB
"""What OPENBAT_MAX_BODY_BYTES may say at most."""

FIELDS = 64 * KIB
"""A conversation's stored user, organization, session and custom fields together, encoded."""

CAPTURE = 5 * MIB
"""One capture, encoded. A larger one is answered with 413."""

BATCH = 256 * KIB
"""When a batch of captures is closed; its last capture may exceed it."""

CAPTURES_RECORD = BATCH + CAPTURE + 64 * KIB

OUTPUT_BATCH = 1 * MIB
"""When a record of a worker's output is closed; its last conversation may exceed it."""

OUTPUT_RECORD = OUTPUT_BATCH + CAPTURE + 2 * FIELDS + 64 * KIB

CHANGELOG_BATCH = 512 * KIB

TOPIC = 8 * MIB
"""max.message.bytes of every topic but dead-letters."""

DEAD_LETTERS_TOPIC = 12 * MIB
"""max.message.bytes of dead-letters: a whole record of any other topic and its headers."""

PRODUCER_REQUEST = DEAD_LETTERS_TOPIC
