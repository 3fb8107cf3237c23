"""The `openbat export` command. It imports what it needs when it runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import typer

from openbat import settings
from openbat.command import AsJson, connection, end_with, located, run


def export(
    since: Annotated[str, typer.Option(help="The first day, of UTC: 2026-11-01.")],
    out: Annotated[Path, typer.Option(help="The directory to write to; made where missing.")],
    until: Annotated[
        str | None, typer.Option(help="The day after the last one; default: tomorrow.")
    ] = None,
    chatbot: Annotated[
        str | None, typer.Option(help="Of this one alone: its name, or its id.")
    ] = None,
    table: Annotated[
        Literal["messages", "conversations", "analyses"], typer.Option(help="Which view.")
    ] = "messages",
    format_: Annotated[
        Literal["parquet", "jsonl", "csv"], typer.Option("--format", help="Of the files.")
    ] = "parquet",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep files that were written after their day was over.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write rows of ClickHouse to files, one for each day: Parquet, JSON Lines or CSV."""
    from openbat.clickhouse import clickhouse_client
    from openbat.export import TIMEOUT_SECONDS, ExportError, Wanted, export_rows, parse_day

    loaded = located(settings.load())
    first = parse_day(since)
    end = parse_day(until) if until else datetime.now(UTC).date() + timedelta(days=1)
    if end <= first:
        raise ExportError(f"--until {end}: expected a day after --since {first}")
    wanted = Wanted(table, format_, first, end, _id_of(chatbot), out, keep)
    client = clickhouse_client(
        loaded.clickhouse_url, loaded.clickhouse_ca_file, send_receive_timeout=TIMEOUT_SECONDS
    )
    try:
        totals = export_rows(client, wanted)
    finally:
        client.close()
    end_with(totals, as_json)


def _id_of(chatbot: str | None) -> UUID | None:
    """Return a chatbot's id; only a name has to be looked up, and needs Kafka."""
    if chatbot is None:
        return None
    try:
        return UUID(chatbot)
    except ValueError:
        from openbat.chatbots import find
        from openbat.kafka import read_registry

        return UUID(find(run(read_registry(connection())), chatbot).id)
