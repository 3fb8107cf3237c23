"""Times as they travel: microseconds since the Unix epoch, UTC."""

from datetime import datetime

FIRST_INSTANT = -2_208_988_800_000_000
LAST_INSTANT = 10_413_791_999_999_999
"""1900-01-01 and the end of 2299: what ClickHouse's DateTime64(6) holds."""

_EPOCH = datetime(1970, 1, 1)


def microseconds(value: datetime) -> int:
    """Return microseconds since the epoch; a time without an offset is UTC."""
    since = value.replace(tzinfo=None) - _EPOCH
    offset = value.utcoffset()
    if offset is not None:
        since -= offset
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
