"""Looks at Kafka, ClickHouse and the local stack; what does not answer in time fails no other."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from clickhouse_connect.driver.exceptions import ClickHouseError

from openbat.clickhouse import clickhouse_client
from openbat.connection import UnreachableError, connection_of
from openbat.dead_letters.listed import counts
from openbat.dead_letters.reading import LettersReader
from openbat.errors import NO_TABLE, sentence_of
from openbat.local import state
from openbat.settings import Settings
from openbat.status.groups import look_at_roles
from openbat.status.processes import look_at_processes
from openbat.status.seen import LettersSeen, Part, RowsSeen, Seen
from sinks.migrate import MIGRATIONS, missing

PART_SECONDS = 10.0
"""How long each part may take. All are looked at together."""
CLICKHOUSE_CONNECT_SECONDS, CLICKHOUSE_ANSWER_SECONDS = 3, 5

T = TypeVar("T")

# The table, not the view: answered from what ClickHouse keeps of each part, without reading a row.
_ROWS = "SELECT count(), toUnixTimestamp64Micro(max(received_at)) FROM openbat.message_rows"

_FEED = "activity_feed"
"""A materialized view that nobody reads: the role openbat_reader does not see it."""

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
        named: whether somebody said where Kafka is; else it is looked for where a local stack has
            it by default.

    Raises:
        SettingsError: a file of certificates can't be used.

    """

    def __init__(self, settings: Settings, *, named: bool) -> None:
        self._settings = settings
        self._named = named
        self._connection = connection_of(settings)
        self._letters = LettersReader(self._connection)

    async def look(self) -> Seen:
        """Return what is seen now, within PART_SECONDS and a little."""
        away: dict[Part, str] = {}
        processes, roles, rows, letters = await asyncio.gather(
            look_at_processes(self._settings.data_dir),
            self._in_time("roles", away, look_at_roles(self._connection)),
            self._in_time("clickhouse", away, asyncio.to_thread(look_at_rows, self._settings)),
            self._in_time("dead_letters", away, self._look_at_letters()),
        )
        # What failed first is no matter: what is said first is Kafka.
        away = {part: away[part] for part in _NAMES if part in away}
        return Seen(datetime.now(UTC), roles, rows, letters, processes, away)

    async def _look_at_letters(self) -> LettersSeen:
        found = await self._letters.read()
        return LettersSeen(len(found), {str(reason): of for reason, of in counts(found).items()})

    async def _in_time(
        self, part: Part, away: dict[Part, str], look: Coroutine[Any, Any, T]
    ) -> T | None:
        """Return what a look has seen; None where it failed, and then why is in `away`."""
        try:
            async with asyncio.timeout(PART_SECONDS):
                return await look
        except TimeoutError:
            away[part] = f"{_NAMES[part]} did not answer within {PART_SECONDS:g} s: {_LATE[part]}"
        except UnreachableError as error:
            away[part] = str(error) if self._located() else self._nowhere()
        except Exception as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            away[part] = sentence
        return None

    def _located(self) -> bool:
        return self._named or state.read(self._settings.data_dir) is not None

    def _nowhere(self) -> str:
        return (
            f"no local stack runs in {self._settings.data_dir}: `openbat local` (or `make run`) "
            "starts one; else name the brokers by OPENBAT_KAFKA_BOOTSTRAP"
        )


def look_at_rows(settings: Settings) -> RowsSeen:
    """Return what ClickHouse has, and lacks. Blocks.

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
        rows, newest = _count(client)
        lacks = [
            name for name in missing(client, sorted(MIGRATIONS.glob("*.sql"))) if name != _FEED
        ]
    finally:
        client.close()
    at = datetime.fromtimestamp(newest / 1_000_000, UTC) if rows else None
    return RowsSeen(rows, at, lacks)


def _count(client: Any) -> tuple[int | None, int]:
    """Return how many rows there are, and the newest; the first is None without the table."""
    try:
        ((rows, newest),) = client.query(_ROWS).result_rows
    except ClickHouseError as error:
        if getattr(error, "code", None) not in NO_TABLE:
            raise
        return None, 0
    return rows, newest
