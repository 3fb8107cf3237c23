"""What commands have in common: where the stack is, how a task is run, how JSON is printed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer
from msgspec.structs import replace
from rich.console import Console
from rich.prompt import Confirm

from openbat import settings
from openbat.local import state
from openbat.settings import Settings

if TYPE_CHECKING:
    from openbat.connection import Connection

T = TypeVar("T")

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, as docs/cli.md has it.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask before doing it.")]


class UnansweredError(Exception):
    """Raised when a question finds nobody who could answer it; says what to do."""


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


def connection() -> "Connection":
    """Return how to reach Kafka."""
    from openbat.connection import connection_of

    return connection_of(located(settings.load()))


def run(task: Coroutine[Any, Any, T]) -> T:
    """Run a task to its end, without what libraries log on the way."""
    logging.disable(logging.ERROR)
    return asyncio.run(task)


def run_on_topics(connection: "Connection", task: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a task that needs the topics.

    Raises:
        TopicsError: they are not there; a client would wait for them until its time-out.

    """
    from openbat.kafka import captures_partitions

    async def checked() -> T:
        await captures_partitions(connection)
        return await task()

    return run(checked())


def ask(question: str) -> None:
    """Return where a person agrees; end with 1 where not.

    Raises:
        UnansweredError: nobody is there.

    """
    try:
        agreed = Confirm.ask(
            question, console=Console(stderr=True, highlight=False, soft_wrap=True), default=False
        )
    except EOFError:
        raise UnansweredError("nobody is there to be asked: --yes does without") from None
    if not agreed:
        raise typer.Exit(1)


def print_json(document: Any) -> None:
    """Print one JSON document: what msgspec encodes, indented."""
    typer.echo(json_of(document), nl=False)


def end_with(totals: Any, as_json: bool, *, failed: bool = False) -> None:
    """Print what a command has done, as JSON or in a line; end with 1 where some of it failed."""
    if as_json:
        print_json(totals)
    else:
        typer.echo(str(totals))
    if failed:
        raise typer.Exit(1)


def json_of(document: Any) -> bytes:
    """Return a document as indented JSON, UTF-8, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
