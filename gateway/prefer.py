"""How long a client wants to wait for the exact count: the Prefer header (RFC 7240)."""

import re
from typing import NamedTuple

_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)


class Preference(NamedTuple):
    """What the client asked for: neither, not to wait at all, or to wait this long."""

    respond_async: bool = False
    wait_seconds: int | None = None

    @property
    def applied(self) -> str | None:
        """The Preference-Applied header's value."""
        if self.respond_async:
            return "respond-async"
        return None if self.wait_seconds is None else f"wait={self.wait_seconds}"


def preference(header: str | None, longest_seconds: int) -> Preference:
    """Return what the header asks for; what it says otherwise is ignored, as the RFC wants."""
    if not header:
        return Preference()
    for part in header.split(","):
        name = part.partition(";")[0].strip()
        if name.lower() == "respond-async":
            return Preference(respond_async=True)
        match = _WAIT.fullmatch(name)
        if match:
            return Preference(wait_seconds=min(int(match.group(1)), longest_seconds))
    return Preference()
