"""Faust's recovery, made to begin anew when partitions change while it reads.

Faust notices a rebalance that comes in the middle of a recovery, and goes on all the same: with the
new partitions, whose offsets it has not looked up. Seeking there raises, and ends its recovery
while the process lives on.
"""

from collections.abc import Mapping
from typing import Any

from faust.tables import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery


class RestartingRecovery(Recovery):  # type: ignore[misc]
    """Begins anew where it would seek to an offset that it does not know."""

    async def _seek_offsets(
        self, consumer: Any, tps: set[Any], offsets: Mapping[Any, int | None], title: str
    ) -> None:
        if any(offsets[tp] is None for tp in tps):
            raise RebalanceAgain
        await super()._seek_offsets(consumer, tps, offsets, title)


class RestartingTableManager(TableManager):  # type: ignore[misc]
    """Makes the recovery that begins anew."""

    _recovery: RestartingRecovery | None = None

    @property
    def recovery(self) -> RestartingRecovery:
        if self._recovery is None:
            self._recovery = RestartingRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
