"""Looks at Kafka, ClickHouse and the local stack; what does not answer in time fails no other."""

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from openbat.clickhouse import clickhouse_client
from openbat.connection import connection_of
from openbat.dead_letters.listed import counts
from openbat.dead_letters.reading import LettersReader
from openbat.errors import sentence_of
from openbat.local import state
from openbat.settings import Settings
from openbat.status.groups import look_at_roles
from openbat.status.seen import LettersSeen, Part, ProcessSeen, RowsSeen, Seen

PART_SECONDS = 10.0
"""How long each part may take. All are looked at together."""
CLICKHOUSE_CONNECT_SECONDS, CLICKHOUSE_ANSWER_SECONDS = 3, 5

T = TypeVar("T")

# The table, not the view: answered from what ClickHouse keeps of each part, without reading a row.
_ROWS = "SELECT count(), toUnixTimestamp64Micro(max(received_at)) FROM openbat.message_rows"

_NAMES: dict[Part, str] = {
    "roles": "Kafka",
    "dead_letters": "Kafka, asked for all dead letters,",
    "clickhouse": "ClickHouse",
}
_LATE: dict[Part, str] = {
    "roles": "look at its brokers, and at OPENBAT_KAFKA_BOOTSTRAP",
    "dead_letters": "`openbat dead-letters list` takes the time to count them",
    "clickhouse": "look at its load, and at OPENBAT_CLICKHOUSE_URL",
}


class Eyes:
    """Looks, again and again. Dead letters that were counted once are not read again.

    Args:
        settings: where Kafka and ClickHouse are, as `openbat.command.located` returns them.

    Raises:
        SettingsError: a file of certificates can't be used.

    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection = connection_of(settings)
        self._letters = LettersReader(self._connection)

    async def look(self) -> Seen:
        """Return what is seen now, within PART_SECONDS and a little."""
        away: dict[Part, str] = {}
        roles, rows, letters = await asyncio.gather(
            _in_time("roles", away, look_at_roles(self._connection)),
            _in_time("clickhouse", away, asyncio.to_thread(look_at_rows, self._settings)),
            _in_time("dead_letters", away, self._look_at_letters()),
        )
        processes = look_at_processes(self._settings.data_dir)
        return Seen(datetime.now(UTC), roles, rows, letters, processes, away)

    async def _look_at_letters(self) -> LettersSeen:
        found = await self._letters.read()
        return LettersSeen(len(found), {str(reason): of for reason, of in counts(found).items()})


async def _in_time(part: Part, away: dict[Part, str], look: Coroutine[Any, Any, T]) -> T | None:
    """Return what a look has seen; None where it failed, and then why is in `away`."""
    try:
        async with asyncio.timeout(PART_SECONDS):
            return await look
    except TimeoutError:
        away[part] = f"{_NAMES[part]} did not answer within {PART_SECONDS:g} s: {_LATE[part]}"
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        away[part] = sentence
    return None


def look_at_rows(settings: Settings) -> RowsSeen:
    """Return what ClickHouse has. Blocks.

    Raises:
        ClickHouseUnreachableError, ClickHouseError: it does not answer, or refuses.

    """
    client = clickhouse_client(
        settings.clickhouse_url,
        settings.clickhouse_ca_file,
        connect_timeout=CLICKHOUSE_CONNECT_SECONDS,
        send_receive_timeout=CLICKHOUSE_ANSWER_SECONDS,
    )
    try:
        ((rows, newest),) = client.query(_ROWS).result_rows
    finally:
        client.close()
    at = datetime.fromtimestamp(newest / 1_000_000, UTC) if rows else None
    return RowsSeen(rows, at)


def look_at_processes(data_dir: Path) -> list[ProcessSeen] | None:
    """Return the processes of the local stack that runs in a directory, None where none does."""
    running = state.read(data_dir)
    if running is None:
        return None
    return [ProcessSeen(each.role, each.pid, _is_alive(each.pid)) for each in running.processes]


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(PermissionError):  # it is somebody else's, so it is there
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
