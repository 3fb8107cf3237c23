"""The ClickHouse worker's way to ClickHouse."""

import asyncio

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


async def connect_writer(settings: Settings, inserts: InsertMetrics) -> ClickHouseWriter:
    """Return a writer that tells `inserts`, as soon as ClickHouse answers and has the tables."""
    return await until_it_answers(
        "ClickHouse",
        (ClickHouseError, ClickHouseUnreachableError),
        lambda: asyncio.to_thread(_connect, settings, inserts),
    )


def _connect(settings: Settings, inserts: InsertMetrics) -> ClickHouseWriter:
    client = clickhouse_client(
        settings.clickhouse_url,
        settings.clickhouse_ca_file,
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=INSERT_SECONDS,
    )
    try:
        return ClickHouseWriter(client, inserts.inserted, inserts.repeated)
    except BaseException:
        client.close()
        raise
