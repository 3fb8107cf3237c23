"""When no more records come for now.

Faust hands records over one by one, some turns of the event loop apart, though it has many. Who
took the first one at once would take it alone, and send alone all that it leads to.
"""

import asyncio

QUIET_TURNS = 8
"""Turns of the event loop without a record, after which none is on its way; Faust takes three or
four for each."""
MOST_TURNS = 100
"""How long records may keep others waiting: some milliseconds while there are many."""


class Lull:
    """Waits until records no longer come; all who wait do it together."""

    def __init__(self) -> None:
        self._records = 0
        self._settling: asyncio.Task[None] | None = None

    def came(self) -> None:
        """Take note of a record."""
        self._records += 1

    async def wait(self) -> None:
        """Return when none has come for QUIET_TURNS, or after MOST_TURNS."""
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())
        # Shielded: one that gives up takes no other with it.
        await asyncio.shield(self._settling)

    async def _settle(self) -> None:
        seen, quiet = self._records, 0
        for _ in range(MOST_TURNS):
            await asyncio.sleep(0)
            quiet = quiet + 1 if seen == self._records else 0
            if quiet == QUIET_TURNS:
                return
            seen = self._records
