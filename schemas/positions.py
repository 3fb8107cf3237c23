"""Where a message stands in the log, as one number that orders a conversation.

A conversation lives in one partition of `captures`, so the partition needs no bits:

    generation of the topic  5 | offset  40 | capture in the record  12 | message in it  7

The generation is counted up when the topic is made anew, because offsets then start over.
"""

GENERATION_BITS, OFFSET_BITS, CAPTURE_BITS, MESSAGE_BITS = 5, 40, 12, 7

MAX_CAPTURES_PER_RECORD = 1 << CAPTURE_BITS
MAX_GENERATION = (1 << GENERATION_BITS) - 1
POSITION_BYTES = 8


def capture_position(generation: int, offset: int, capture: int) -> int:
    """Return the position of a capture, which is that of its first message."""
    return ((generation << OFFSET_BITS | offset) << CAPTURE_BITS | capture) << MESSAGE_BITS
