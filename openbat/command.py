"""What commands have in common: where the stack is, and how a task is run."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from msgspec.structs import replace

from openbat import settings
from openbat.connection import Connection, connection_of
from openbat.local import state
from openbat.settings import Settings

T = TypeVar("T")


def located(loaded: Settings) -> Settings:
    """Return the settings, with a running local stack's addresses where there is one."""
    running = state.read(loaded.data_dir)
    if running is None:
        return loaded
    return replace(
        loaded,
        kafka_bootstrap=running.kafka_bootstrap,
        clickhouse_url=running.clickhouse_url,
        replication_factor=1,
        **{name: getattr(settings.Settings(), name) for name in settings.UNSECURED},
    )


def connection() -> Connection:
    """Return how to reach Kafka."""
    return connection_of(located(settings.load()))


def run(task: Coroutine[Any, Any, T]) -> T:
    """Run a task to its end, without what libraries log on the way."""
    logging.disable(logging.ERROR)
    return asyncio.run(task)
