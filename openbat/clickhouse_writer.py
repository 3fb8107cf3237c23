"""The ClickHouse worker's way to ClickHouse."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from clickhouse_connect import common
from clickhouse_connect.driver.exceptions import ClickHouseError

from openbat.clickhouse import ClickHouseUnreachableError, clickhouse_client
from openbat.metrics import InsertMetrics
from openbat.patience import until_it_answers
from openbat.settings import Settings
from sinks.writer import ClickHouseWriter

CONNECT_SECONDS = 10
INSERT_SECONDS = 30
"""How long ClickHouse may say nothing to an insert. After it the connection is given up, as open
but dead, and the insert is repeated: one that had arrived after all is absorbed by the table."""

PING_SECONDS = 1.0
STARTING = "ClickHouse does not answer yet, or lacks the tables that `openbat migrate` makes."


class Connected(NamedTuple):
    """A writer; and whether ClickHouse answers now, which blocks for some seconds at most."""

    writer: ClickHouseWriter
    ping: Callable[[], bool]


async def connect_writer(settings: Settings, inserts: InsertMetrics) -> Connected:
    """Return a writer that tells `inserts`, as soon as ClickHouse answers and has the tables."""
    return await until_it_answers(
        "ClickHouse",
        (ClickHouseError, ClickHouseUnreachableError),
        lambda: asyncio.to_thread(_connect, settings, inserts),
    )


def _connect(settings: Settings, inserts: InsertMetrics) -> Connected:
    # An error's end says what failed; cut off, a long message's content alone would be left of it.
    common.set_setting("max_error_size", 0)
    client = clickhouse_client(
        settings.clickhouse_url,
        settings.clickhouse_ca_file,
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=INSERT_SECONDS,
    )
    try:
        writer = ClickHouseWriter(client, inserts.inserted, inserts.repeated)
        return Connected(writer, lambda: bool(client.ping(PING_SECONDS)))
    except BaseException:
        client.close()
        raise


def clickhouse_reasons(inserts: InsertMetrics, ping: Callable[[], bool]) -> list[str]:
    """Return why no rows get into ClickHouse."""
    reasons = [
        f"ClickHouse has not taken inserts into {table} for {seconds:.0f} s."
        for table, seconds in inserts.failing().items()
    ]
    return reasons if ping() else [*reasons, "ClickHouse does not answer."]
