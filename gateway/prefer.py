"""How long a client wants to wait for the exact count: the Prefer header (RFC 7240)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_QUOTED = r'"(?:[^"\\]|\\.)*+(?:"|\\?$)'
"""One that does not end takes the rest, and nothing is looked at twice: headers may be hostile."""
_PREFERENCE = re.compile(rf'(?s)(?:[^,"]|{_QUOTED})++')
_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.IGNORECASE)


class Preference(NamedTuple):
    """What the client asked for: how long to wait, and not to wait longer than that."""

    respond_async: bool = False
    wait_seconds: int | None = None

    @property
    def applied(self) -> str | None:
        """The Preference-Applied header's value."""
        applied = ["respond-async"] if self.respond_async else []
        if self.wait_seconds is not None:
            applied.append(f"wait={self.wait_seconds}")
        return ", ".join(applied) or None


def preference(headers: Iterable[str], longest_seconds: int) -> Preference:
    """Return what the headers ask for; what they say otherwise is ignored, as the RFC wants.

    Of preferences that are given twice the first counts. `respond-async, wait=N` means to answer
    after N seconds at the latest.
    """
    respond_async, wait_seconds = False, None
    for preferred in _PREFERENCE.findall(",".join(headers)):
        name = preferred.partition(";")[0].strip()
        match = _WAIT.fullmatch(name)
        if name.lower() == "respond-async":
            respond_async = True
        elif match and wait_seconds is None:
            wait_seconds = min(int(match.group(1)), longest_seconds)
    return Preference(respond_async, wait_seconds)
