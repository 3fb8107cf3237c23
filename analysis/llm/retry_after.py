"""The header Retry-After: seconds, or an HTTP date (RFC 9110, section 10.2.3)."""

from email.utils import parsedate_to_datetime

MAX_SECONDS = 3600.0
"""What is longer is cut to it: no header may put an endpoint out of use for good."""


def retry_after_seconds(value: str | None, now: float) -> float | None:
    """Return the seconds to wait, None where the header is missing or says nothing.

    Args:
        value: the header's.
        now: seconds since 1970.

    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # A number too long for a float would not end the wait any later.
        return min(float(value[:12]), MAX_SECONDS)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_SECONDS)
